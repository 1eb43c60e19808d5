"""The checks of loads that every entry of the package shares."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eplb.plan import Floats

_AXES = ("window", "layer", "expert")


def checked_loads(op: str, loads: Tensor | NDArray[np.generic], name: str = "loads") -> Floats:
    """The same loads as float64, with the axis of windows that a single window may leave out.

    Args:
        op: the function that was called; it begins the message of an error.
        loads: [num_layers, num_experts] or [num_windows, num_layers, num_experts], integers or
            floats, a tensor on any device or an array — tokens, or any other unit of load.
        name: what that function calls the argument.

    Returns:
        [num_windows, num_layers, num_experts] float64, C-contiguous. It shares the memory of
        `loads` where that has this form already.

    Raises:
        TypeError: not a tensor or array of numbers.
        ValueError: the rank is wrong, there is no window or expert, or a load is NaN, infinite or
            negative: the first such load is named.
    """
    array = _as_float64(op, loads, name)
    if array.ndim not in {2, 3}:
        raise ValueError(
            f"{op}: {name} must have 2 dimensions [num_layers, num_experts] or 3 with the windows "
            f"first, got shape {list(array.shape)} (add the missing dimension)"
        )
    if array.shape[-1] == 0 or (array.ndim == 3 and array.shape[0] == 0):
        raise ValueError(
            f"{op}: {name} must have at least one expert and one window, got shape "
            f"{list(array.shape)}"
        )
    check_values(op, array, name)
    return np.ascontiguousarray(array if array.ndim == 3 else array[None])


def check_values(op: str, array: NDArray[np.floating], name: str) -> None:
    """Raises ValueError if a load is NaN, infinite or negative, or all of them overflow a sum.

    Args:
        op: begins the message.
        array: [..., num_layers, num_experts] floats.
        name: of the argument.
    """
    usable = np.isfinite(array) & (array >= 0)
    if not usable.all():
        place = [int(index) for index in np.argwhere(~usable)[0]]
        where = ", ".join(map("{} {}".format, _AXES[-array.ndim :], place))
        raise ValueError(
            f"{op}: {name} must be finite and not negative, got {array[tuple(place)]} at {where} "
            "(replace it, by 0 if nothing was counted)"
        )
    with np.errstate(over="ignore"):
        total = array.sum()
    if not np.isfinite(total):
        raise ValueError(f"{op}: {name} must have a finite sum, got {total} (use a larger unit)")


def _as_float64(op: str, loads: Tensor | NDArray[np.generic], name: str) -> Floats:
    wanted = f"{op}: {name} must be a tensor or a numpy array of integers or floats"
    if isinstance(loads, Tensor):
        if loads.dtype is torch.bool or loads.is_complex():
            raise TypeError(f"{wanted}, got {loads.dtype} (count tokens per expert)")
        converted: Floats = loads.detach().cpu().double().numpy()
        return converted
    if not isinstance(loads, np.ndarray):
        raise TypeError(f"{wanted}, got {type(loads).__name__} (use numpy.asarray)")
    if loads.dtype.kind not in "iuf":
        raise TypeError(f"{wanted}, got {loads.dtype} (count tokens per expert)")
    return loads.astype(np.float64, copy=False)
