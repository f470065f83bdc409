"""Every kind of step, one module each: its detail, planning, execution, and declarations.

``KINDS`` is in the order of the work. `kind.Kind` says what a kind declares; a new one is a module and a line here.
"""

from __future__ import annotations

from medlord_bench.engine.steps.conditional import Conditional
from medlord_bench.engine.steps.features import Features
from medlord_bench.engine.steps.images import Images
from medlord_bench.engine.steps.job import Job
from medlord_bench.engine.steps.kind import Kind
from medlord_bench.engine.steps.labels import Labels
from medlord_bench.engine.steps.reconstructions import Reconstructions
from medlord_bench.engine.steps.samples import Samples
from medlord_bench.engine.steps.scores import Scores
from medlord_bench.engine.steps.select import Select
from medlord_bench.engine.steps.states import States
from medlord_bench.engine.steps.weights import Weights

__all__ = ["KINDS", "Job", "Kind"]

_ALL: tuple[Kind, ...] = (
    *(Images(), Weights(), Select(), Samples(), Conditional(), Reconstructions()),
    *(Features(), Labels(), States(), Scores()),
)
KINDS: dict[str, Kind] = {kind.name: kind for kind in _ALL}
