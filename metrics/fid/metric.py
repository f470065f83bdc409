"""`fid`: distances of slice features in three planes (2.5D) against train and test, with their floors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from medlord_bench.contracts import DataProtocol, Item, Made, MetricInputs, Need, Run, Source, State
from medlord_bench.contracts.metrics import MetricProtocol, Quantity
from medlord_bench.contracts.reference import Statistics
from medlord_bench.contracts.results import Note, Replicates, Score, notes

from .config import RULES, VARIANTS, FIDConfig, SetsConfig, backbone_note
from .quantities import QUANTITIES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .measured import Measured
    from .sides import Sides

SPLITS = ("train", "test")
SOURCES = (Source.SAMPLES, Source.REAL_TRAIN, Source.REAL_TEST)


class Family:
    """What `fid`, `fid3d` and `frd` share: features of the samples and both real splits, distances, floors, and scores."""

    name: ClassVar[str]
    quantities: ClassVar[tuple[Quantity, ...]]
    rules: ClassVar[Mapping[str, str]]
    version: ClassVar[int]

    def __init__(self, config: SetsConfig) -> None:
        self.config = config

    def _need(self, source: Source) -> Need:
        return Need(source, Made.FEATURES, extractor=self.config.extractor)

    def needs(self) -> Sequence[Need]:
        """Features of the samples and of both real splits."""
        return [self._need(source) for source in SOURCES]

    def plugin_config(self) -> dict[str, Any]:
        """The extractor's configuration."""
        return self.config.of_extractor()

    def _extractor(self) -> Any:
        from medlord_bench.contracts import specs

        return specs.make("extractors", specs.plugin_spec("extractors", self.config.extractor, self.plugin_config()))

    def protocol(self, data: DataProtocol) -> MetricProtocol:
        """Everything that decides its numbers besides the data, the extractor's preprocessing and weights included."""
        extractor = self._extractor()
        preprocessing = dict(extractor.preprocessing)
        text = {
            "config": self.config.model_dump(mode="json"),
            "rules": self.rules,
            "extractor": {
                "name": self.config.extractor,
                "version": extractor.version,
                "preprocessing": preprocessing,
            },
        }
        # A weights file without a recorded hash may differ elsewhere.
        locked = bool(preprocessing.get("weights_locked", True))
        return MetricProtocol(label=self.label(), text=text, locked=locked)

    def label(self) -> str:
        """The short name that distinguishes its variants."""
        return self.config.extractor

    def backbone(self, inputs: MetricInputs) -> tuple[Note, ...]:
        """Notes of every value: the network behind it, and the values that it is comparable with."""
        raise NotImplementedError

    def named_backbone(self) -> str:
        """The network, as its extractor describes it."""
        return str(self._extractor().preprocessing.get("backbone", self.config.extractor))

    def extract(self, items: Iterable[Item], run: Run) -> Iterator[State]:
        """Nothing: features come from the extractor."""
        return iter(())

    def reduce(self, inputs: MetricInputs, run: Run) -> Iterable[Score | Replicates]:
        """Per reference: each quantity, by plane if it has planes, or one `not_run` with the reason."""
        from .sides import Sides

        sides = Sides.of(self._items(inputs), self.config.minimum, self.config.seed, self.name)
        yield from self._results(inputs, sides, self._measured(sides), run)

    def _items(self, inputs: MetricInputs) -> dict[str, Sequence[Item]]:
        return {source: inputs.items.get(self._need(source), ()) for source in SOURCES}

    def _results(
        self, inputs: MetricInputs, sides: Sides, measured: Iterable[tuple[str, Iterable[Measured]]], run: Run
    ) -> Iterator[Score | Replicates]:
        """Measured numbers with generator, data set, counts and notes."""
        common = {"protocol": inputs.protocol_id, "generator": inputs.generator, "dataset": inputs.dataset}
        counts = {"n": sides.n, "failed": sides.failed}
        about = (*self.backbone(inputs), *notes("counts", sides.failures))
        with run.progress.task(self.name, total=len(SPLITS)) as task:
            for split, found in measured:
                for one in found:
                    at = {**common, "reference": split}
                    shared = (*about, *notes("counts", sides.selected(split))) if one.value is not None else ()
                    yield _score(one, {**at, **counts}, shared)
                    if one.value is not None and one.without is not None:
                        samples, real = one.without
                        yield Replicates(
                            metric=one.metric,
                            region=one.region,
                            value=one.value,
                            squared=one.metric == "fid",
                            samples=samples,
                            real=real,
                            **at,
                        )
                task.advance()

    def _measured(self, sides: Sides) -> Iterator[tuple[str, Iterable[Measured]]]:
        """The numbers against each reference. Features are read for the first reference with a value."""
        from .measured import Measured

        against: Callable[[str], Iterable[Measured]] | None = None
        for split in SPLITS:
            reason = sides.reason(split)
            if reason:
                yield (
                    split,
                    [Measured(one.name, reason=reason) for one in self.quantities],
                )
                continue
            against = against or self.comparisons(sides)
            yield split, against(split)

    def comparisons(self, sides: Sides) -> Callable[[str], Iterable[Measured]]:
        """The numbers against "train" or "test", from features that are read once."""
        raise NotImplementedError


class FID(Family):
    """2.5D Fréchet distance, KID and coverage of slice features against train and test, with intervals and floors.

    Distances: lower is better, and 0 is never reached at a finite n: read them beside their floor.
    """

    Config: ClassVar[type[FIDConfig]] = FIDConfig
    version: ClassVar[int] = 3
    name: ClassVar[str] = "fid"
    rules: ClassVar[Mapping[str, str]] = RULES
    default: ClassVar[int | None] = 1
    quantities: ClassVar[tuple[Quantity, ...]] = QUANTITIES
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = VARIANTS
    config: FIDConfig

    def label(self) -> str:
        return self.config.arithmetic

    def backbone(self, inputs: MetricInputs) -> tuple[Note, ...]:
        return backbone_note(self.config, self.named_backbone())

    def comparisons(self, sides: Sides) -> Callable[[str], Iterable[Measured]]:
        from .compare import Comparisons

        return Comparisons(sides, self.config).against

    def aggregate(self, inputs: MetricInputs) -> Statistics | None:
        """A Gaussian for each plane and real split, and the floor."""
        from .reference import aggregate

        return aggregate(self._items(inputs), self.config)

    def reduce_against(
        self, inputs: MetricInputs, arrays: Mapping[str, NDArray[np.float64]], run: Run
    ) -> Iterable[Score | Replicates]:
        """`fid`, equal to that of `reduce`, with the interval of the samples alone; the rest needs cases."""
        from .reference import Stored

        stored = Stored.of(arrays, self._items(inputs)[Source.SAMPLES], self.config)
        yield from self._results(inputs, stored.sides, stored.measured(), run)


def _score(one: Measured, shared: Mapping[str, Any], about: tuple[Note, ...]) -> Score:
    """A measured number with its generator and data set. about: notes of every number."""
    return Score(
        metric=one.metric,
        region=one.region,
        status="ok" if one.value is not None else "not_run",
        reason=one.reason,
        value=one.value,
        low=one.low,
        high=one.high,
        interval=one.interval,
        p=one.p,
        p_of=one.p_of,
        n_reference=one.n_reference,
        floor=one.floor,
        floor_n=None if one.floor is None else one.n_reference,
        floor_note=one.floor_note,
        notes=(*about, *one.notes),
        points=one.points,
        **shared,
    )
