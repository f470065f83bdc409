"""The rule of Dar et al. 2025 (arXiv 2402.01054): a sample is a copy if its correlation with a training volume is above
the 95th percentile of the correlations between training volumes and their nearest validation volumes.

They correlate embeddings of a network that is trained on the training set; here it is the detail of the registered
whole volumes. The rule does not fix how many unseen patients it calls copies: the floor measures that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from medlord_bench import stats
from medlord_bench.contracts import Grid, Item
from medlord_bench.contracts.results import CaseRow, Score, notes

from .compare import Pictures, whole_stage

if TYPE_CHECKING:
    from .config import MemorisationConfig
    from .matching import Matcher

PERCENTILE = 95
WILSON = "95 % Wilson interval"


@dataclass(frozen=True)
class DarAudit:
    """samples: (id, training volume, correlation) of each. held_out: correlations of test volumes with their nearest
    training volume. threshold: from `references` training volumes."""

    samples: Sequence[tuple[str, str, float]]
    held_out: Sequence[float]
    threshold: float
    training: int

    def scores(self, common: Mapping[str, Any]) -> Iterator[Score]:
        """`dar_copy_rate` and `dar_memorised_share`. common: with "n" samples, including "failed" ones."""
        copied = [one for one in self.samples if one[2] > self.threshold]
        floor: dict[str, Any] = {"floor_note": "no floor: no test volumes"}
        if self.held_out:
            called = sum(one > self.threshold for one in self.held_out)
            floor = {
                "floor": called / len(self.held_out),
                "floor_n": len(self.held_out),
                "floor_note": f"{called} of {len(self.held_out)} test volumes are above the threshold",
            }
        definition = notes(
            "definition",
            f"a copy correlates above {self.threshold:.3g} with a training volume: the {PERCENTILE}th percentile of "
            f"{self.training} training volumes with their nearest validation volume (Dar et al. 2025); correlation of "
            "registered detail instead of their trained embedding",
        )
        shared = {**common, "n_reference": self.training, "notes": definition}
        trained = len({training for _, training, _ in copied})
        for metric, count, n, own in (
            ("dar_copy_rate", len(copied), common["n"], floor),
            ("dar_memorised_share", trained, self.training, {"floor_note": "see dar_copy_rate"}),
        ):
            low, high = stats.wilson(count, n)
            yield Score(metric=metric, value=count / n, low=low, high=high, interval=WILSON, **own, **shared)

    def rows(self, generator: str) -> Iterator[CaseRow]:
        """`dar_correlation` of each sample with its nearest training volume."""
        for id, training, value in self.samples:
            yield CaseRow(metric="dar_correlation", generator=generator, case=id, against=training, value=value)


def compare_dar(
    sides: Mapping[str, Sequence[Item]], grid: Grid, config: MemorisationConfig, advance: Callable[[], None]
) -> DarAudit:
    """The audit of `sides` (source to items with states) by this rule; needs training and validation volumes."""
    pictures = Pictures(grid.shape, config)
    training = sides["real:train"]

    def best(stage: Matcher, item: Item) -> tuple[int, float]:
        advance()
        found = stage.find(pictures.whole(item))
        nearest = int(found.likeness.argmax())
        return int(found.training[nearest]), float(found.likeness[nearest])

    validation = whole_stage(pictures, sides["real:val"], grid, config)
    correlations = [best(validation, item)[1] for item in training]
    stage = whole_stage(pictures, training, grid, config)
    found = [(item.id, *best(stage, item)) for item in sides["samples"]]
    return DarAudit(
        [(id, training[nearest].id, value) for id, nearest, value in found],
        [best(stage, item)[1] for item in sides["real:test"]],
        float(np.percentile(correlations, PERCENTILE)),
        len(training),
    )
