"""`memorisation`: is a sample a copy of a training patient? The nearest training volume of every sample.

Rows for reports. Of each sample, with `case` its id and `against` the item id of a training volume:
`nearest_correlation` (of detail, with the nearest one as a whole), `relative_distance` (the smaller of both stages), and
`agreeing_patches` (of the local stage, if it found any). `copy_pair`, in this order, are the six samples nearest to a
training volume by relative distance, whether classified as copies or not, for visual review: draw the sample
(`samples`, `case`) beside the training image (`images`, `against`); `value` is their relative distance, and `region` is
"part" if the local stage found the pair, empty if the whole volumes are similar.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from medlord_bench.contracts import DataProtocol, Item, Made, MetricInputs, Need, Run, Source, State
from medlord_bench.contracts.metrics import MetricProtocol, Quantity
from medlord_bench.contracts.results import CaseRow, Score
from medlord_bench.errors import Stopped, UserError

from .config import VARIANTS, MemorisationConfig
from .quantities import QUANTITIES, RULES_QUANTITIES

if TYPE_CHECKING:
    from .dar import DarAudit
    from .masks import MaskAudit
    from .scores import Audit

SAMPLES, TRAIN = Need(Source.SAMPLES, Made.STATES), Need(Source.REAL_TRAIN, Made.STATES)
HELD_OUT = (Need(Source.REAL_VAL, Made.STATES), Need(Source.REAL_TEST, Made.STATES))
OF_MASKS = (Need(Source.TRAINING_SAMPLES, Made.STATES), TRAIN, Need(Source.CONDITIONAL, Made.STATES), HELD_OUT[1])
RULES = {
    "picture": "voxels clipped to the window and averaged in boxes, about 40 along the longest axis",
    "registration": "rigid, in every flip, onto the training volumes that are likeliest by tangent distance",
    "correlation": "of a difference of Gaussians (0.7 and 1.4 cells), the largest over four blurs of the training "
    "volume; a tenth of each side left out",
    "local": "points of detail matched by rotation-invariant moments, in 48 orientations and three sizes; clusters of "
    "shifts; patches registered locally that correlate above 0.7 and more than with any other patient, weighted by how much "
    "more",
    "relative distance": "1 - correlation with the nearest patient, over its mean for the next nearest; or agreeing "
    "patches of the next patients (and 5) over those of the nearest (and 5), brought to the scale of the former by median and "
    "lower quartile of the left-out volumes' logarithms; the smaller of the two",
    "threshold": "conformal: of training volumes, each left out with its patient; never above the largest allowed; dar: "
    "the 95th percentile of the correlations of training volumes with their nearest validation volume",
    "failed": "counted in n of the rate; a failed sample is no copy",
}
MASK_RULES = {name: RULES[name] for name in ("picture", "correlation", "failed")} | {
    "samples": "one for each training mask; control: one for each test mask",
    "registration": "rigid, in the likeliest flips by tangent distance, onto the volume of the mask's patient",
    "threshold": "conformal: of the correlations of the control with the test patients",
}


class Memorisation:
    """Copies of training patients among the samples: rate, share of the training set, nearest pairs.

    Calibrated on real patients. Whole volumes are compared after registration, and parts by local descriptors in every
    orientation. Lower is better.
    """

    Config: ClassVar[type[MemorisationConfig]] = MemorisationConfig
    version: ClassVar[int] = 4
    default: ClassVar[int | None] = 4
    quantities: ClassVar[tuple[Quantity, ...]] = QUANTITIES
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = VARIANTS

    def __init__(self, config: MemorisationConfig) -> None:
        self.config = config

    def needs(self) -> Sequence[Need]:
        """Samples, training volumes, and the real volumes that the generator has not seen; or what `masks` compares."""
        return OF_MASKS if self.config.rule == "masks" else [SAMPLES, TRAIN, *HELD_OUT]

    def plugin_config(self) -> Mapping[str, Any]:
        return {}

    def protocol(self, data: DataProtocol) -> MetricProtocol:
        """Everything that decides its numbers besides the data."""
        text: dict[str, Any] = {
            "config": self.config.model_dump(mode="json"),
            "rules": MASK_RULES if self.config.rule == "masks" else RULES,
        }
        return MetricProtocol(label="" if self.config.rule == "conformal" else self.config.rule, text=text)

    def extract(self, items: Iterable[Item], run: Run) -> Iterator[State]:
        """{"picture": float32, "local": float16, (x, y, z) each: mean HU of boxes} of each volume; see `thumbnails`."""
        import numpy as np

        from medlord_bench.volumes.arrays import read_hu
        from medlord_bench.volumes.thumbnails import thumbnail

        for item in items:
            if item.path is None:
                raise UserError(f"{item.id}: the volume failed ({item.failed}); expected one that can be read")
            hu, window = read_hu(item.path), self.config.hu_window
            yield {
                "picture": thumbnail(hu, window, self.config.cells),
                "local": thumbnail(hu, window, self.config.local_cells).astype(np.float16),
            }

    def reduce(self, inputs: MetricInputs, run: Run) -> Iterable[Score | CaseRow]:
        """The quantities of the configured rule, and the rows of the module's docstring."""
        samples = inputs.items.get(self.needs()[0], ())
        common: dict[str, Any] = {
            "protocol": inputs.protocol_id,
            "generator": inputs.generator,
            "dataset": inputs.dataset,
        }
        common |= {"reference": "train", "n": len(samples), "failed": sum(item.path is None for item in samples)}
        reason = self._reason(inputs)
        audit = None if reason else self._audit(inputs, run)
        if audit is None:
            reason = reason or "all training volumes are (nearly) identical; expected different patients"
            for name in RULES_QUANTITIES[self.config.rule]:
                yield Score(metric=name, status="not_run", reason=reason, **common)
            return
        yield from audit.scores(common)
        yield from audit.rows(inputs.generator)

    def _audit(self, inputs: MetricInputs, run: Run) -> Audit | DarAudit | MaskAudit | None:
        from .compare import compare
        from .dar import compare_dar
        from .masks import compare_masks

        sides = {str(need.source): _usable(inputs, need) for need in self.needs()}
        with run.progress.task("memorisation", total=sum(map(len, sides.values()))) as task:
            audit = {"conformal": compare, "dar": compare_dar, "masks": compare_masks}[self.config.rule]

            def advance() -> None:
                if run.stop():
                    raise Stopped("memorisation: stopped; the next run compares from the start")
                task.advance()

            return audit(sides, inputs.protocol.grid, self.config, advance)

    def _reason(self, inputs: MetricInputs) -> str:
        """Why it cannot be run; empty if it can be run."""
        read, training = self.needs()[0], _usable(inputs, TRAIN)
        samples = inputs.items.get(read, ())
        if not samples:
            return f"the generator has no {'un' if read == SAMPLES else ''}conditional samples"
        if all(item.path is None for item in samples):
            return f"all {len(samples)} samples failed"
        if self.config.rule == "masks":
            return self._few(len(_usable(inputs, OF_MASKS[2])))
        patients = len({item.patient or item.id for item in training})
        if len(training) < self.config.minimum or patients < 2:
            return (
                f"{len(training)} training volumes of {patients} patients; memorisation needs at least "
                f"{self.config.minimum} volumes and 2 patients to measure the similarity of patients"
            )
        if self.config.rule == "dar" and not _usable(inputs, HELD_OUT[0]):
            return "no validation volumes; the rule of Dar et al. takes its threshold from them"
        return ""

    def _few(self, control: int) -> str:
        """Why so many samples of test masks are too few for a threshold; empty if they are enough."""
        if control >= self.config.minimum:
            return ""
        return (
            f"{control} samples of test masks; the threshold needs at least {self.config.minimum}: give more test cases"
        )


def _usable(inputs: MetricInputs, need: Need) -> list[Item]:
    return [item for item in inputs.items.get(need, ()) if item.path is not None]
