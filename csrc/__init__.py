"""Everything native, and the toolchain around it: what the kernel packages may use."""

from csrc.checks import Checker

__all__ = ["Checker"]
