"""The errors a person can cause, each with its exit code.

Every message names the file (or option) and the next step; it is printed as one line on stderr.
"""

from __future__ import annotations

DONE = 0
BUG = 1
USAGE = 2
BAD_INPUT = 3
SOME_FAILED = 4
DEVICE = 5
INTERRUPTED = 130
TERMINATED = 143

NO_MEMORY = "can't allocate memory"  # what torch says on a CPU, in an error of no type of its own


class WbctoolError(Exception):
    """Base of the errors that end a command with one clear line."""

    exit_code = BUG


class UsageProblem(WbctoolError):
    """Options or arguments that cannot be used as given (exit 2)."""

    exit_code = USAGE


class InputError(WbctoolError):
    """Input that cannot be used at all: a folder, a record file, a model (exit 3)."""

    exit_code = BAD_INPUT


class DeviceError(WbctoolError):
    """A missing or exhausted device or memory (exit 5)."""

    exit_code = DEVICE


class BusyError(InputError):
    """Another command is writing the output folder."""


class ImageError(InputError):
    """One image that cannot be used; folder steps turn it into an error record."""


class Terminated(BaseException):
    """SIGTERM was received; work in hand is saved on the way out (exit 143)."""
