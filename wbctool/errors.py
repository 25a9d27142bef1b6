"""The errors a person can cause, each with its exit code, and what messages are made with.

Every message names the file (or option) and the next step; it is printed as one line on stderr.
"""

from __future__ import annotations

from collections.abc import Iterable

DONE = 0
BUG = 1
USAGE = 2
BAD_INPUT = 3
SOME_FAILED = 4
DEVICE = 5
INTERRUPTED = 130
TERMINATED = 143

NO_MEMORY = "can't allocate memory"  # torch's message on a CPU, in an error without a type of its own


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


def check_choice(option: str, value: object, choices: Iterable[object]) -> None:
    """Check that the value of an option is one of its choices.

    Raises:
        UsageProblem: naming the choices.
    """
    choices = list(choices)
    if value not in choices:
        raise UsageProblem(f"{option} {value}: choose from {', '.join(map(str, choices))}")


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return a count with its noun, such as `1 image` or `2,000 images`."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"
