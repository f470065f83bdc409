"""The Protocols that plugins fulfil and the frozen values that pass between them.

Axes of every volume are (X, Y, Z) = (Right, Anterior, Superior), values are Hounsfield units (HU), lengths are mm.
This module imports neither torch nor NumPy, so that listing plugins stays fast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from logging import Logger
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from medlord_bench.progress import Progress
    from medlord_bench.results import CaseRow, Score

Shape = tuple[int, int, int]
Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
Precision = Literal["fp32", "bf16", "fp16"]
Selection = Literal["best", "last"]  # which checkpoint of a training is published
AttentionBackend = Literal["auto", "sdpa", "xformers", "math"]
State = Mapping[str, "NDArray[Any]"]  # what one case contributes to a metric: named arrays, stored without pickles


class Frozen(BaseModel):
    """Base of every configuration and result: immutable, and closed to fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


# ---------------------------------------------------------------------------------------------------------- values
@dataclass(frozen=True, eq=False)
class Volume:
    """A CT volume. `hu`: int16 (X, Y, Z) in HU, axes towards R, A, S. `affine`: float64 (4, 4), voxel to mm in RAS+."""

    hu: NDArray[np.int16]
    affine: NDArray[np.float64]

    @property
    def shape(self) -> Shape:
        x, y, z = self.hu.shape
        return x, y, z

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in mm along X, Y, Z."""
        x, y, z = ((self.affine[:3, :3] ** 2).sum(axis=0) ** 0.5).tolist()
        return x, y, z


@dataclass(frozen=True, eq=False)
class LabelMap:
    """A label map. `labels`: uint8 (X, Y, Z), 0 is background. `names`: label value to region name."""

    labels: NDArray[np.uint8]
    affine: NDArray[np.float64]
    names: Mapping[int, str]

    @property
    def shape(self) -> Shape:
        x, y, z = self.labels.shape
        return x, y, z

    def region(self, name: str) -> NDArray[np.bool_]:
        """The mask of a region, bool (X, Y, Z). Raises KeyError where the map does not know `name`.

        A name may stand for several labels ("lungs" for "lung_left" and "lung_right"): see `regions.members`.
        """
        import numpy as np

        from medlord_bench.regions import members

        values = [value for value, known in self.names.items() if known in members(name)]
        if not values:
            raise KeyError(name)
        mask: NDArray[np.bool_] = np.isin(self.labels, values)
        return mask


@dataclass(frozen=True)
class Case:
    """One image of a cohort. `sha256` identifies its content (and its mask's); paths are None for generated cases."""

    id: str
    patient: str
    sha256: str
    image: Path | None = None
    mask: Path | None = None


class Grid(Frozen):
    """The voxel grid that a protocol measures on.

    spacing: nominal voxel size in mm, or None where cases keep their own (then mm and mL values are `not_run` for
    samples). hu_window: lowest and highest HU kept.
    """

    shape: Shape
    spacing: tuple[float, float, float] | None = None
    hu_window: tuple[int, int] = (-1000, 2000)

    def affine(self) -> NDArray[np.float64]:
        """The affine of a volume that has no position of its own: nominal spacing (1 mm where there is none)."""
        import numpy as np

        return np.diag([*(self.spacing or (1.0, 1.0, 1.0)), 1.0])


class DataProtocol(Frozen):
    """How images of a data set get onto one grid, and which regions are measured there. Hashed into every number.

    fit: "crop-pad" crops or pads about the centre, keeping voxels; "resize" resamples to the grid's shape.
    split: how the train/val/test lists came about, in words; `split_sha256` pins the lists themselves.
    masks: "dataset" for masks that came with the images, "none", or the name and version of a segmenter.
    """

    name: str
    grid: Grid
    fit: Literal["crop-pad", "resize"]
    split: str
    split_sha256: str
    counts: dict[str, int]
    masks: str
    synthetic: bool = False
    rvr_regions: tuple[str, ...] = ()
    condition_regions: tuple[str, ...] = ()
    adherence_regions: tuple[str, ...] = ()

    def id(self) -> str:
        """Name and the first eight digits of the hash, e.g. ``pccta-1f00ab42``: what is printed beside a number."""
        from medlord_bench.hashing import digest

        return f"{self.name}-{digest(self.model_dump(mode='json'))[:8]}"


@dataclass(frozen=True, eq=False)
class Request:
    """One sample to draw. The volume may depend on nothing but this, the config and the weights.

    condition: the label map that a conditional sample must follow, on `grid`; None for an unconditional sample.
    """

    index: int
    seed: int
    grid: Grid
    condition: LabelMap | None = None


@dataclass(frozen=True)
class Failure:
    """A sample or case that could not be made (NaN, constant, not HU): counted as failed, never dropped."""

    reason: str


@dataclass(frozen=True)
class Stage:
    """One training stage of a generator, e.g. the autoencoder.

    config: the part of the configuration that decides its output, the number of steps excepted.
    steps: how far to train; a training that is short of it continues. None for a stage that does not iterate.
    needs: earlier stages whose weights it reads.
    """

    name: str
    config: Mapping[str, Any]
    steps: int | None = None
    needs: tuple[str, ...] = ()


Purpose = Literal["sample", "sample-conditional", "reconstruct"]


@dataclass(frozen=True)
class Reads:
    """What the output of a purpose depends on. stages: whose weights it reads. config: settings besides weights."""

    stages: tuple[str, ...]
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Item:
    """One published file that a metric reads.

    source: "samples", "conditional:test", "reconstructions", "real:train", "real:val" or "real:test".
    path: the volume, features or state of the item; None when the item failed (`failed` says why).
    reference: what it is compared with case by case (the real image of a reconstruction, the mask of a condition).
    """

    id: str
    source: str
    path: Path | None
    patient: str | None = None
    reference: Path | None = None
    failed: str | None = None


@dataclass(frozen=True)
class Need:
    """What a metric reads: items of `source`, as made by `by`.

    by: "volumes", "features:EXTRACTOR", "labels:SEGMENTER" or "states" (the metric's own `extract`, case by case).
    """

    source: str
    by: str


@dataclass(frozen=True)
class MetricInputs:
    """Everything a metric's `reduce` may look at. `items[need]` is in the order of the item ids."""

    generator: str
    dataset: str
    protocol: DataProtocol
    items: Mapping[Need, Sequence[Item]]


# ------------------------------------------------------------------------------------------------------ run context
@dataclass(frozen=True)
class Run:
    """What the bench lends a plugin while it works.

    stop: becomes true when a signal or `--max-time` asks for an end; long loops save and raise `errors.Stopped`.
    batch: items that a sampling or feature step may hold at once; results do not depend on it beyond rounding.
    weights_dir: the offline folder of pretrained weights, if any.
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


class Cohort(Protocol):
    """The training data as a generator sees it: every case on the protocol's grid, memory-mapped."""

    protocol: DataProtocol
    label_names: Mapping[int, str]

    def ids(self, split: Split) -> Sequence[str]: ...

    def hu(self, case_id: str) -> NDArray[np.int16]:
        """int16 (X, Y, Z), HU, clipped to the protocol's window; read-only memory map."""
        ...

    def labels(self, case_id: str) -> NDArray[np.uint8] | None:
        """uint8 (X, Y, Z); None where the data set has no masks."""
        ...


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
        """The cases of a split, disjoint by patient. Raises `MissingError` where the data are not there."""
        ...

    def load(self, case: Case) -> tuple[Volume, LabelMap | None]:
        """The case in RAS+ and HU on its own grid (the core fits it to the protocol's), and its mask if any."""
        ...


@runtime_checkable
class Generator(Protocol):
    """A generative model of CT volumes. Its module imports torch only inside methods.

    presets: preset name -> overrides of the config; variants likewise. `version` is raised when the output changes.
    """

    Config: ClassVar[type[BaseModel]]
    version: ClassVar[int]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]]
    variants: ClassVar[Mapping[str, Mapping[str, Any]]]
    capabilities: ClassVar[frozenset[Capability]]

    def __init__(self, config: Any) -> None: ...

    def stages(self) -> Sequence[Stage]:
        """All training stages, each after those it needs; the bench trains the ones that a run reads."""
        ...

    def reads(self, purpose: Purpose) -> Reads:
        """What sampling or reconstructing depends on: which stages' weights, and which part of the config."""
        ...

    def train(self, stage: Stage, data: Cohort, inputs: Mapping[str, Path], out: Path, run: Run) -> Path:
        """Train one stage in the folder `out`; called again with the same folder it continues where it was.

        inputs: the published weights folders of the stages it needs. Returns a folder below `out` that holds what
        later stages and sampling read (the bench publishes a copy of it). Raises `Stopped` when `run.stop()` is true, with its state saved.
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
        self, weights: Mapping[str, Path], volumes: Iterable[Volume], run: Run
    ) -> Iterator[Volume | Failure]:
        """Each volume through the autoencoder. Only for generators that list "reconstructs"."""
        ...


@runtime_checkable
class Executor(Protocol):
    """Runs the steps of a plan: here, in processes of this machine, or on a cluster. Data never crosses the wire."""

    def map(self, run_folder: Path, step_id: str, shards: int, stop: Callable[[], bool]) -> None:
        """Execute every shard of a step and return when all are done. Raises the `UserError` of the first that fails."""
        ...


@runtime_checkable
class Segmenter(Protocol):
    """Volumes to label maps. `names`: label value to region name."""

    Config: ClassVar[type[BaseModel]]
    version: ClassVar[int]
    names: Mapping[int, str]

    def __init__(self, config: Any) -> None: ...

    def segment(self, volumes: Iterable[tuple[str, Volume]], run: Run) -> Iterator[LabelMap | Failure]:
        """One label map per (case id, volume), on the volume's own grid."""
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
    """One family of numbers. `extract` works case by case (sharded, stored once); `reduce` sees all cases at once."""

    Config: ClassVar[type[BaseModel]]
    version: ClassVar[int]

    def __init__(self, config: Any) -> None: ...

    def needs(self) -> Sequence[Need]: ...

    def plugin_config(self) -> Mapping[str, Any]:
        """The configuration of the extractor or segmenter it needs; empty for their defaults."""
        ...

    def extract(self, items: Iterable[Item], run: Run) -> Iterator[State]:
        """One state per item, in order; called only for needs with ``by="states"``."""
        ...

    def protocol(self, data: DataProtocol) -> tuple[str, dict[str, object]]:
        """The id printed beside every number of this metric, and the full text behind it."""
        ...

    def reduce(self, inputs: MetricInputs, run: Run) -> Iterable[Score | CaseRow]:
        """The scores, and the per-case rows they were derived from."""
        ...


@runtime_checkable
class Report(Protocol):
    """Draws results. Pure: reads result files and item paths; needs no torch, GPU or data set."""

    def render(self, run_folder: Path, out: Path) -> Sequence[Path]:
        """Write the report of a finished run below `out` and return what was written, the entry page first."""
        ...
