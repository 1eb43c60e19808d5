"""Bidirectional pipeline parallelism: schedules as data, proved, simulated and run."""

from dualpipe.actions import ScheduleError
from dualpipe.p2p import set_p2p_tensor_dtype, set_p2p_tensor_shapes
from dualpipe.pipeline import DualPipe, DualPipeV
from dualpipe.weight_grad import WeightGradStore

__version__ = "1.0.0"
__all__ = [
    "DualPipe",
    "DualPipeV",
    "ScheduleError",
    "WeightGradStore",
    "set_p2p_tensor_dtype",
    "set_p2p_tensor_shapes",
]
