"""The Protocols that plugins fulfil, and (from `values`) the frozen values that pass between them.

Axes of every volume are (X, Y, Z) = (Right, Anterior, Superior), values are Hounsfield units (HU), lengths are mm.
This module imports neither torch nor NumPy, so that listing plugins stays fast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
class Run:
    """What the bench lends a plugin while it works.

    stop: becomes true when a signal or `--max-time` asks for an end; long loops save and raise `errors.Stopped`.
    batch: items that a sampling or feature step may hold at once; results do not depend on it beyond rounding.
    weights_dir: the offline folder of pretrained weights, if any.
    memory_limit: GiB that this process and the programs it starts may take (`medlord_bench.memory`); None for no limit.
    The bench holds it in this process; a plugin that starts a program hands it to `memory.children.Watch`.
    train_seconds: how long this training stage may take, all sittings together; None for no limit. `training.fit` keeps
    to it; a plugin with a loop of its own does so itself.
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
    """Builds networks and synthetic inputs on `run.device` and does a piece of work `times` times: a training step, a
    denoising step, a volume. At the second training step the optimiser has its state. It reads no file.
    """

    def __call__(self, run: Run, times: int) -> None: ...


@dataclass(frozen=True)
class DryRun:
    """A stretch of a generator's work for a dry run: on fake tensors, to see before any work what memory it
    takes (`memory.dry_run`), or on a card, to measure it (`benchmarks/gpu_24gb.py`).

    name: what a person calls it, e.g. "train diffusion". during: the training stage or the purpose it happens in.
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
    capabilities: of the class, or of the configured object where the configuration decides.
    A class with `free_variants = True` takes any variant name: it tells contestants apart and changes nothing else.
    A class with `control = True` (`holdout`, `noise`) is there to read the others' numbers by, and not ranked with them.
    """

    Config: ClassVar[type[BaseModel]]
    version: ClassVar[int]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]]
    variants: ClassVar[Mapping[str, Mapping[str, Any]]]
    capabilities: frozenset[Capability]

    def __init__(self, config: Any) -> None: ...

    def check(self, data: DataProtocol) -> None:
        """Raise `UserError` before any work where this configuration cannot take the protocol's grid or splits."""
        ...

    def available(self, data: DataProtocol) -> int | None:
        """How many unconditional samples it can give; None for any number. The bench asks for no more than that."""
        ...

    def stages(self) -> Sequence[Stage]:
        """All training stages, each after those it needs; the bench trains the ones that a run reads."""
        ...

    def dependencies(self, purpose: Purpose) -> Dependencies:
        """What sampling or reconstructing depends on: which stages' weights, and which part of the config.

        Asked for the purposes that its capabilities allow.
        """
        ...

    def train(self, stage: Stage, data: Cohort, inputs: Mapping[str, Path], out: Path, run: Run) -> Path:
        """Train one stage in the folder `out`; called again with the same folder it continues where it was.

        inputs: the published weights folders of the stages it needs. Returns a folder below `out` that holds what
        later stages and sampling read (the bench publishes a copy of it); with `stage.choice`, one folder per candidate.
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
        """Each (case id, volume) through the autoencoder, within the HU window that it was trained on (kept with the weights).

        Only for generators that list "reconstructs".
        """
        ...


@runtime_checkable
class HasDryRuns(Protocol):
    """A generator whose memory can be told before any work. One that lacks these is "not predictable"."""

    def dry_runs(self, data: DataProtocol) -> Sequence[DryRun]:
        """Every stretch of its work that takes memory worth knowing, in the order of the work."""
        ...

    def memory_options(self, during: str) -> Sequence[MemoryOption]:
        """What would make the work of a stage or purpose take less memory, the cheapest first."""
        ...


@runtime_checkable
class HasNativeGrid(Protocol):
    """A generator that works on a grid of its own, whatever the protocol's: the bench then measures real volumes through
    the same resampling beside it."""

    def native(self, grid: Grid) -> tuple[Grid, FitMode]:
        """The grid and HU window it works on where the protocol's are `grid`, and how volumes get there and back."""
        ...


@runtime_checkable
class Executor(Protocol):
    """Runs the steps of a plan: here, in processes of this machine, or on a cluster. Data never crosses the wire."""

    def map(self, run_folder: Path, step_id: str, shards: int, stop: Callable[[], bool]) -> None:
        """Execute every shard of a step and return when all are done. Raises the `UserError` of the first that fails."""
        ...

    def close(self) -> None:
        """End what is kept between steps, such as processes; the run is over."""
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

        Asked for while planning, before any work: raises `MissingError` where weights or a licence are missing.
        case_ids: as `segment` will get them; a real image's case id, CONTESTANT/KIND/ITEM for a generated volume
        (e.g. noise/samples/sample-00000).
        """
        ...

    def segment(self, volumes: Iterable[tuple[str, Volume]], run: Run) -> Iterator[LabelMap | Failure]:
        """One label map per (case id, volume), on the volume's own grid. A case that cannot be done is a `Failure`;
        the others finish."""
        ...


@runtime_checkable
class Extractor(Protocol):
    """Volumes to feature vectors. `preprocessing` is written out and hashed into the protocol of every number."""

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
    quantities: the numbers that it gives. Whatever shows, ranks or compares numbers reads this and nothing else.
    default: its place among the metrics that a run measures if none is named; None: only with `--metric`.
    A `Config` may have `for_data(data: DataProtocol) -> Self`, which fills what was left open from the data set's
    protocol, such as its segmenter and regions. A `Config` with a field `segmenter` has `segmenter_settings` too.
    """

    Config: ClassVar[type[BaseModel]]
    version: ClassVar[int]
    variants: ClassVar[Mapping[str, Mapping[str, Any]]]
    quantities: ClassVar[tuple[Quantity, ...]]
    default: ClassVar[int | None]

    def __init__(self, config: Any) -> None: ...

    def needs(self) -> Sequence[Need]:
        """What it reads, what it measures first: where a generator lacks that, nothing of the rest is made."""
        ...

    def plugin_config(self) -> Mapping[str, Any]:
        """The configuration of the extractor or segmenter it needs; empty for their defaults."""
        ...

    def extract(self, items: Iterable[Item], run: Run) -> Iterator[State]:
        """One state per item, in order; called only for needs whose `by` begins with "states"."""
        ...

    def protocol(self, data: DataProtocol) -> MetricProtocol:
        """What decides its numbers besides the data; the bench forms the id printed beside every number from it."""
        ...

    def reduce(self, inputs: MetricInputs, run: Run) -> Iterable[Score | CaseRow | Replicates]:
        """The scores, the per-case rows they were derived from, and what differences between generators need."""
        ...


@runtime_checkable
class Report(Protocol):
    """Draws results. Pure: reads result files and item paths; needs no torch, GPU or data set."""

    def render(self, run_folder: Path, out: Path) -> Sequence[Path]:
        """Write the report of a finished run below `out` and return what was written, the entry page first."""
        ...
