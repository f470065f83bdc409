"""Child interpreters that import no file of the working directory as a module."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping


def module_command(module: str) -> list[str]:
    """The command that runs a module in this interpreter. -P: a `random.py` in the working directory is not imported."""
    return [sys.executable, "-P", "-m", module]


def safe_environment(**changes: str) -> Mapping[str, str]:
    """This process's environment with `changes`, for a child whose own child interpreters must be safe too."""
    return {**os.environ, "PYTHONSAFEPATH": "1", **changes}
