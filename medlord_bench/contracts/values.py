"""The frozen values that pass between the core and its plugins; plugins import them from `contracts`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveFloat

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Voxels = Annotated[int, Field(ge=1, le=4096)]  # along one axis; scanners make 512 to 1024
Shape = tuple[Voxels, Voxels, Voxels]
LEAST_MM, LARGEST_MM = 0.05, 20.0  # between voxels of CT: micro-CT is finer, no scan is coarser
Step = Annotated[float, Field(ge=LEAST_MM, le=LARGEST_MM)]
Spacing = tuple[Step, Step, Step]
HU = Annotated[int, Field(ge=-(2**15), le=2**15 - 1)]  # as int16 has


def _ordered(window: tuple[int, int]) -> tuple[int, int]:
    if window[0] >= window[1]:
        raise ValueError("the first value must be below the second")
    return window


def _above_background(names: dict[int, str]) -> dict[int, str]:
    if min(names, default=0) < 0:
        raise ValueError(f"label value {min(names)}; expected values from 1 up, since 0 is background")
    return {value: name for value, name in names.items() if value}


LabelNames = Annotated[dict[int, str], AfterValidator(_above_background)]  # label value to region name
HUWindow = Annotated[tuple[HU, HU], AfterValidator(_ordered)]
Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
Precision = Literal["fp32", "bf16", "fp16"]
Selection = Literal["best", "last"]  # the checkpoint of a training that is published
AttentionBackend = Literal["auto", "sdpa", "xformers", "math"]
FitMode = Literal["crop-pad", "resize"]  # about the centre, same voxels; or resampled, same field of view
State = Mapping[str, "NDArray[Any]"]  # the contribution of one case to a metric: named arrays, stored without pickles


class FrozenConfig(BaseModel):
    """Base of every configuration and result: immutable, with finite numbers, and closed to unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


class FrozenResult(FrozenConfig):
    """Base of measured values, which may be infinite (the distance to a surface that is not there) or not a number."""

    model_config = ConfigDict(allow_inf_nan=True)


@dataclass(frozen=True)
class NotInKey:
    """Marks a configuration field that is in no key: ``tile: Annotated[Shape | None, NotInKey("same result")] = None``.

    why: the reason why that is safe. The field changes no result beyond rounding, or a key contains its content.
    """

    why: str


BUDGET = NotInKey("the key of a stage's weights has its steps; the training itself is continued by a larger budget")


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
        """The mask of a region, bool (X, Y, Z). Raises KeyError if the map does not define `name`.

        A name may denote several labels ("lungs" for "lung_left" and "lung_right"): see `regions.members`.
        """
        import numpy as np

        from medlord_bench.contracts.regions import values_of

        values = values_of(name, self.names)
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


class Grid(FrozenConfig):
    """The voxel grid that a protocol measures on.

    spacing: nominal voxel size in mm, or None if cases keep their own (then mm and mL values are `not_run` for
    samples). hu_window: lowest and highest HU kept.
    """

    shape: Shape
    spacing: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None
    hu_window: HUWindow = (-1000, 2000)

    def affine(self) -> NDArray[np.float64]:
        """The affine of a volume that has no position of its own: nominal spacing (1 mm if there is none)."""
        import numpy as np

        return np.diag([*(self.spacing or (1.0, 1.0, 1.0)), 1.0])


class DataProtocol(FrozenConfig):
    """How images of a data set are fitted to one grid, and which regions are measured. Its hash is in every protocol
    id.

    fit: "crop-pad" crops or pads about the centre, keeping voxels; "resize" resamples to the grid's shape.
    split: how the train/val/test lists were made, as text; `split_sha256` identifies the lists themselves.
    masks: "dataset" for masks that came with the images, "none", or the name and version of a segmenter.
    segmenter: default segmenter of generated volumes for metrics.
    """

    name: str
    grid: Grid
    fit: FitMode
    split: str
    split_sha256: str
    counts: dict[str, int]
    masks: str
    segmenter: str = "totalsegmentator"
    synthetic: bool = False
    rvr_regions: tuple[str, ...] = ()
    condition_regions: tuple[str, ...] = ()
    adherence_regions: tuple[str, ...] = ()

    def id(self) -> str:
        """Name and the first eight digits of the hash, e.g. ``pccta-1f00ab42``, printed with a number."""
        from medlord_bench.util.hashing import digest

        return f"{self.name}-{digest(self.model_dump(mode='json'))[:8]}"


@dataclass(frozen=True, eq=False)
class Request:
    """One sample to draw. The volume must depend only on this, the config and the weights.

    condition: the label map that a conditional sample must follow, on `grid`; None for an unconditional sample.
    case: the id of the case of this mask; empty for an unconditional sample.
    """

    index: int
    seed: int
    grid: Grid
    condition: LabelMap | None = None
    case: str = ""


@dataclass(frozen=True)
class Failure:
    """A sample or case that could not be produced (NaN, constant, not HU): counted as failed, never dropped."""

    reason: str


@dataclass(frozen=True)
class CheckpointSelection:
    """Selection of a stage's checkpoint by its samples: the lowest FID to the validation split (paper, A.1).

    every: training steps between candidates; the last step is one too. samples: number of volumes per candidate.
    """

    every: int
    samples: int
    extractor: str = "imagenet"

    def candidates(self, steps: int) -> tuple[int, ...]:
        """The training steps of the candidates."""
        return tuple(sorted({*range(self.every, steps + 1, self.every), steps}))


@dataclass(frozen=True)
class Stage:
    """One training stage of a generator, e.g. the autoencoder.

    fields: the part of the configuration that decides its output, as dotted paths of fields or of the models that hold
        them, e.g. ``("autoencoder", "hu_window")``; see `medlord_bench.engine.keys`.
    steps: number of training steps; a shorter training is resumed. None for a stage that does not iterate.
    needs: earlier stages whose weights it reads.
    conditional: whether it reads masks, so that the protocol's condition regions decide its output too.
    choice: set if its checkpoint is selected by its samples; `train` then returns one folder of weights per
        candidate, `candidate_name(step)`, and the bench selects one.
    """

    name: str
    fields: tuple[str, ...] = ()
    steps: int | None = None
    needs: tuple[str, ...] = ()
    conditional: bool = False
    choice: CheckpointSelection | None = None


def candidate_name(step: int) -> str:
    """The folder of a candidate's weights."""
    return f"step-{step:08d}"


Purpose = Literal["sample", "sample-conditional", "reconstruct"]


@dataclass(frozen=True)
class Dependencies:
    """The dependencies of a purpose's output.

    stages: the stages whose weights it reads. fields: the part of the configuration that decides it besides weights, as
    in `Stage`. facts: what decides it outside the configuration, such as the sha256 of a file.
    """

    stages: tuple[str, ...]
    fields: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class MemoryOption:
    """A change of configuration that reduces the memory of a phase of work, with the same result up to rounding
    unless `cost` says otherwise.

    sets: dotted path below the generator's configuration -> value. cost: its cost, as short text.
    """

    sets: Mapping[str, Any]
    cost: str


class Source(StrEnum):
    """Volumes that a metric reads: a contestant's, the prepared real images of a split, or predicted label maps."""

    SAMPLES = "samples"
    CONDITIONAL = "conditional:test"
    TRAINING_SAMPLES = "training-samples:train"  # one for the mask of each training case
    RECONSTRUCTIONS = "reconstructions"
    REAL_TRAIN = "real:train"
    REAL_VAL = "real:val"
    REAL_TEST = "real:test"
    PREDICTIONS = "predictions"  # of models trained on arms with generated cases (`contracts.arms`)
    REAL_PREDICTIONS = "predictions:real"

    @property
    def kind(self) -> str:
        """The kind of step that makes them."""
        head = self.value.partition(":")[0]
        return "images" if head == "real" else head

    @property
    def is_real(self) -> bool:
        return self.kind == "images"

    @property
    def data_split(self) -> Split:
        """The split of their cases, or of the cases they are made from. Not for unconditional samples, which have
        none."""
        found = "test" if self is Source.RECONSTRUCTIONS or self.is_predicted else self.value.partition(":")[2]
        return next(split for split in SPLITS if split == found)

    @property
    def is_predicted(self) -> bool:
        """Whether they are label maps predicted by models that the run trains."""
        return self.kind == "predictions"

    @property
    def has_cases(self) -> bool:
        """Whether each is, or is made from, a real case."""
        return self is not Source.SAMPLES

    def compared_with(self, labels: bool) -> Literal["mask", "image"] | None:
        """The reference of an item, case by case. labels: whether a label map is read instead of the volume."""
        if self.has_cases and (labels or self.is_predicted or self in (Source.CONDITIONAL, Source.TRAINING_SAMPLES)):
            return "mask"
        return "image" if self is Source.RECONSTRUCTIONS else None


@dataclass(frozen=True)
class Item:
    """One published file that a metric reads.

    path: the volume, label map, features or state of the item; None when the item failed (`failed` says why).
    reference: its reference, case by case: the real image of a reconstruction, the mask of a condition; for
        label maps always the case's own mask, if it has one.
    volume: the volume that a label map is of, int16 HU; None if `path` is not a label map.
    spacing: voxel size in mm: the case's own, or the protocol's nominal one; None if none is known.
    names, reference_names: label value to region name, if `path` or `reference` is a label map.
    """

    id: str
    source: Source
    path: Path | None
    patient: str | None = None
    reference: Path | None = None
    failed: str | None = None
    volume: Path | None = None
    spacing: tuple[float, float, float] | None = None
    names: Mapping[int, str] = field(default_factory=dict)
    reference_names: Mapping[int, str] = field(default_factory=dict)


class Made(StrEnum):
    """What a metric reads of a source: the volumes, or what a plugin makes of each.

    STATES are the metric's own `extract`, case by case.
    """

    VOLUMES = "volumes"
    FEATURES = "features"
    LABELS = "labels"
    STATES = "states"


@dataclass(frozen=True)
class Need:
    """What a metric reads: the volumes of `source`, or what is made of them.

    made: what is made of each volume. extractor: makes the features. segmenter: makes the label maps, or those that the
    metric's own `extract` turns into states; empty where `extract` reads the volumes themselves.
    Raises ValueError for a source or `made` that does not exist, and for a plugin that is missing or not used.
    """

    source: Source
    made: Made
    extractor: str = ""
    segmenter: str = ""

    def __post_init__(self) -> None:
        for name, kind in (("source", Source), ("made", Made)):
            given = getattr(self, name)
            if given not in list(kind):
                raise ValueError(f"need: {name} {given!r}, expected one of {', '.join(kind)}")
            object.__setattr__(self, name, kind(given))
        if bool(self.extractor) != (self.made == Made.FEATURES):
            raise ValueError(
                f"need of {self.made}: extractor {self.extractor!r}; features need one, nothing else has one"
            )
        allowed = {Made.LABELS: (True,), Made.STATES: (True, False)}.get(self.made, (False,))
        if bool(self.segmenter) not in allowed:
            raise ValueError(f"need of {self.made}: segmenter {self.segmenter!r}; labels need one, states may have one")


@dataclass(frozen=True)
class MetricInputs:
    """All inputs of a metric's `reduce`. `items[need]` is in the order of the item ids.

    protocol: of the data. protocol_id: of the metric's numbers, for `Score.protocol` (`metrics.protocol_of`).
    trained: item id of an arm -> what was recorded of its training (`contracts.arms`).
    """

    generator: str
    dataset: str
    protocol: DataProtocol
    items: Mapping[Need, Sequence[Item]]
    protocol_id: str = ""
    trained: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
