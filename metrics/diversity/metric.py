"""`diversity`: how much samples differ from each other, beside how much real patients do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from medlord_bench.contracts import DataProtocol, Item, Made, MetricInputs, Need, Run, Source, State
from medlord_bench.contracts.metrics import MetricProtocol, Quantity
from medlord_bench.contracts.results import Score, notes
from medlord_bench.errors import UserError

from .config import RULES, DiversityConfig
from .quantities import QUANTITIES

if TYPE_CHECKING:
    from .scores import Sets

SAMPLES, REAL = Need(Source.SAMPLES, Made.STATES), Need(Source.REAL_TRAIN, Made.STATES)


class Diversity:
    """Distinct samples, Vendi score and MS-SSIM between pairs of samples, beside the same of real patients.

    From thumbnails alone, without a network. A set of noise is the most varied of all: this is not fidelity.
    """

    Config: ClassVar[type[DiversityConfig]] = DiversityConfig
    version: ClassVar[int] = 1
    default: ClassVar[int | None] = 7
    quantities: ClassVar[tuple[Quantity, ...]] = QUANTITIES
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    def __init__(self, config: DiversityConfig) -> None:
        self.config = config

    def needs(self) -> Sequence[Need]:
        """Thumbnails of the samples and of the real training volumes."""
        return [SAMPLES, REAL]

    def plugin_config(self) -> Mapping[str, Any]:
        return {}

    def protocol(self, data: DataProtocol) -> MetricProtocol:
        """Everything that decides its numbers besides the data."""
        from medlord_bench.volumes.scales import scale_weights
        from medlord_bench.volumes.thumbnails import thumbnail_shape

        shape = thumbnail_shape(data.grid.shape, self.config.cells)
        text: dict[str, Any] = {"config": self.config.model_dump(mode="json"), "rules": RULES}
        text |= {"picture": shape, "scale_weights": scale_weights(min(shape), self.config.kernel_size)}
        return MetricProtocol(text=text)

    def extract(self, items: Iterable[Item], run: Run) -> Iterator[State]:
        """{"picture": int16 (x, y, z), mean HU of boxes, rounded} of each volume; see `volumes.thumbnails`."""
        import numpy as np

        from medlord_bench.volumes.arrays import read_hu
        from medlord_bench.volumes.thumbnails import thumbnail

        for item in items:
            if item.path is None:
                raise UserError(f"{item.id}: the volume failed ({item.failed}); expected one that can be read")
            picture = thumbnail(read_hu(item.path), self.config.hu_window, self.config.cells)
            yield {"picture": np.rint(picture).astype(np.int16)}

    def reduce(self, inputs: MetricInputs, run: Run) -> Iterable[Score]:
        """`distinct_samples`, `vendi` and `pair_ms_ssim`, or the reason why there are none."""
        given, patients = inputs.items.get(SAMPLES, ()), _one_of_each_patient(inputs.items.get(REAL, ()))
        config = self.config
        n = min(len(given), len(patients), config.most)
        chosen = self._subset(given, n, "samples")
        samples = [item for item in chosen if item.path is not None]
        real = self._subset(patients, len(samples), "train")
        common: dict[str, Any] = {"protocol": inputs.protocol_id, "generator": inputs.generator}
        common |= {"dataset": inputs.dataset, "reference": "train", "n": n, "failed": n - len(samples)}
        common |= {"n_reference": len(real)}
        reason, sets = self._reason(given, patients, samples), None
        if not reason:
            sets = self._sets(samples, real, run)
            reason = "" if sets else "the real training volumes are all equal; expected different patients"
        if sets is None:
            for one in QUANTITIES:
                yield Score(metric=one.name, status="not_run", reason=reason, **common)
            return
        counts = notes("counts", _selected(n, len(given), len(real), len(patients)))
        for score in sets.scores(common):
            yield score.model_copy(update={"notes": (*score.notes, *counts)})

    def _subset(self, items: Sequence[Item], n: int, source: str) -> list[Item]:
        from medlord_bench.util.seeds import numpy_rng

        ordered = sorted(items, key=lambda item: item.id)
        if n >= len(ordered):
            return ordered
        order = numpy_rng(self.config.seed, "diversity", source).permutation(len(ordered))
        return [ordered[i] for i in sorted(order[:n])]

    def _reason(self, given: Sequence[Item], patients: Sequence[Item], samples: Sequence[Item]) -> str:
        """Why there can be no value; empty if there is one."""
        least = f"diversity needs at least {self.config.minimum}"
        if not given:
            return "the generator has no unconditional samples"
        if len(given) < self.config.minimum:
            return f"{len(given)} samples; {least}: raise the number of samples"
        if len(patients) < self.config.minimum:
            return f"{len(patients)} real training patients; {least}"
        if len(samples) < self.config.minimum:
            return f"{len(samples)} of the compared samples have a volume, the others failed; {least}"
        return ""

    def _sets(self, samples: Sequence[Item], real: Sequence[Item], run: Run) -> Sets | None:
        """All pairs; None if most real volumes are equal."""
        import numpy as np

        from medlord_bench.volumes.scales import scale_weights

        from .scores import Sets
        from .similarity import distances, ms_ssim_of_pairs

        pictures = _pictures([*samples, *real])
        apart = distances(pictures)
        among_real = apart[len(samples) :, len(samples) :]
        if not np.median(among_real[np.triu_indices(len(real), 1)]) > 0:
            return None
        config, similarity = self.config, None
        scales = len(scale_weights(min(pictures.shape[1:]), config.kernel_size))
        if scales:
            with run.progress.task("diversity", total=len(pictures)) as task:
                similarity = ms_ssim_of_pairs(
                    pictures, config.hu_window, config.kernel_size, config.kernel_sigma, task.advance
                )
        return Sets([item.id for item in samples], similarity, scales, apart, config)


def _one_of_each_patient(items: Iterable[Item]) -> list[Item]:
    """The first volume of each patient that has one."""
    found: dict[str, Item] = {}
    for item in sorted(items, key=lambda item: item.id):
        if item.path is not None:
            found.setdefault(item.patient or item.id, item)
    return list(found.values())


def _selected(n: int, samples: int, real: int, patients: int) -> str:
    parts = [f"{n} of {samples} samples"] if n < samples else []
    parts += [f"{real} of {patients} real training patients"] if real < patients else []
    return f"equal n on both sides: a seeded subset, {' and '.join(parts)}" if parts else ""


def _pictures(items: Sequence[Item]) -> Any:
    """float32 (n, x, y, z). Raises `UserError` naming a picture of another shape."""
    import numpy as np

    from medlord_bench.volumes.arrays import load_state

    pictures: list[Any] = []
    for item in items:
        assert item.path is not None
        picture = load_state(item.path)["picture"]
        if pictures and picture.shape != pictures[0].shape:
            raise UserError(
                f"{item.path}: a picture of {picture.shape} for {item.id}, expected {pictures[0].shape}: its volume is not "
                "on the protocol's grid; compute it again"
            )
        pictures.append(picture)
    return np.stack(pictures).astype(np.float32)
