"""The import path under which existing programs look for these two names."""

from dualpipe.weight_grad import WeightGradStore, run_backward

__all__ = ["WeightGradStore", "run_backward"]
