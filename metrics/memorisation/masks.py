"""Copies among samples that follow training masks: is a sample nearer to the mask's patient than the mask explains?

A sample that follows the mask of a patient resembles that patient, also without any copy. The control are the samples that
follow the masks of test patients, whose images the generator has not seen: their correlations with those patients are what
masks alone explain, and set the threshold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from medlord_bench import stats
from medlord_bench.contracts import Grid, Item
from medlord_bench.contracts.results import CaseRow, Score, notes

from .audit import Threshold
from .compare import Pictures, patient, whole_stage
from .scores import WILSON, median_of

if TYPE_CHECKING:
    from .config import MemorisationConfig


@dataclass(frozen=True)
class Followed:
    """Correlations of detail of samples with the patients whose masks they follow. ids: the cases of the masks."""

    ids: Sequence[str]
    correlations: Sequence[float]


@dataclass(frozen=True)
class MaskAudit:
    """training, control: samples that follow training masks and test masks. single: one case per patient on both sides."""

    training: Followed
    control: Followed
    rate: float
    single: bool

    @property
    def threshold(self) -> Threshold:
        """Of 1 - correlation: conformal, from the control."""
        return Threshold.of([1 - one for one in self.control.correlations], self.rate, largest=float("inf"))

    def scores(self, common: Mapping[str, Any]) -> Iterator[Score]:
        """`mask_copy_rate` and `mask_correlation`. common: with "n" samples, including "failed" ones."""
        shared = {**common, "n_reference": len(self.control.ids)}
        yield self._rate(shared)
        yield self._correlation(shared)

    def _rate(self, shared: Mapping[str, Any]) -> Score:
        threshold, n = self.threshold, shared["n"]
        copies = sum(1 - one < threshold.value for one in self.training.correlations)
        low, high = stats.wilson(copies, n)
        warning = (
            f"{copies} of {n} samples of training masks resemble the mask's patient more than the mask explains "
            f"({threshold.nominal:.1%} of these would by chance): look at them beside the training volumes"
        )
        rank = f"rank {threshold.rank} of {threshold.n} samples of test masks"
        return Score(
            metric="mask_copy_rate",
            value=copies / n,
            low=low,
            high=high,
            interval=WILSON,
            p=threshold.p_value(copies, len(self.training.ids)) if self.single else None,
            p_of="at least as many among samples of test masks: exact, beta-binomial" if self.single else "",
            floor=threshold.nominal,
            floor_n=threshold.n,
            floor_note=f"the nominal rate: {rank}",
            notes=(
                *notes("definition", f"a copy correlates above {1 - threshold.value:.3g} with the patient of its mask"),
                *notes("caution", "" if self.single else "several cases per patient, so the rate is approximate, no p"),
            ),
            warning=warning if low > threshold.nominal else "",
            **shared,
        )

    def _correlation(self, shared: Mapping[str, Any]) -> Score:
        from scipy.stats import mannwhitneyu

        seen, unseen = self.training.correlations, self.control.correlations
        return Score(
            metric="mask_correlation",
            p=float(mannwhitneyu(seen, unseen, alternative="greater").pvalue) if self.single else None,
            p_of="samples of training masks no nearer to their patients: Mann-Whitney" if self.single else "",
            floor=stats.median_interval(unseen).value,
            floor_n=len(unseen),
            floor_note="median of the samples of test masks with the test patients",
            **median_of(seen),
            **shared,
        )

    def rows(self, generator: str) -> Iterator[CaseRow]:
        """`mask_correlation` of each sample, of training masks and then of test masks; `against` is the mask's case."""
        for side in (self.training, self.control):
            for id, value in zip(side.ids, side.correlations, strict=True):
                yield CaseRow(metric="mask_correlation", generator=generator, case=id, against=id, value=value)


def compare_masks(
    sides: Mapping[str, Sequence[Item]], grid: Grid, config: MemorisationConfig, advance: Callable[[], None]
) -> MaskAudit:
    """The audit of `sides` (source to items with states). A sample has the id of its mask's case."""
    pictures = Pictures(grid.shape, config)

    def followed(samples: Sequence[Item], real: Sequence[Item]) -> Followed:
        own = {item.id: item for item in real}
        both = [item for item in samples if item.id in own]
        values = []
        for item in both:
            stage = whole_stage(pictures, [own[item.id]], grid, config)
            advance()
            values.append(float(stage.find(pictures.whole(item)).likeness.max()))
            advance()
        return Followed([item.id for item in both], values)

    training = followed(sides["training-samples:train"], sides["real:train"])
    control = followed(sides["conditional:test"], sides["real:test"])
    single = all(len({patient(one) for one in side}) == len(side) for side in (sides["real:train"], sides["real:test"]))
    return MaskAudit(training, control, config.rate, single)
