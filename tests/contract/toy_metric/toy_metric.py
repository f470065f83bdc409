"""A minimal metric: the mean absolute error of reconstructions, in HU. It appears wherever a built-in metric does.

A template for a metric of one's own (docs/plugins.md). NumPy only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from medlord_bench.contracts import DataProtocol, FrozenConfig, Item, Made, MetricInputs, Need, Run, Source, State
from medlord_bench.contracts.metrics import Headline, MetricProtocol, Quantity
from medlord_bench.contracts.results import CaseRow, Score

MAE = Quantity(
    name="toy_mae",
    meaning="How far the autoencoder's reconstructions are from real test images, on average over voxels.",
    unit="HU",
    better="lower",
    headline=(Headline(rank=90),),
    margin=5.0,
)
NEED = Need(Source.RECONSTRUCTIONS, Made.STATES)


class MeanAbsoluteErrorConfig(FrozenConfig):
    """hu_window: HU that both volumes are clipped to."""

    hu_window: tuple[int, int] = (-1000, 1000)


class MeanAbsoluteError:
    """Mean absolute difference of reconstructions and images. Lower is better."""

    Config: ClassVar[type[MeanAbsoluteErrorConfig]] = MeanAbsoluteErrorConfig
    version: ClassVar[int] = 1
    default: ClassVar[int | None] = None
    quantities: ClassVar[tuple[Quantity, ...]] = (MAE,)
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    def __init__(self, config: MeanAbsoluteErrorConfig) -> None:
        self.config = config

    def needs(self) -> Sequence[Need]:
        return [NEED]

    def plugin_config(self) -> Mapping[str, Any]:
        return {}

    def protocol(self, data: DataProtocol) -> MetricProtocol:
        return MetricProtocol(text={"config": self.config.model_dump(mode="json")})

    def extract(self, items: Iterable[Item], run: Run) -> Iterator[State]:
        """{"mae": float64 (1,)} of each case."""
        import numpy as np

        from medlord_bench.volumes.arrays import read_hu

        for item in items:
            assert item.path is not None and item.reference is not None
            made, real = (read_hu(path).clip(*self.config.hu_window) for path in (item.path, item.reference))
            yield {"mae": np.array([np.abs(made.astype(np.float64) - real).mean()])}

    def reduce(self, inputs: MetricInputs, run: Run) -> Iterable[Score | CaseRow]:
        """The mean over cases, and every case."""
        from medlord_bench.volumes.arrays import load_state

        items = [item for item in inputs.items.get(NEED, ()) if item.path is not None]
        common = {"protocol": inputs.protocol_id, "generator": inputs.generator, "dataset": inputs.dataset}
        score = {"metric": MAE.name, "reference": "test", **common}
        if not items:
            yield Score(status="not_run", reason="no reconstruction", **score)
            return
        values = [float(load_state(item.path)["mae"][0]) for item in items]
        yield Score(value=sum(values) / len(values), n=len(values), **score)
        for item, value in zip(items, values, strict=True):
            yield CaseRow(
                metric=MAE.name, generator=inputs.generator, case=item.id, value=value, patient=item.patient or item.id
            )
