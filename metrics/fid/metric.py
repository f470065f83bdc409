"""`fid`: the Fréchet distance of slice features in three planes (2.5D), against train and test, with its floor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from medlord_bench.contracts import DataProtocol, Frozen, Item, MetricInputs, Need, Run, State
from medlord_bench.hashing import digest
from medlord_bench.results import Score

if TYPE_CHECKING:
    from .compare import Comparison

Plane = Literal["axial", "coronal", "sagittal"]
SPLITS = ("train", "test")
RULES = {
    "n": "the same n on every side: the fewest of samples, real train and real test volumes; seeded subsets of the rest",
    "failed": "counted in n; the value rests on the others, and on as many real volumes",
    "pooling": "slices of a plane pooled, one Gaussian a set; 'mean' is the mean of the planes",
    "interval": "delete-one jackknife by volume (samples) and patient (real), all planes at once",
    "floor": "the same reference volumes against as many real volumes of the other split",
}


class FIDConfig(Frozen):
    """What the distance is measured in. minimum: volumes on a side below which it is not run."""

    extractor: str = "imagenet"
    hu_window: tuple[int, int] = Field((-1000, 1000), description="HU that real and synthetic are clipped to alike")
    features: dict[str, Any] = Field(default_factory=dict, description="further settings of the extractor")
    planes: tuple[Plane, ...] = Field(("axial", "coronal", "sagittal"), min_length=1)
    minimum: int = Field(8, ge=2, description="volumes on each side below which the value is not run")
    seed: int = Field(0, description="of the subsets; one for all generators, so that they share the real volumes")

    @model_validator(mode="after")
    def _planes_differ(self) -> FIDConfig:
        if len(set(self.planes)) != len(self.planes):
            raise ValueError("planes: each plane may be named once")
        return self


class FID:
    """2.5D Fréchet distance of slice features against train and test, with jackknife interval and floor.

    Lower is better; 0 is never reached at a finite n: read it beside its floor.
    """

    Config: ClassVar[type[FIDConfig]] = FIDConfig
    version: ClassVar[int] = 1

    def __init__(self, config: FIDConfig) -> None:
        self.config = config

    def _need(self, source: str) -> Need:
        return Need(source, f"features:{self.config.extractor}")

    def needs(self) -> Sequence[Need]:
        """Features of the samples and of both real splits."""
        return [self._need("samples"), *(self._need(f"real:{split}") for split in SPLITS)]

    def plugin_config(self) -> dict[str, Any]:
        """The extractor's configuration: the window is the protocol's, not the extractor's own choice."""
        return {"hu_window": list(self.config.hu_window), **self.config.features}

    def _extractor(self) -> Any:
        from medlord_bench import config

        return config.make("extractors", config.plugin_spec("extractors", self.config.extractor, self.plugin_config()))

    def protocol(self, data: DataProtocol) -> tuple[str, dict[str, object]]:
        """The protocol's id, e.g. ``fid-fixed-window-3fa2b1c0``, and its full text."""
        extractor = self._extractor()
        text: dict[str, object] = {
            "metric": "fid",
            "version": self.version,
            "config": self.config.model_dump(mode="json"),
            "rules": RULES,
            "extractor": {
                "name": self.config.extractor,
                "version": extractor.version,
                "preprocessing": dict(extractor.preprocessing),
            },
            "data": data.model_dump(mode="json"),
        }
        return f"fid-fixed-window-{digest(text)[:8]}", text

    def extract(self, items: Iterable[Item], run: Run) -> Iterator[State]:
        """Nothing: features come from the extractor."""
        return iter(())

    def reduce(self, inputs: MetricInputs, run: Run) -> Iterable[Score]:
        """Per reference, plane and their mean: `fid` and `fid_debiased`, or one `not_run` that says why."""
        from .compare import Sides, compare

        sides = Sides.of(
            {source: inputs.items.get(self._need(source), ()) for source in ("samples", "real:train", "real:test")},
            self.config.minimum,
            self.config.seed,
        )
        id, text = self.protocol(inputs.protocol)
        common = {"protocol": id, "generator": inputs.generator, "dataset": inputs.dataset, "better": "lower"}
        with run.progress.task("fid", total=len(SPLITS)) as task:
            for split in SPLITS:
                reason = sides.reason(split)
                counts = {**common, "reference": split, "n": sides.n, "failed": sides.failed}
                if reason:
                    yield from (
                        Score(metric=metric, status="not_run", reason=reason, **counts)
                        for metric in ("fid", "fid_debiased")
                    )
                else:
                    yield from self._scores(
                        compare(sides, split, self.config.planes), counts, self._note(text) + sides.failures
                    )
                task.advance()

    def _note(self, text: Mapping[str, Any]) -> str:
        backbone = text["extractor"]["preprocessing"].get("backbone", self.config.extractor)
        other = ", not RadImageNet" if self.config.extractor == "imagenet" else ""
        return f"features of {backbone}{other}: does not compare with published values; interval for one checkpoint"

    def _scores(self, found: Sequence[Comparison], counts: Mapping[str, Any], note: str) -> Iterator[Score]:
        for one in found:
            shared = {**counts, "region": one.region, "n_reference": one.n, "note": f"{note}{one.note}"}
            floor = {"floor": one.floor, "floor_n": one.floor_n, "floor_note": one.floor_note}
            if one.jackknife is None:
                yield Score(metric="fid", value=one.value, **shared, **floor)
                yield Score(metric="fid_debiased", status="not_run", reason=one.no_interval, **shared)
                continue
            found_, how = one.jackknife, "95 % delete-one jackknife by volume and patient"
            low, half = max(found_.low, 0.0), found_.high - found_.value
            yield Score(metric="fid", value=one.value, low=low, high=found_.high, interval=how, **shared, **floor)
            value = found_.debiased
            ends = {"low": value - half, "high": value + half, "interval": how}
            yield Score(metric="fid_debiased", value=value, floor_note="see fid", **ends, **shared)
