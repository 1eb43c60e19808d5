"""Where CUDA may be installed: toolkits, and the pip wheels that bring parts of one."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

INSTALL = "pip install 'openweek[cuda]'"


def cuda_folders() -> list[Path]:
    """Returns the folders that hold bin, include or lib of CUDA; the first one is preferred.

    What the user points at comes first ($CUDA_HOME, $CUDA_PATH, nvcc on the PATH), then the wheels
    of this Python (nvidia/cu13, or one folder per part in those of CUDA 12), then the usual place.
    """
    named = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")]
    on_path = shutil.which("nvcc")
    folders = [Path(folder) for folder in named if folder]
    folders += [Path(on_path).resolve().parents[1]] if on_path else []
    folders += [part for root in _wheel_roots() for part in sorted(root.iterdir())]
    folders += [Path("/usr/local/cuda")]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def _wheel_roots() -> list[Path]:
    wheels = find_spec("nvidia")
    roots = wheels.submodule_search_locations if wheels else None
    return [Path(root) for root in roots or () if Path(root).is_dir()]
