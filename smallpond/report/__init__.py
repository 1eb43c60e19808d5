"""What a user sees of a run: progress while it lasts, a page about it afterwards."""

from smallpond.report.progress import Bars, progress_listener
from smallpond.report.recorder import Recorder

__all__ = ["Bars", "Recorder", "progress_listener"]
