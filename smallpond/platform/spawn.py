"""Handing the whole program to a platform, which runs it from its beginning on one of its nodes."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from smallpond.errors import PlanError
from smallpond.platform import get_platform


def spawn(platform: str | None, options: Mapping[str, Any]) -> NoReturn:
    """Starts this program as a job, and ends it here.

    Args:
        platform: its name, unless SP_PLATFORM has one.
        options: what only the platform understands.

    Raises:
        PlanError: the program is no file that could be run there.
        SystemExit: it has been started.
    """
    program = Path(sys.argv[0]).absolute()
    if not program.is_file():
        raise PlanError(
            f"SP_SPAWN=1 needs a program that is a file, which {sys.argv[0]!r} is not (unset it in "
            "a notebook or a shell)"
        )
    told = {name: value for name, value in os.environ.items() if name.startswith("SP_")}
    chosen = get_platform(os.environ.get("SP_PLATFORM", platform))
    chosen.start_job(1, str(program), sys.argv[1:], {**told, "SP_SPAWN": "0"}, dict(options))
    raise SystemExit(0)
