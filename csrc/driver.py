"""What CUDA driver and which GPUs this machine has, asked of the driver itself."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR = 75, 76  # CUdevice_attribute
_NAME_BYTES = 256


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU.

    Attributes:
        name: As the driver calls it.
        capability: Its compute capability; (9, 0) runs the Hopper kernels.
    """

    name: str
    capability: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Driver:
    """The CUDA driver.

    Attributes:
        version: The newest CUDA that it runs; compilers of its major version fit it.
        gpus: Those that this process may see.
        error: What the driver says of its start, such as "CUDA_ERROR_NO_DEVICE"; "" if it did.
    """

    version: tuple[int, int]
    gpus: tuple[Gpu, ...]
    error: str


def find_driver() -> Driver | None:
    """Returns the driver, None where there is none. Makes no CUDA context."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    number = ctypes.c_int()
    library.cuDriverGetVersion(ctypes.byref(number))
    version = number.value // 1000, number.value % 1000 // 10
    if status := library.cuInit(0):
        return Driver(version, (), _error_name(library, status))
    library.cuDeviceGetCount(ctypes.byref(number))
    return Driver(version, tuple(_gpu(library, index) for index in range(number.value)), "")


def _gpu(library: ctypes.CDLL, index: int) -> Gpu:
    device, name = ctypes.c_int(), ctypes.create_string_buffer(_NAME_BYTES)
    library.cuDeviceGet(ctypes.byref(device), index)
    library.cuDeviceGetName(name, _NAME_BYTES, device)
    major, minor = ctypes.c_int(), ctypes.c_int()
    library.cuDeviceGetAttribute(ctypes.byref(major), _COMPUTE_CAPABILITY_MAJOR, device)
    library.cuDeviceGetAttribute(ctypes.byref(minor), _COMPUTE_CAPABILITY_MINOR, device)
    return Gpu(name.value.decode(errors="replace"), (major.value, minor.value))


def _error_name(library: ctypes.CDLL, status: int) -> str:
    name = ctypes.c_char_p()
    library.cuGetErrorName(status, ctypes.byref(name))
    return name.value.decode() if name.value else f"CUDA error {status}"
