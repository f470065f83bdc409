"""The list of the kinds of steps, in the order of the work. A new kind is a module and a line here."""

from __future__ import annotations

from medlord_bench.engine.steps.arms import Arms
from medlord_bench.engine.steps.conditional import Conditional
from medlord_bench.engine.steps.features import Features
from medlord_bench.engine.steps.images import Images
from medlord_bench.engine.steps.kind import Kind
from medlord_bench.engine.steps.labels import Labels
from medlord_bench.engine.steps.predictions import Predictions
from medlord_bench.engine.steps.reconstructions import Reconstructions
from medlord_bench.engine.steps.samples import Samples
from medlord_bench.engine.steps.scores import Scores
from medlord_bench.engine.steps.select import Select
from medlord_bench.engine.steps.states import States
from medlord_bench.engine.steps.training_plan import TrainingPlan
from medlord_bench.engine.steps.training_samples import TrainingSamples
from medlord_bench.engine.steps.weights import Weights

_ALL: tuple[Kind, ...] = (
    *(Images(), Weights(), Select(), Samples(), Conditional(), Reconstructions()),
    *(Features(), Labels(), TrainingSamples(), TrainingPlan(), Arms(), Predictions(), States(), Scores()),
)
KINDS: dict[str, Kind] = {kind.name: kind for kind in _ALL}
