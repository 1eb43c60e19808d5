"""What a plan is compared with: experts in order without replicas, and the greedy planner."""

from __future__ import annotations

import numpy as np
import torch

from eplb.greedy import rebalance_experts
from eplb.plan import EMPTY, Floats, Ints
from eplb.topology import Topology


def contiguous(topology: Topology, num_layers: int, num_experts: int) -> Ints:
    """[num_layers, num_slots]: experts in their order over the GPUs, one replica of each.

    GPUs get experts in proportion to their slots; the slots that are left stay EMPTY.

    Raises:
        ValueError: there are fewer slots than experts.
    """
    num_slots = topology.num_slots
    if num_slots < num_experts:
        raise ValueError(
            f"contiguous: topology must have a slot for each of the {num_experts} experts, "
            f"got {num_slots} slots (add slots or GPUs)"
        )
    firsts, gpus = np.array(topology.first_slots), np.array(topology.gpu_of_slot)
    first_experts = firsts * num_experts // num_slots
    experts = first_experts[gpus] + np.arange(num_slots) - firsts[gpus]
    row = np.where(experts < first_experts[gpus + 1], experts, EMPTY)
    return np.tile(row, (num_layers, 1))


def greedy(topology: Topology, loads: Floats, *, hierarchical: bool) -> Ints | None:
    """[num_layers, num_slots]: the plan of `rebalance_experts`, which GPU by GPU it fills.

    Args:
        topology: GPUs and slots.
        loads: [num_windows, num_layers, num_experts], of which the mean is planned for.
        hierarchical: whether groups stay inside nodes.

    Returns:
        None where that function cannot do it: for unequal GPUs or nodes, or for groups that do not
        go evenly onto the nodes.
    """
    num_experts, num_gpus = loads.shape[2], topology.num_gpus
    num_nodes = topology.num_nodes if hierarchical else 1
    num_groups = topology.num_groups if hierarchical else 1
    if len(set(topology.slots)) > 1 or topology.num_slots < num_experts:
        return None
    if num_groups % num_nodes or num_experts % num_groups or num_gpus % num_nodes:
        return None
    regular = tuple(gpu // (num_gpus // num_nodes) for gpu in range(num_gpus))
    if hierarchical and topology.node_of != regular:
        return None
    weight = torch.from_numpy(loads.mean(axis=0))
    phy2log, _, _ = rebalance_experts(weight, topology.num_slots, num_groups, num_nodes, num_gpus)
    slots: Ints = phy2log.numpy()
    return slots
