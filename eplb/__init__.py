"""Expert load balancing: which experts get replicas, on which GPUs, and how to get there."""

from eplb.draw import save_plot
from eplb.files import read_loads, read_plan, write_loads, write_plan
from eplb.greedy import rebalance_experts
from eplb.loads import LoadWindow
from eplb.plan import Plan
from eplb.rebalance import rebalance
from eplb.replay import Replay, replay, sweep
from eplb.topology import Topology
from eplb.transfer import Transfer

__all__ = [
    "LoadWindow",
    "Plan",
    "Replay",
    "Topology",
    "Transfer",
    "read_loads",
    "read_plan",
    "rebalance",
    "rebalance_experts",
    "replay",
    "save_plot",
    "sweep",
    "write_loads",
    "write_plan",
]
