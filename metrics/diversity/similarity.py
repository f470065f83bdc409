"""Thumbnails in pairs: MS-SSIM of all pairs, and distances of coarse thumbnails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import pdist, squareform
from torch import Tensor
from torch.nn import functional as F

from medlord_bench.volumes.scales import scale_weights

MIDDLE = 0.5
C1, C2 = 0.01**2, 0.03**2  # Wang, Simoncelli & Bovik 2003, for values in [0, 1]
CHUNK_CELLS = 2**20  # of the pairs that are compared at once
COARSE, LEAST_CELLS = 4, 8  # cells that become one along an axis, and cells that remain
Pictures = NDArray[np.float32]


def gaussian(kernel: int, sigma: float) -> list[float]:
    """The weights of a Gaussian window along one axis; they add up to one."""
    weights = np.exp(-(((np.arange(kernel) - (kernel - 1) / 2) / sigma) ** 2) / 2)
    return (weights / weights.sum()).tolist()


def windowed(x: Tensor, weights: Sequence[float]) -> Tensor:
    """Weighted means of (n, X, Y, Z) over windows that lie inside the volume."""
    for axis in (1, 2, 3):
        length = x.shape[axis] - len(weights) + 1
        x = torch.stack([w * x.narrow(axis, i, length) for i, w in enumerate(weights)]).sum(0)
    return x


@dataclass(frozen=True, eq=False)
class _Scale:
    """All volumes at one scale, with the mean and variance of each window: computed once, not once for each pair.

    Values are those in [0, 1] less `MIDDLE`, which keeps variances from being small differences of large numbers.
    """

    volumes: Tensor
    mean: Tensor
    variance: Tensor
    window: Sequence[float]

    @classmethod
    def of(cls, volumes: Tensor, window: Sequence[float]) -> _Scale:
        mean = windowed(volumes, window)
        return cls(volumes, mean, windowed(volumes**2, window) - mean**2, window)

    def similarity(self, one: int, others: slice, luminance: bool) -> Tensor:
        """Mean contrast-structure, times luminance if wanted, of a volume with each of the others."""
        mean, spread = self.mean[one] * self.mean[others], self.variance[one] + self.variance[others]
        together = windowed(self.volumes[one] * self.volumes[others], self.window) - mean
        found = (2 * together + C2) / (spread + C2)
        if luminance:
            a, b = self.mean[one] + MIDDLE, self.mean[others] + MIDDLE
            found = found * (2 * a * b + C1) / (a**2 + b**2 + C1)
        return found.double().mean((1, 2, 3))


@torch.inference_mode()
def ms_ssim_of_pairs(
    pictures: Pictures, window: tuple[int, int], kernel: int, sigma: float, advance: Callable[[], None] = lambda: None
) -> NDArray[np.float64]:
    """MS-SSIM (n, n) of all pairs of thumbnails (n, X, Y, Z) in HU, ones on the diagonal; see `volumes.scales`.

    Windowed moments are computed once for each volume, and the window is separated by axis: 20 to 50 times as fast as
    pair by pair. Memory: three floats for each cell of all volumes, and an eighth more for the coarser scales.
    """
    weights = scale_weights(min(pictures.shape[1:]), kernel)
    x = torch.from_numpy(pictures).clamp(*window).sub(window[0]).div(window[1] - window[0]).sub(MIDDLE)
    scales = [_Scale.of(x, gaussian(kernel, sigma))]
    for _ in weights[1:]:
        x = F.avg_pool3d(x[:, None], 2)[:, 0]
        scales.append(_Scale.of(x, gaussian(kernel, sigma)))
    n, chunk = len(pictures), max(1, CHUNK_CELLS // pictures[0].size)
    found = np.eye(n)
    for i in range(n):
        advance()
        for start in range(i + 1, n, chunk):
            others = slice(start, min(start + chunk, n))
            value = torch.ones(others.stop - start, dtype=torch.float64)
            for scale, weight in zip(scales, weights, strict=True):
                value *= scale.similarity(i, others, luminance=scale is scales[-1]).clamp_min(0.0) ** weight
            found[i, others] = found[others, i] = value.numpy()
    return found


def distances(pictures: Pictures) -> NDArray[np.float64]:
    """(n, n): the distance of each pair of thumbnails (n, X, Y, Z), averaged further by `COARSE`, mean 0 and length 1.

    The root of 2 (1 - correlation): 0 for equal volumes up to an offset and a gain, 1.41 for unrelated ones.
    """
    factors = [COARSE if n >= COARSE * LEAST_CELLS else 2 if n >= 2 * LEAST_CELLS else 1 for n in pictures.shape[1:]]
    coarse = F.avg_pool3d(torch.from_numpy(pictures)[:, None], factors).flatten(1).double().numpy()
    coarse -= coarse.mean(1, keepdims=True)
    length = np.linalg.norm(coarse, axis=1, keepdims=True)
    rows = np.divide(coarse, length, out=np.zeros_like(coarse), where=length > 0)
    return squareform(pdist(rows))
