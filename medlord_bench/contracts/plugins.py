"""The Protocols that plugins implement, and (from `values`) the frozen values that they exchange.

Axes of every volume are (X, Y, Z) = (Right, Anterior, Superior), values are Hounsfield units (HU), lengths are mm.
This module imports neither torch nor NumPy, so that listing plugins stays fast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from logging import Logger
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

from pydantic import BaseModel

from medlord_bench.contracts.values import (
    Case,
    DataProtocol,
    Dependencies,
    Failure,
    FitMode,
    Grid,
    Item,
    LabelMap,
    MemoryOption,
    MetricInputs,
    Need,
    Purpose,
    Request,
    Split,
    Stage,
    State,
    Volume,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from medlord_bench.contracts.metrics import MetricProtocol, Quantity
    from medlord_bench.contracts.results import CaseRow, Replicates, Score
    from medlord_bench.util.progress import Progress


# ------------------------------------------------------------------------------------------------------ run context
@dataclass(frozen=True)
class World:
    """The processes of one training (`nn.ranks`). rank: which one this is. port: where they meet; 0 for the first, which chooses.

    start: of the first: starts the others, which meet at a port, and waits for their end.
    """

    size: int
    start: Callable[[int], AbstractContextManager[None]]
    rank: int = 0
    port: int = 0


@dataclass(frozen=True)
class Run:
    """The context that the bench passes to a working plugin.

    stop: becomes true on a signal or at `--max-time`; long loops save and raise `errors.Stopped`.
    batch: items that a sampling or feature step may hold at once; results do not depend on it beyond rounding.
    weights_dir: the offline folder of pretrained weights, if any.
    memory_limit: limit in GiB of this process and the programs it starts (`medlord_bench.memory`); None for no limit.
    The bench enforces it in this process; a plugin that starts a program passes it to `memory.children.Watch`.
    train_seconds: time budget of this training stage over all sessions; None for no limit. `training.fit` enforces it;
    a plugin with its own loop must do so itself.
    world: of a training that may use several processes; None for one. `training.fit` starts them.
    """

    device: str
    seed: int
    progress: Progress
    log: Logger
    scratch: Path
    stop: Callable[[], bool] = field(default=lambda: False)
    offline: bool = False
    batch: int = 1
    weights_dir: Path | None = None
    memory_limit: float | None = None
    train_seconds: float | None = None
    world: World | None = None


class Cohort(Protocol):
    """The training data as a generator sees it: every case on the protocol's grid, memory-mapped."""

    protocol: DataProtocol
    label_names: Mapping[int, str]

    def ids(self, split: Split) -> Sequence[str]: ...

    def hu(self, case_id: str) -> NDArray[np.int16]:
        """int16 (X, Y, Z), HU, clipped to the protocol's window; read-only memory map."""
        ...

    def labels(self, case_id: str) -> NDArray[np.uint8] | None:
        """uint8 (X, Y, Z); None if the data set has no masks."""
        ...


class Workload(Protocol):
    """Builds networks and synthetic inputs on `run.device` and executes a unit of work `times` times: a training step,
    a denoising step, a volume. At the second training step the optimiser has its state. It must not read files.
    """

    def __call__(self, run: Run, times: int) -> None: ...


@dataclass(frozen=True)
class DryRun:
    """A phase of a generator's work for a dry run: on fake tensors, to predict its memory before any work
    (`memory.dry_run`), or on a card, to measure it (`benchmarks/gpu_24gb.py`).

    name: shown to the user, e.g. "train diffusion". during: the training stage or the purpose that it belongs to.
    """

    name: str
    during: str
    workload: Workload


# --------------------------------------------------------------------------------------------------------- plugins
Capability = Literal["unconditional", "conditional", "reconstructs"]


@runtime_checkable
class Dataset(Protocol):
    """A cohort of CT cases with a protocol and a split by patient. Constructed with its validated `Config`."""

    Config: ClassVar[type[BaseModel]]
    version: ClassVar[int]

    def __init__(self, config: Any) -> None: ...

    @property
    def protocol(self) -> DataProtocol: ...

    def cases(self, split: Split) -> Sequence[Case]:
        """The cases of a split, disjoint by patient. Raises `MissingError` if the data are not there."""
        ...

    def load(self, case: Case) -> tuple[Volume, LabelMap | None]:
        """The case in RAS+ and HU on its own grid (the core fits it to the protocol's), and its mask if any."""
        ...


@runtime_checkable
class Generator(Protocol):
    """A generative model of CT volumes. Its module imports torch only inside methods.

    presets: preset name -> overrides of the config; variants likewise. `version` is raised when the output changes.
    capabilities: of the class, or of the configured object if they depend on the configuration.
    A class with `free_variants = True` accepts any variant name, which only distinguishes contestants.
    A class with `control = True` (`holdout`, `noise`) is a reference point for the others' numbers and is not ranked.
    """

    Config: ClassVar[type[BaseModel]]
    version: ClassVar[int]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]]
    variants: ClassVar[Mapping[str, Mapping[str, Any]]]
    capabilities: frozenset[Capability]

    def __init__(self, config: Any) -> None: ...

    def check(self, data: DataProtocol) -> None:
        """Raise `UserError` before any work if this configuration cannot take the protocol's grid or splits."""
        ...

    def available(self, data: DataProtocol) -> int | None:
        """The number of unconditional samples available; None for any number. The bench requests no more."""
        ...

    def stages(self) -> Sequence[Stage]:
        """All training stages, each after its dependencies; the bench trains those that a run reads."""
        ...

    def dependencies(self, purpose: Purpose) -> Dependencies:
        """The dependencies of sampling or reconstructing: stages whose weights are read, and part of the config.

        Called for the purposes that its capabilities allow.
        """
        ...

    def train(self, stage: Stage, data: Cohort, inputs: Mapping[str, Path], out: Path, run: Run) -> Path:
        """Train one stage in the folder `out`; called again with the same folder it resumes.

        inputs: the published weights folders of the stages it needs. Returns a folder below `out` with the files that
        later stages and sampling read (the bench publishes a copy); with `stage.choice`, one folder per candidate.
        Raises `Stopped` when `run.stop()` is true, with its state saved.
        """
        ...

    def sample(self, weights: Mapping[str, Path], requests: Sequence[Request], run: Run) -> Iterator[Volume | Failure]:
        """One volume per request, in order, in HU on the request's grid."""
        ...

    def adopt(self, stage: Stage, source: Path, data: Cohort, inputs: Mapping[str, Path], out: Path, run: Run) -> Path:
        """As `train`, from weights the user gave (`run --weights`): a file or folder of this generator's or the
        original authors' checkpoints, converted strictly. Raises `UserError` for another architecture."""
        ...

    def reconstruct(
        self, weights: Mapping[str, Path], volumes: Iterable[tuple[str, Volume]], run: Run
    ) -> Iterator[Volume | Failure]:
        """Each (case id, volume) through the autoencoder, within the HU window that it was trained on (kept with the
        weights).

        Only for generators that list "reconstructs".
        """
        ...


@runtime_checkable
class HasDryRuns(Protocol):
    """A generator whose memory can be predicted before any work. One without these methods is "not predictable"."""

    def dry_runs(self, data: DataProtocol) -> Sequence[DryRun]:
        """Every phase of its work with relevant memory use, in the order of the work."""
        ...

    def memory_options(self, during: str) -> Sequence[MemoryOption]:
        """Changes that reduce the memory of a stage or purpose, the cheapest first."""
        ...


@runtime_checkable
class HasNativeGrid(Protocol):
    """A generator that works on its own grid for any protocol: the bench then also measures real volumes after
    the same resampling."""

    def native(self, grid: Grid) -> tuple[Grid, FitMode]:
        """Its grid and HU window for the protocol's `grid`, and the fit mode between the two."""
        ...


@runtime_checkable
class HasPretraining(Protocol):
    """A generator that starts from published weights: the data sets that those were trained on.

    By their names in lower case, e.g. "lidc-idri"; empty if this configuration trains everything itself. A run on a data
    set of that name, or on one that shares cases with it (`HasOverlaps`), says "seen in pretraining" in every table.
    """

    @property
    def pretrained_on(self) -> Sequence[str]: ...


@runtime_checkable
class HasOverlaps(Protocol):
    """A data set that shares cases with other data sets, by their names in lower case."""

    @property
    def overlaps(self) -> Sequence[str]: ...


@runtime_checkable
class HasUnknownPatients(Protocol):
    """A data set of which nobody knows which images are of one patient: `patients_unknown` says why, beginning with
    "patients unknown: ". Every table of it says so."""

    @property
    def patients_unknown(self) -> str: ...


@runtime_checkable
class Executor(Protocol):
    """Runs the steps of a plan: here, in processes of this machine, or on a cluster. Data are exchanged through the
    store only."""

    def map(self, run_folder: Path, step_id: str, shards: int, stop: Callable[[], bool]) -> None:
        """Execute every shard of a step and return when all are done. Raises the `UserError` of the first failure."""
        ...

    def close(self) -> None:
        """Release resources kept between steps, such as processes, at the end of the run."""
        ...


@runtime_checkable
class CarriesOut(Protocol):
    """An executor that works at several steps at once, each when the steps that it needs have ended."""

    def carry_out(
        self,
        run_folder: Path,
        steps: Sequence[Any],
        begin: Callable[[Any], int],
        end: Callable[[Any], None],
        stop: Callable[[], bool],
    ) -> None:
        """Execute all steps. Raises as `Executor.map`.

        begin: called before a step; returns the number of its shards, 0 if nothing of it is left to do. end: called when
        all its shards are done.
        """
        ...


@runtime_checkable
class SubmitsPlans(Protocol):
    """An executor that takes a whole plan at once, and whose `map` waits for a step of it."""

    def submit(self, plan: Any, run_folder: Path, finish: bool = False) -> int:
        """Submit what is missing; returns the number of new jobs. finish: with a last job that collects the results."""
        ...


@runtime_checkable
class Segmenter(Protocol):
    """Volumes to label maps. `names`: label value to region name."""

    Config: ClassVar[type[BaseModel]]
    version: ClassVar[int]
    names: Mapping[int, str]

    def __init__(self, config: Any) -> None: ...

    def fingerprint(self, case_ids: Sequence[str]) -> Mapping[str, str]:
        """What decides its labels besides version and config: the sha256 of its weights, or of label files.

        Called while planning, before any work: raises `MissingError` if weights or a licence are missing.
        case_ids: as `segment` will receive them; a real image's case id, CONTESTANT/KIND/ITEM for a generated volume
        (e.g. noise/samples/sample-00000).
        """
        ...

    def segment(self, volumes: Iterable[tuple[str, Volume]], run: Run) -> Iterator[LabelMap | Failure]:
        """One label map per (case id, volume), on the volume's own grid. A case that cannot be segmented is a
        `Failure`; the others finish."""
        ...


@runtime_checkable
class Extractor(Protocol):
    """Volumes to feature vectors. `preprocessing` is recorded and hashed into the protocol of every number.

    A class with `reads_spacing = True` depends on the volumes' voxel size: on a grid without one, all volumes then have
    the median of the training images.
    """

    Config: ClassVar[type[BaseModel]]
    version: ClassVar[int]

    def __init__(self, config: Any) -> None: ...

    @property
    def preprocessing(self) -> Mapping[str, Any]:
        """Everything that decides the features besides the volume, the weights' sha256 included."""
        ...

    def features(self, volumes: Iterable[Volume], run: Run) -> Iterator[State]:
        """Per volume: named arrays, e.g. one float32 (slices, channels) per plane."""
        ...


@runtime_checkable
class Metric(Protocol):
    """One family of numbers. `extract` works case by case (sharded, stored once); `reduce` sees all cases at once.

    variants: named protocols, name -> overrides of the config (`--metric fid:maisi-compat`).
    quantities: its kinds of numbers. Code that shows, ranks or compares numbers reads only these.
    default: its position among the default metrics of a run; None: only with `--metric`.
    A `Config` may have `for_data(data: DataProtocol) -> Self`, which fills unset fields from the data set's
    protocol, such as its segmenter and regions. A `Config` with a field `segmenter` has `segmenter_settings` too.
    """

    Config: ClassVar[type[BaseModel]]
    version: ClassVar[int]
    variants: ClassVar[Mapping[str, Mapping[str, Any]]]
    quantities: ClassVar[tuple[Quantity, ...]]
    default: ClassVar[int | None]

    def __init__(self, config: Any) -> None: ...

    def needs(self) -> Sequence[Need]:
        """Its inputs, the measured one first: if a generator lacks that, the others are not made."""
        ...

    def plugin_config(self) -> Mapping[str, Any]:
        """The configuration of the extractor or segmenter it needs; empty for their defaults."""
        ...

    def extract(self, items: Iterable[Item], run: Run) -> Iterator[State]:
        """One state per item, in order; called only for needs of `Made.STATES`."""
        ...

    def protocol(self, data: DataProtocol) -> MetricProtocol:
        """What decides its numbers besides the data; the bench forms the id printed with every number from it."""
        ...

    def reduce(self, inputs: MetricInputs, run: Run) -> Iterable[Score | CaseRow | Replicates]:
        """The scores, the per-case rows behind them, and the replicates for differences between generators."""
        ...
