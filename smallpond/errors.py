"""What can go wrong, by what the caller can do about it."""

from __future__ import annotations


class SmallpondError(Exception):
    """Anything that smallpond raises of its own."""


class PlanError(SmallpondError, ValueError):
    """A mistake in an argument or a query, found before anything ran."""


class MissingInputError(PlanError, FileNotFoundError):
    """What is to be read is not there."""


class OutputExistsError(PlanError, FileExistsError):
    """The place to write to holds data already."""


class OutputError(SmallpondError, OSError):
    """The place to write to refuses: no permission, no space, no such bucket."""


class OutOfMemory(SmallpondError, MemoryError):  # noqa: N818 (the original's name)
    """A task needed more memory than it was given, with every remedy tried."""


class InjectedFault(SmallpondError):  # noqa: N818 (the original's name)
    """A fault that a test asked for."""


class NonzeroExitCode(SmallpondError):  # noqa: N818 (the original's name)
    """A worker process ended on its own."""


class CorruptedDataError(SmallpondError):
    """A hand-off file is not what its manifest says.

    The message begins with the file's address.
    """

    @property
    def url(self) -> str:
        """The file."""
        return str(self).partition(": ")[0]


class TaskError(SmallpondError):
    """A task failed for good; the message says which operation, on which partition, and why."""


class UserCodeError(TaskError):
    """The user's function raised; the message shows where."""


class ChangedInputError(TaskError):
    """A file is not the one any more that was found when the DataFrame was made."""


class DeviceError(TaskError):
    """A task could not read or write; the next attempt may."""


class StallError(SmallpondError):
    """Tasks wait for what cannot come; the message names them."""
