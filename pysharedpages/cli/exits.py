"""How a command ends."""

from enum import IntEnum

__all__ = ["CannotRunError", "Exit", "UsageError"]


class Exit(IntEnum):
    """The exit codes of every command."""

    DONE = 0
    CHECK_FAILED = 1
    USAGE = 2
    CANNOT_RUN = 3
    INTERRUPTED = 130


class CannotRunError(Exception):
    """This host lacks what the command needs; the message says what."""


class UsageError(Exception):
    """Options that are each well formed do not fit together, or are out of bounds."""
