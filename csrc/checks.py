"""The one argument validator: every public op checks its tensors here before any launch."""

import math
from collections.abc import Sequence
from typing import Any, Literal, NoReturn

import torch

from csrc.simulation import active

Layout = Literal["any", "rows", "tma", "contiguous"]
Backend = Literal["cpu", "kernel"]

# The tensor memory accelerator addresses memory in units of 16 bytes.
_TMA_BYTES = 16


class Checker:
    """Checks the arguments of one call of one op, and remembers the sizes it has seen.

    Every message has the form `op: argument must <rule>, got <actual> (<remedy>)`. A wrong type or
    dtype raises TypeError, any other broken rule ValueError, something that is legal but not built
    NotImplementedError. A method costs one or two microseconds: a decode step runs it per layer.

    Attributes:
        dims: size of every symbolic dim bound so far.

    Example:
        >>> check = Checker("fp8_gemm_nt")
        >>> check.tensor("a", torch.zeros(3, 256), ("m", "k"), torch.float32)
        >>> check.tensor("b", torch.zeros(8, 256), ("n", "k"), torch.float32)
        >>> check.multiple("k", check.dims["k"], 128, "pad a and b")
        >>> check.backend(), check.dims
        ('cpu', {'m': 3, 'k': 256, 'n': 8})
    """

    __slots__ = ("_bound_by", "_device", "_first", "dims", "op")

    def __init__(self, op: str) -> None:
        self.op = op
        self.dims: dict[str, int] = {}
        self._bound_by: dict[str, str] = {}
        self._device: torch.device | None = None
        self._first = ""

    def tensor(
        self,
        argument: str,
        value: Any,
        shape: Sequence[str | int],
        *dtypes: torch.dtype,
        layout: Layout = "contiguous",
    ) -> None:
        """Require a tensor of this shape, dtype and layout, on the device of the others.

        Args:
            argument: the name the caller knows it by.
            value: what the caller passed.
            shape: one entry per dim: an int is that size, a name is bound by the first tensor that
                has it and must be equal in the others.
            *dtypes: the accepted dtypes.
            layout: `contiguous`; `rows`: the last dim has stride 1; `tma`: rows, and every other
                stride and the address are multiples of 16 bytes; `any`.
        """
        if not isinstance(value, torch.Tensor):
            self.wrong_type(argument, "be a tensor", type(value).__name__, "wrap it")
        if value.dtype not in dtypes:
            names = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
            actual = str(value.dtype).removeprefix("torch.")
            self.wrong_type(argument, f"have dtype {names}", actual, "convert it")
        self._check_device(argument, value)
        self._check_shape(argument, value, shape)
        self.layout(argument, value, layout)

    def layout(self, argument: str, value: torch.Tensor, layout: Layout) -> None:
        """Require strides of this layout, as `tensor` does."""
        if layout == "contiguous":
            if not value.is_contiguous():
                self._wrong_strides(argument, "be contiguous", value)
        elif layout != "any":
            self._check_rows(argument, value, tma=layout == "tma")

    def multiple(self, argument: str, value: int, factor: int, remedy: str) -> None:
        """Require an integer that `factor` divides."""
        if value % factor:
            self.invalid(argument, f"be a multiple of {factor}", value, remedy)

    def between(self, argument: str, value: int, low: int, high: int, remedy: str) -> None:
        """Require `low <= value <= high`."""
        if not low <= value <= high:
            self.invalid(argument, f"be between {low} and {high}", value, remedy)

    def backend(self, *, has_kernel: bool = False) -> Backend:
        """Name the implementation that serves the device of the tensors checked so far.

        Args:
            has_kernel: whether the op has a Hopper kernel; it then serves CUDA tensors, and CPU
                tensors inside `csrc.simulate()`.
        """
        device = self._device
        if device is None or (device.type == "cpu" and active() is None):
            return "cpu"
        if not has_kernel and device.type == "cpu":
            remedy = "the Hopper kernel of this op is not built yet; call it outside"
            self.not_built(self._first, "not be simulated", f"a tensor on {device}", remedy)
        if not has_kernel or device.type not in ("cpu", "cuda"):
            remedy = f"the kernel of this op for {device.type} is not built yet; CPU tensors work"
            self.not_built(self._first, "be on cpu", device, remedy)
        return "kernel"

    def invalid(self, argument: str, rule: str, actual: object, remedy: str) -> NoReturn:
        """Raise ValueError: a shape, stride or value breaks a rule."""
        raise ValueError(self._message(argument, rule, actual, remedy))

    def wrong_type(self, argument: str, rule: str, actual: object, remedy: str) -> NoReturn:
        """Raise TypeError: a Python type or a dtype breaks a rule."""
        raise TypeError(self._message(argument, rule, actual, remedy))

    def not_built(self, argument: str, rule: str, actual: object, remedy: str) -> NoReturn:
        """Raise NotImplementedError: a legal request that nothing serves yet."""
        raise NotImplementedError(self._message(argument, rule, actual, remedy))

    def _message(self, argument: str, rule: str, actual: object, remedy: str) -> str:
        return f"{self.op}: {argument} must {rule}, got {actual} ({remedy})"

    def _check_device(self, argument: str, value: torch.Tensor) -> None:
        if self._device is None:
            self._device, self._first = value.device, argument
        elif value.device != self._device:
            rule = f"be on {self._device} like {self._first}"
            self.invalid(argument, rule, value.device, "move it with .to()")

    def _check_shape(self, argument: str, value: torch.Tensor, shape: Sequence[str | int]) -> None:
        actual = value.shape
        if len(actual) != len(shape):
            rule = f"have shape {_brackets(shape)}"
            self.invalid(argument, rule, _brackets(actual), "reshape it")
        for want, size in zip(shape, actual, strict=True):
            if isinstance(want, int):
                if size != want:
                    rule = f"have shape {_brackets(shape)}"
                    self.invalid(argument, rule, _brackets(actual), "check its sizes")
            elif self.dims.setdefault(want, size) != size:
                rule = f"have shape {_brackets(shape)} with {want}={self.dims[want]}"
                remedy = f"{want} was set by {self._bound_by[want]}"
                self.invalid(argument, rule, _brackets(actual), remedy)
            else:
                self._bound_by.setdefault(want, argument)

    def _check_rows(self, argument: str, value: torch.Tensor, *, tma: bool) -> None:
        if value.numel() == 0:
            return
        *outer, last = value.stride()
        sizes = value.shape
        # The stride of a dim with one element is never used, and torch lets it be anything.
        if last != 1 and sizes[-1] > 1:
            self._wrong_strides(argument, "have stride 1 in its last dim", value)
        if not tma:
            return
        unit = _TMA_BYTES // math.gcd(_TMA_BYTES, value.element_size())
        for size, stride in zip(sizes, outer, strict=False):
            if stride % unit and size > 1:
                rule = f"have outer strides that are multiples of {unit} elements"
                self._wrong_strides(argument, rule, value)
        if value.data_ptr() % _TMA_BYTES:
            actual = f"one {value.data_ptr() % _TMA_BYTES} bytes off"
            self.invalid(argument, f"start at a multiple of {_TMA_BYTES} bytes", actual, "clone it")

    def _wrong_strides(self, argument: str, rule: str, value: torch.Tensor) -> NoReturn:
        actual = f"strides {_brackets(value.stride())} for shape {_brackets(value.shape)}"
        self.invalid(argument, rule, actual, "call .contiguous()")


def _brackets(sizes: Sequence[str | int]) -> str:
    return f"[{', '.join(map(str, sizes))}]"
