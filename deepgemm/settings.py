"""Settings of the process: how much of a GPU the products may take, and hints."""

from __future__ import annotations

from dataclasses import dataclass

import torch

import csrc
from csrc import Checker

# Of an H100, H200 or H800 with SXM: what there is to plan for where there is no GPU.
_SMS_WITHOUT_GPU = 132


@dataclass(slots=True)
class _Settings:
    num_sms: int = 0
    tc_util: int = 100
    pdl: bool = False
    ignore_compile_dims: bool = False
    block_size_multiple_of: tuple[int, int] = (1, 1)


_settings = _Settings()


def set_num_sms(num_sms: int) -> None:
    """Let products run on that many SMs at most, and leave the others to communication.

    Args:
        num_sms: from 1 to the SMs of the GPU; 0 for all of them, which is the default.

    Raises:
        ValueError: it is out of range.
    """
    most = _sms_of_device()
    Checker("set_num_sms").between("num_sms", num_sms, 0, most, "0 takes all SMs")
    _settings.num_sms = num_sms


def get_num_sms() -> int:
    """Return the SMs that products may run on: as set, or all of the current GPU.

    Where no GPU is, 132.

    Example:
        >>> set_num_sms(100)
        >>> get_num_sms()
        100
        >>> set_num_sms(0)
    """
    return _settings.num_sms or _sms_of_device()


def num_sms_of(device: torch.device) -> int:
    """Return how many SMs of a device, which may be a simulated one, a launch may take."""
    all_of_them = csrc.num_sms(device)
    return min(_settings.num_sms or all_of_them, all_of_them)


def set_tc_util(tc_util: int) -> None:
    """Set the share of the tensor cores' time to aim for, in percent; accepted, changes nothing.

    Raises:
        ValueError: not between 0 and 100.
    """
    Checker("set_tc_util").between("tc_util", tc_util, 0, 100, "it is a percentage")
    _settings.tc_util = tc_util


def get_tc_util() -> int:
    """Return what `set_tc_util` was given, 100 by default."""
    return _settings.tc_util


def set_pdl(enabled: bool) -> None:
    """Allow programmatic dependent launch: products start while the kernel before them ends.

    They wait for it before they read anything that it may have written, with one exception: for up
    to 64 tokens `b` is read before. So while this is on, the kernel before such a product must not
    write its weights.
    """
    _settings.pdl = bool(enabled)


def get_pdl() -> bool:
    """Return what `set_pdl` was given, False by default."""
    return _settings.pdl


def set_ignore_compile_dims(enabled: bool) -> None:
    """Ignore `compiled_dims` of all calls, as is done anyway: kernels take every size."""
    _settings.ignore_compile_dims = bool(enabled)


def set_block_size_multiple_of(multiple: int | tuple[int, int]) -> None:
    """Ask for tiles whose sides are multiples of these; accepted, changes no value.

    Args:
        multiple: of both sides, or (of m, of n); powers of two from 1 to 128.

    Raises:
        ValueError: another number.
    """
    both = multiple if isinstance(multiple, tuple) else (multiple, multiple)
    for side in both:
        if side not in (1, 2, 4, 8, 16, 32, 64, 128):
            check = Checker("set_block_size_multiple_of")
            check.invalid("multiple", "be powers of two up to 128", multiple, "use 1 for any")
    _settings.block_size_multiple_of = both


def get_compile_mode() -> int:
    """Return 0: calls launch what they compile."""
    return 0


def set_compile_mode(mode: int) -> None:
    """Choose between compiling with launching (0) and without (1, not built).

    Raises:
        NotImplementedError: the mode is not 0. `python -m csrc build` compiles ahead of time.
    """
    if mode != 0:
        remedy = "python -m csrc build compiles ahead of time"
        Checker("set_compile_mode").not_built("mode", "be 0", mode, remedy)


def _sms_of_device() -> int:
    if torch.cuda.is_available():
        return csrc.num_sms(torch.device("cuda", torch.cuda.current_device()))
    return _SMS_WITHOUT_GPU
