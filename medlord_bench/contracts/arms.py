"""Arms of a downstream experiment: models trained on real and generated cases, and the metric that trains them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args, runtime_checkable

from medlord_bench.contracts.plugins import Run
from medlord_bench.contracts.values import FrozenConfig, LabelMap, Volume

APART = "--"  # between the parts of an item's id; not in the name of an arm
TestSet = Literal["test", "samples", "external"]


class Synthetic(FrozenConfig):
    """A generated training case: sample number `draw` (1, 2, ...) of the mask of the training case `case`."""

    case: str
    draw: int

    @property
    def item(self) -> str:
        """The item id of the sample in the step that makes it."""
        return self.case if self.draw == 1 else f"{self.case}{APART}{self.draw}"


class Arm(FrozenConfig):
    """One training set, trained once with one seed.

    name: without the seed, e.g. "real+synthetic". real: item ids of real training cases. synthetic: generated ones.
    length: training iterations as a multiple of those of the metric's configuration. seed: of the training.
    """

    name: str
    real: tuple[str, ...] = ()
    synthetic: tuple[Synthetic, ...] = ()
    length: float = 1.0
    seed: int = 0

    @property
    def item(self) -> str:
        """Its item id in a step of trainings."""
        return f"{self.name}.seed{self.seed}"


@dataclass(frozen=True)
class Prediction:
    """A predicted case. arm, seed: of the model. of: its set: the run's test cases, their conditional samples, or the cases
    of another data set."""

    arm: str
    seed: int
    of: TestSet
    case: str

    @property
    def item(self) -> str:
        return APART.join((f"{self.arm}.seed{self.seed}", self.of, self.case))

    @classmethod
    def parse(cls, item: str) -> Prediction:
        """The prediction that an item id names."""
        trained, of, case = item.split(APART, 2)
        arm, _, seed = trained.rpartition(".seed")
        return cls(arm, int(seed), next(one for one in get_args(TestSet) if one == of), case)

    @property
    def model(self) -> str:
        """The item id of the model."""
        return f"{self.arm}.seed{self.seed}"


@dataclass(frozen=True)
class LabelledCase:
    """A volume with its label map, on one grid, opened on demand. id: usable as a file name."""

    id: str
    patient: str
    open: Callable[[], tuple[Volume, LabelMap]]


@runtime_checkable
class TrainsArms(Protocol):
    """A metric that trains a model on each arm and measures the models' predictions of held-out real cases.

    Its `needs` name `Source.PREDICTIONS` (of arms with generated cases) and `Source.REAL_PREDICTIONS`.
    """

    @property
    def predicts_samples(self) -> str:
        """The arm of real cases whose models also predict the conditional samples of the test masks; empty for none."""
        ...

    @property
    def external(self) -> tuple[str, Mapping[str, Any]] | None:
        """Another data set that all models are also tested on: its name and settings; None for none."""
        ...

    def arms(self, cases: Sequence[tuple[str, str]]) -> Sequence[Arm]:
        """Every arm with every seed. cases: (item id, patient) of the training cases.

        An arm's content depends only on its name, its seed and `cases`. Raises `UserError` for too few cases.
        """
        ...

    def training(self) -> Mapping[str, Any]:
        """What decides a trained model besides its cases and seed: the trainer and its version, for the key.

        Called while planning: raises `MissingError` if the trainer is not installed.
        """
        ...

    def plan_training(self, cases: Sequence[LabelledCase], out: Path, run: Run) -> Path:
        """Decide what all arms share (patch, network, normalisation) from the real training cases, in the folder `out`.

        Called again with the same folder it resumes. Returns the folder to publish.
        """
        ...

    def train_arm(
        self,
        arm: Arm,
        cases: Sequence[LabelledCase],
        validation: Sequence[LabelledCase],
        shared: Path,
        out: Path,
        run: Run,
    ) -> tuple[Path, Mapping[str, Any]]:
        """Train one arm in the folder `out`; called again with the same folder it resumes.

        cases: its training cases; samples that failed are not among them. shared: the folder of `plan_training`. Returns
        the folder to publish and facts to record. Raises `Stopped` when `run.stop()` is true.
        """
        ...

    def probe(
        self, cases: Sequence[LabelledCase], validation: Sequence[LabelledCase], shared: Path, out: Path, run: Run
    ) -> Mapping[str, float]:
        """Measure the speed of training on this machine, in seconds, from a few iterations in the folder `out`."""
        ...

    def hours(self, arm: Arm, validation: int, speeds: Mapping[str, float]) -> float:
        """Predicted hours of an arm's training. validation: number of its cases. speeds: of `probe`."""
        ...

    def within(self, fits: Callable[[Sequence[Arm]], bool], cases: Sequence[tuple[str, str]]) -> Mapping[str, Any]:
        """Changes of the configuration so that all of its arms fit the budget: groups of arms in a stated order, up to
        the first that does not fit. Raises `UserError` if none does. fits: whether arms fit."""
        ...

    def segmenter(self, model: Path) -> tuple[str, Mapping[str, Any]]:
        """The segmenter that predicts with a published model: its name and settings."""
        ...
