"""The configuration of the diversity of a set of samples, and its rules."""

from __future__ import annotations

from pydantic import Field, model_validator

from medlord_bench.contracts import FrozenConfig, HUWindow

RULES = {
    "picture": "voxels clipped to the window and averaged in boxes, about `cells` along the longest axis; HU rounded",
    "n": "the same n on both sides, at most `most`: samples, and real training patients with one volume each; seeded subsets",
    "failed": "counted in n; the values rest on the others, and on as many real patients",
    "pair_ms_ssim": "mean MS-SSIM over all pairs of different pictures, Gaussian window, as many of five scales as fit",
    "distance": "root of 2 (1 - correlation) of pictures averaged again, in boxes of four cells where 32 fit",
    "vendi": "order 1, kernel exp(-d^2 / (2 s^2)), s half the median distance of two real patients",
    "distinct_samples": "groups of samples linked by distances below half the median distance of a real patient to the "
    "nearest other",
    "p": "samples and real patients relabelled; of pair_ms_ssim and vendi two-sided; of distinct_samples one-sided, for "
    "the geometric mean distance to the nearest other",
}


class DiversityConfig(FrozenConfig):
    """Which volumes are compared with each other, and how."""

    hu_window: HUWindow = Field((-1000, 1000), description="HU window of real and synthetic volumes")
    cells: int = Field(64, ge=16, description="boxes along the longest axis of the compared thumbnail")
    kernel_size: int = Field(3, ge=3, description="of the Gaussian window of MS-SSIM, in cells; odd")
    kernel_sigma: float = Field(1.5, gt=0, description="of the Gaussian window of MS-SSIM, in cells")
    minimum: int = Field(8, ge=4, description="samples, and real training patients, below which it is not run")
    most: int = Field(100, ge=8, description="volumes on each side that are compared, since pairs grow with the square")
    permutations: int = Field(1000, ge=199, description="relabellings behind the p-values")
    seed: int = Field(0, description="seed of the subsets and relabellings")

    @model_validator(mode="after")
    def _usable(self) -> DiversityConfig:
        if self.kernel_size % 2 == 0:
            raise ValueError("kernel_size: must be odd")
        if self.most < self.minimum:
            raise ValueError(f"most: {self.most} is below minimum, {self.minimum}; expected at least that")
        return self
