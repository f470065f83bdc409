"""Errors that are the user's to solve, each with the exit code its kind has everywhere.

A `UserError` is printed as one line: what is wrong and where, what was expected, what to do next. Any other
exception that reaches the command line is a bug of ours and is printed as such.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    OK = 0
    FAILED = 1  # a step failed
    USAGE = 2  # usage, or a config or input that cannot be used
    MISSING = 3  # a dependency, weight or data set is not there
    MEMORY = 4  # over the memory budget
    REQUEUE = 75  # stopped by time or signal, everything saved: run the same command again
    INTERRUPTED = 130  # Ctrl-C


class UserError(Exception):
    """Something the user can put right. `str(error)` is the one line they read."""

    code: ExitCode = ExitCode.USAGE

    def __init__(self, message: str, code: ExitCode | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class MissingError(UserError):
    """A data set, weight or optional package is not there (exit 3)."""

    code = ExitCode.MISSING


class StepError(UserError):
    """A step of the plan failed (exit 1)."""

    code = ExitCode.FAILED


class MemoryBudgetError(UserError):
    """A step went, or would go, over the memory budget (exit 4)."""

    code = ExitCode.MEMORY


class Stopped(UserError):
    """Stopped by a signal or by `--max-time` with everything saved (exit 75): the same command goes on."""

    code = ExitCode.REQUEUE
