"""What a result depends on besides the code: commit, device, driver, clocks, versions."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import torch

REPOSITORY = Path(__file__).resolve().parent.parent

# nvidia-smi's field -> the name in the JSON, unit last.
_GPU_FIELDS = {
    "clocks.sm": "sm_clock_mhz",
    "clocks.mem": "memory_clock_mhz",
    "clocks.max.sm": "max_sm_clock_mhz",
    "power.draw": "power_w",
    "power.limit": "power_limit_w",
    "temperature.gpu": "temperature_c",
}


def describe(device: torch.device) -> dict[str, object]:
    """Returns everything that a reader needs to compare two result files, as plain JSON values."""
    return {
        "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "commit": commit(),
        "device": device_name(device),
        "driver": driver_version() if device.type == "cuda" else None,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "triton": _version("triton"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu_count": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
    }


def commit() -> str:
    """Returns the short commit id, with "-dirty" when files differ from it, or "unknown"."""
    head = _output("git", "-C", str(REPOSITORY), "rev-parse", "--short=12", "HEAD")
    if not head:
        return "unknown"
    changes = _output("git", "-C", str(REPOSITORY), "status", "--porcelain")
    return f"{head}-dirty" if changes else head


def device_name(device: torch.device) -> str:
    """Returns the exact name of the GPU or the model name of the CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    for line in _lines(Path("/proc/cpuinfo")):
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def driver_version() -> str | None:
    return _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader,nounits")


def clocks(device: torch.device) -> dict[str, float]:
    """Returns clocks (MHz), power (W) and temperature of a GPU now; empty where unreadable."""
    if device.type != "cuda":
        return {}
    gpu = f"--id=GPU-{torch.cuda.get_device_properties(device).uuid}"
    query = f"--query-gpu={','.join(_GPU_FIELDS)}"
    values = (_output("nvidia-smi", gpu, query, "--format=csv,noheader,nounits") or "").split(",")
    named = zip(_GPU_FIELDS.values(), values, strict=False)
    # A field that this card does not report reads "[N/A]".
    return {name: float(value) for name, value in named if _is_number(value)}


def cache_bytes(device: torch.device) -> int:
    """Returns the size of the last-level cache that inputs have to exceed to be cold."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).L2_cache_size
    sizes = [
        int(line.rstrip("K")) * 1024
        for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
        for line in _lines(path)
        if line.endswith("K")
    ]
    return max(sizes, default=32 * 2**20)


def _is_number(text: str) -> bool:
    return text.strip().replace(".", "", 1).isdigit()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _output(*command: str) -> str | None:
    """Runs a command that may be missing here; None unless it succeeded."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
