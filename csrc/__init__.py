"""Everything native, and the toolchain around it: what the kernel packages may use."""

from csrc import cache
from csrc.checks import Checker
from csrc.compiler import compile_kernel
from csrc.launcher import Launcher, num_sms
from csrc.parameters import Map, Number, Pointer, Signature, Struct
from csrc.simulation import simulate, simulating
from csrc.tensor_map import TensorMap

__all__ = [
    "Checker",
    "Launcher",
    "Map",
    "Number",
    "Pointer",
    "Signature",
    "Struct",
    "TensorMap",
    "cache",
    "compile_kernel",
    "num_sms",
    "simulate",
    "simulating",
]
