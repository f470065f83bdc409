"""medlord-bench: evaluation-first benchmarking of generative models of 3D CT.

From Python: `medlord_bench.load`, `run` and `evaluate` (see `medlord_bench.api`), which are imported on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from medlord_bench.util.version import __version__

__all__ = ["__version__", "evaluate", "load", "run"]

if TYPE_CHECKING:
    from medlord_bench.api import evaluate, load, run


def __getattr__(name: str) -> object:
    if name in __all__:
        return getattr(import_module("medlord_bench.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
