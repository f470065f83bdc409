"""`axes`: a check before all others. Does the mean sample fit the mean real volume best in its own orientation, or in
another?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from medlord_bench.contracts import (
    DataProtocol,
    FrozenConfig,
    HUWindow,
    Item,
    Made,
    MetricInputs,
    Need,
    Run,
    Source,
    State,
)
from medlord_bench.contracts.metrics import MetricProtocol, Quantity
from medlord_bench.contracts.results import Score, notes
from medlord_bench.errors import UserError

from .quantities import QUANTITIES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .match import Match

SAMPLES, REAL = Need(Source.SAMPLES, Made.STATES), Need(Source.REAL_TRAIN, Made.STATES)
RULES = {
    "value": "Pearson correlation of the mean sample and the mean real training volume, over the cube's boxes",
    "cube": "the whole field of view, every axis cut into equal boxes, means of HU clipped to the window",
    "best": "of the 48 flips and permutations of the samples' axes",
    "warning": "the best is not the identity, reaches least_correlation, beats the identity by the margin, and fits better"
    " inside the bodies alone",
    "margin": "3 delete-one jackknife errors of the difference (by sample and patient), and what it is on real halves",
    "failed": "counted in n; the mean rests on the others",
}


class AxesConfig(FrozenConfig):
    """hu_window: HU that volumes are clipped to. side: boxes of the cube along each axis."""

    hu_window: HUWindow = (-1000, 1000)
    side: int = Field(32, ge=4, description="the volume is averaged into a cube of this many boxes on a side")
    minimum: int = Field(4, ge=4, description="samples, and real patients, below which it is not run")
    least_correlation: float = Field(
        0.5, gt=0, le=1, description="below it the samples are too different to determine their orientation"
    )
    seed: int = Field(0, description="seed of the halves of the real patients")


class Axes:
    """Correlation of the mean sample with the mean real volume, and whether another orientation fits better.

    Flipped or permuted axes invalidate every other number, and most of them do not show it.
    """

    Config: ClassVar[type[AxesConfig]] = AxesConfig
    version: ClassVar[int] = 2
    default: ClassVar[int | None] = 0
    quantities: ClassVar[tuple[Quantity, ...]] = QUANTITIES
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    def __init__(self, config: AxesConfig) -> None:
        self.config = config

    def needs(self) -> Sequence[Need]:
        """Samples and real training volumes, each averaged into a small cube."""
        return [SAMPLES, REAL]

    def plugin_config(self) -> Mapping[str, Any]:
        return {}

    def protocol(self, data: DataProtocol) -> MetricProtocol:
        """Everything that decides its numbers besides the data."""
        text: dict[str, Any] = {
            "config": self.config.model_dump(mode="json"),
            "rules": RULES,
        }
        return MetricProtocol(label=f"cube{self.config.side}", text=text)

    def extract(self, items: Iterable[Item], run: Run) -> Iterator[State]:
        """Per volume {"cube": float32 (side, side, side), mean HU}."""
        from medlord_bench.volumes.arrays import read_hu

        from .match import shrink

        for item in items:
            if item.path is None:
                raise UserError(f"axes: {item.id} failed and has no volume; expected only those that have one")
            yield {"cube": shrink(read_hu(item.path), self.config.hu_window, self.config.side)}

    def reduce(self, inputs: MetricInputs, run: Run) -> Iterable[Score]:
        """One score: the correlation in the samples' own orientation, with a warning if another fits significantly
        better."""
        import numpy as np

        items = inputs.items.get(SAMPLES, ())
        samples, real = _cubes(items), _cubes(inputs.items.get(REAL, ()))
        shared: dict[str, Any] = {"metric": "axes", "protocol": inputs.protocol_id, "generator": inputs.generator}
        shared |= {"dataset": inputs.dataset, "reference": "train", "n": len(items)}
        shared |= {"failed": len(items) - len(samples), "n_reference": sum(map(len, real))}
        reason = self._reason(items, samples, real)
        if not reason and any(not np.ptp(np.concatenate(side).mean(0)) for side in (samples, real)):
            low, high = self.config.hu_window
            reason = f"a mean volume is constant between {low} and {high} HU: it shows no orientation"
        if reason:
            yield Score(status="not_run", reason=reason, **shared)
            return
        from .match import match

        yield self._score(match(samples, real, self.config.seed), shared)

    def _reason(self, items: Sequence[Item], samples: Sequence[Any], real: Sequence[Any]) -> str:
        """Why there can be no value; empty if there is one."""
        least = f"axes needs at least {self.config.minimum}"
        if not items:
            return "the generator has no unconditional samples"
        if len(samples) < self.config.minimum:
            return f"{len(samples)} of {len(items)} samples have a volume; {least}: raise the number of samples"
        if len(real) < self.config.minimum:
            return f"{len(real)} real training patients; {least}"
        return ""

    def _score(self, found: Match, shared: Mapping[str, Any]) -> Score:
        value, best = found.identity, found.best.code
        seen = f"of 48 orientations {best} fits best ({found.correlation:.3f}; RAS, their own, {value.value:.3f})"
        known = found.correlation >= self.config.least_correlation
        caution, warning = "", ""
        if not known:
            caution = f"below {self.config.least_correlation:g} the samples are too different to decide"
        elif found.clear:
            warning = (
                f"the samples seem to be in {best}, not RAS: {seen}, margin {found.margin:.3f}; "
                "look at them, and fix the orientation before reading any other number"
            )
        elif best != "RAS":
            why = (
                f"by less than the margin of {found.margin:.3f}"
                if found.in_body
                else "through air alone, not in the body"
            )
            caution = f"{best} is better {why}: not significant"
        return Score(
            value=value.value,
            low=max(value.low, -1.0),
            high=min(value.high, 1.0),
            interval="95 % delete-one jackknife by volume and patient",
            floor=found.floor,
            floor_n=found.halves,
            floor_note="one half of the real training patients against the other",
            notes=(*notes("context", seen), *notes("caution", caution)),
            warning=warning,
            **shared,
        )


def _cubes(items: Iterable[Item]) -> list[NDArray[np.float32]]:
    """Cubes (k, side, side, side) of each patient, or of each sample."""
    import numpy as np

    from medlord_bench.volumes.arrays import load_state

    groups: dict[str, list[NDArray[np.float32]]] = {}
    for item in items:
        if item.path is not None:
            groups.setdefault(item.patient or item.id, []).append(load_state(item.path)["cube"])
    return [np.stack(cubes) for cubes in groups.values()]
