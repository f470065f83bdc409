"""Errors that the user can fix, each with the exit code of its kind.

A `UserError` is printed as one line: what is wrong and where, what was expected, and what to do next. Any other
exception that reaches the command line is a bug of the bench and is printed as such.
"""

from __future__ import annotations

from enum import IntEnum

LONGEST = 1900  # letters of a message


class ExitCode(IntEnum):
    OK = 0
    FAILED = 1  # a step failed
    USAGE = 2  # usage, or a config or input that cannot be used
    MISSING = 3  # a dependency, weight file or data set is missing
    MEMORY = 4  # over the memory limit
    REQUEUE = 75  # stopped by time or signal, everything saved: run the same command again
    INTERRUPTED = 130  # Ctrl-C


class UserError(Exception):
    """An error that the user can fix. `str(error)` is the printed line; one that quotes a very long value is shortened."""

    code: ExitCode = ExitCode.USAGE

    def __init__(self, message: str, code: ExitCode | None = None) -> None:
        super().__init__(message if len(message) <= LONGEST else f"{message[: LONGEST - 400]} ... {message[-400:]}")
        if code is not None:
            self.code = code


class MissingError(UserError):
    """A data set, weight file or optional package is missing (exit code 3)."""

    code = ExitCode.MISSING


class StepError(UserError):
    """A step of the plan failed (exit code 1)."""

    code = ExitCode.FAILED


class MemoryBudgetError(UserError):
    """A step exceeded, or would exceed, the memory limit (exit code 4)."""

    code = ExitCode.MEMORY


class Stopped(UserError):
    """Stopped by a signal or by `--max-time` with everything saved (exit code 75): the same command resumes."""

    code = ExitCode.REQUEUE
