"""From the pairs of pictures to the scores: samples beside as many real patients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medlord_bench import stats
from medlord_bench.contracts.results import Score, notes
from medlord_bench.stats import diversity

from .config import DiversityConfig

NOTICED_P = 0.01  # p below it gives a warning
SAME_SHARE = 0.5  # of the distance of real patients to the nearest other: below it two volumes count as one
KERNEL_SHARE = 0.5  # of the median distance of two real patients: the width of the Vendi score's kernel
NAMED = 4  # samples of a group that a note names


@dataclass(frozen=True, eq=False)
class Sets:
    """All pairs of n samples, then n real patients.

    similarity: MS-SSIM (2n, 2n), or None if the thumbnail has fewer than two scales. scales: how many it has. distance:
    (2n, 2n). ids: of the samples.
    """

    ids: Sequence[str]
    similarity: stats.Matrix | None
    scales: int
    distance: stats.Matrix
    config: DiversityConfig

    @property
    def n(self) -> int:
        return len(self.ids)

    def scores(self, common: Mapping[str, Any]) -> Iterator[Score]:
        """`distinct_samples`, `vendi`, `pair_ms_ssim`; common: the fields that they share."""
        about = {"floor_n": len(self.distance) - self.n, **common}
        yield self._distinct(about)
        yield self._vendi(about)
        yield self._pair_ms_ssim(about)

    def _p(self, statistic: diversity.Statistic, pairs: stats.Matrix, name: str) -> tuple[float, float]:
        config = self.config
        return diversity.relabelled(statistic, pairs, self.n, config.seed, config.permutations, name)

    def _distinct(self, about: Mapping[str, Any]) -> Score:
        samples, real = self.distance[: self.n, : self.n], self.distance[self.n :, self.n :]
        nearest = (real + np.diag(np.full(len(real), np.inf))).min(1)
        threshold = SAME_SHARE * float(np.median(nearest))
        found, others = diversity.groups(samples, threshold), diversity.groups(real, threshold)
        p, _ = self._p(diversity.nearest_distance, self.distance, "distinct_samples")
        warning = ""
        if p < NOTICED_P:
            warning = (
                f"samples are more alike than patients are: {len(found)} of {self.n} samples are distinct, {len(others)} of "
                f"{len(real)} real patients; look at samples beside each other"
            )
        alike = [group for group in found if len(group) > 1]
        largest = ", ".join(self.ids[i] for i in alike[0][:NAMED]) if alike else ""
        return Score(
            metric="distinct_samples",
            value=len(found),
            p=p,
            p_of="samples as far from the nearest other as real patients are: relabelling, one-sided",
            floor=len(others),
            floor_note="real training patients that are distinct by the same rule",
            notes=(
                *notes("definition", f"of {self.n}: samples nearer than {threshold:.3g} count as one"),
                *notes(
                    "context",
                    f"{len(alike)} groups of equal samples, the largest {len(alike[0])}: {largest}" if alike else "",
                ),
            ),
            warning=warning,
            **about,
        )

    def _vendi(self, about: Mapping[str, Any]) -> Score:
        above = np.triu_indices(len(self.distance) - self.n, 1)
        width = KERNEL_SHARE * float(np.median(self.distance[self.n :, self.n :][above]))
        kernel = np.exp(-(self.distance**2) / (2 * width**2))
        found = diversity.of_one_set(diversity.vendi_score, kernel[: self.n, : self.n])
        lower, higher = self._p(diversity.vendi_score, kernel, "vendi")
        floor, p = float(diversity.vendi_score(kernel[self.n :, self.n :])), min(1.0, 2 * min(lower, higher))
        warning = ""
        if p < NOTICED_P and lower < higher:
            warning = f"{self.n} samples are as varied as {found.value:.1f} different ones, as many real patients as {floor:.1f}"
        return Score(
            metric="vendi",
            value=found.value,
            low=max(found.low, 1.0),
            high=min(found.high, float(self.n)),
            interval="95 % delete-one jackknife by sample",
            p=p,
            p_of="samples and real training patients equally varied: relabelling, two-sided",
            floor=floor,
            floor_note="as many real training patients",
            notes=(
                *notes(
                    "definition",
                    f"of {self.n}, kernel width {width:.3g}: half the median distance of two real patients",
                ),
                *notes("caution", "grows with n; noise has the largest value"),
            ),
            warning=warning,
            **about,
        )

    def _pair_ms_ssim(self, about: Mapping[str, Any]) -> Score:
        if self.similarity is None:
            shared = {key: value for key, value in about.items() if key != "floor_n"}
            return Score(
                metric="pair_ms_ssim",
                status="not_run",
                reason=f"a grid of fewer than two scales: MS-SSIM needs {2 * self.config.kernel_size} cells on each side",
                **shared,
            )
        found = diversity.of_one_set(diversity.mean_of_pairs, self.similarity[: self.n, : self.n])
        real = diversity.of_one_set(diversity.mean_of_pairs, self.similarity[self.n :, self.n :])
        lower, higher = self._p(diversity.mean_of_pairs, self.similarity, "pair_ms_ssim")
        p, warning = min(1.0, 2 * min(lower, higher)), ""
        if p < NOTICED_P and higher < lower:
            warning = f"samples are more alike than real patients are: MS-SSIM {found.value:.3f}, {real.value:.3f} between patients"
        return Score(
            metric="pair_ms_ssim",
            value=found.value,
            low=max(found.low, 0.0),
            high=min(found.high, 1.0),
            interval="95 % delete-one jackknife by sample",
            p=p,
            p_of="samples and real training patients equally alike: relabelling, two-sided",
            floor=real.value,
            floor_note=f"between as many real training patients, 95 % {max(real.low, 0.0):.3f} to {min(real.high, 1.0):.3f}",
            notes=(
                *notes(
                    "definition", f"mean over {self.n * (self.n - 1) // 2} pairs, {self.scales} scales of thumbnails"
                ),
                *notes("caution", "diversity, not fidelity: noise has the lowest value"),
            ),
            warning=warning,
            **about,
        )
