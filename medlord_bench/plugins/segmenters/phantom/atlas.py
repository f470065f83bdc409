"""The atlas: phantoms generated from their own seed, statistics of their labels, and their similarity to a volume."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom

from medlord_bench.contracts import Shape
from medlord_bench.plugins.datasets.phantom.dataset import FIELD_OF_VIEW
from medlord_bench.plugins.phantom.anatomy import render
from medlord_bench.plugins.phantom.labels import LABELS
from medlord_bench.plugins.phantom.patient import draw
from medlord_bench.util.files import publish_once

GRID: Shape = (64, 64, 48)  # the prior is smooth: it is resampled to other grids
HU_BINS = np.arange(-1100.0, 1500.0, 20.0)  # HU
VOTING_PHANTOMS = 48  # phantoms that vote
WINDOW_SIGMA_VOXELS = 2.5  # width of the window for local comparison, voxels
SIMILARITY_EXPONENT = 4.0  # exponent of the similarity that weights the votes
NOISE_HU = 25.0  # differences of this size are treated as noise
PRIOR_BLUR_VOXELS = 0.6  # cells


@dataclass(frozen=True)
class View:
    """A part of the grid in one HU window. coarse: voxels per cell. reach: largest shift of a phantom in cells."""

    part: tuple[slice, slice, slice]
    window: tuple[float, float]
    coarse: int
    reach: int


TRUNK = View((slice(None), slice(None), slice(None)), (-1000.0, 500.0), 2, 3)
HEART = View((slice(10, 54), slice(12, 58), slice(4, 44)), (-150.0, 300.0), 1, 5)
VIEWS = (TRUNK, HEART)

Image = NDArray[np.float32]
Shift = tuple[int, int, int]


@dataclass(frozen=True)
class Atlas:
    """Phantoms on `GRID`.

    labels: uint8 (n, X, Y, Z). pictures: view -> (n, x, y, z), the compared images. likelihood: (labels, bins), of HU.
    residual: (labels, bins), of HU minus the region's own level in the phantom.
    """

    labels: NDArray[np.uint8]
    pictures: tuple[Image, ...]
    likelihood: NDArray[np.float64]
    residual: NDArray[np.float64]

    @staticmethod
    def stored(path: Path, count: int, seed: int) -> Atlas:
        """The atlas of an .npz file, which the first of several processes makes; read once per process."""
        if (count, seed) not in _read:
            publish_once(path, lambda temporary: Atlas.make(count, seed).save(temporary))
            _read[count, seed] = Atlas.load(path)
        return _read[count, seed]

    @staticmethod
    def load(path: Path) -> Atlas:
        with np.load(path) as file:
            pictures = tuple(file[f"pictures_{place}"] for place in range(len(VIEWS)))
            return Atlas(file["labels"], pictures, file["likelihood"], file["residual"])

    def save(self, path: Path) -> None:
        pictures: dict[str, Any] = {f"pictures_{place}": one for place, one in enumerate(self.pictures)}
        np.savez(path, labels=self.labels, likelihood=self.likelihood, residual=self.residual, **pictures)

    @staticmethod
    def make(count: int, seed: int) -> Atlas:
        """Generate the phantoms: takes some seconds."""
        x, y, z = (side / n for side, n in zip(FIELD_OF_VIEW, GRID, strict=True))
        labels, volumes = [], []
        counts, residuals = np.ones((2, max(LABELS) + 1, len(HU_BINS) - 1))
        for index in range(count):
            hu, label = render(draw(seed, index), GRID, (x, y, z))
            for value in range(len(counts)):
                inside = hu[label == value]
                counts[value] += np.histogram(inside, HU_BINS)[0]
                residuals[value] += np.histogram(inside - np.median(inside), HU_BINS)[0]
            labels.append(label)
            volumes.append(hu)
        pictures = tuple(np.stack([seen(hu, view) for hu in volumes]) for view in VIEWS)
        counts, residuals = (table / table.sum(1, keepdims=True) for table in (counts, residuals))
        return Atlas(np.stack(labels), pictures, counts, residuals)

    def prior(self, hu: Image) -> Image:
        """The prior of each label at each voxel of `GRID`, (labels, X, Y, Z), given a volume on `GRID`.

        The most similar phantoms vote, each shifted to its best fit; votes are weighted by similarity. The trunk view
        decides everywhere except inside the heart's box, where the heart view does.
        """
        prior = np.stack(
            [zoom(vote, VIEWS[0].coarse, order=1, grid_mode=True, mode="nearest") for vote in self._votes(hu, 0)]
        )
        prior[(slice(None), *HEART.part)] = self._votes(hu, 1)
        return prior

    def _votes(self, hu: Image, place: int) -> Image:
        """Votes of the phantoms in the view's part, each weighted voxel by voxel by its local similarity."""
        view, picture = VIEWS[place], seen(hu, VIEWS[place])
        pictures, all_labels = self._bordered[place]
        fits = [_best_shift(picture, other, view.reach) for other in pictures]
        votes = np.zeros((max(LABELS) + 1, *picture.shape), np.float32)
        cells = np.arange(picture.size)
        for index in np.argsort([apart for apart, _ in fits])[:VOTING_PHANTOMS]:
            shift = fits[index][1]
            apart = gaussian_filter(
                (picture - _moved(pictures[index], shift, view.reach)) ** 2, WINDOW_SIGMA_VOXELS / view.coarse
            )
            weight = (apart + NOISE_HU**2) ** -SIMILARITY_EXPONENT
            x, y, z = (view.coarse * step for step in shift)
            labels = _moved(all_labels[index], (x, y, z), view.coarse * view.reach)[view.part]
            labels = labels[:: view.coarse, :: view.coarse, :: view.coarse]
            votes.reshape(len(votes), -1)[labels.ravel(), cells] += weight.ravel()
        votes /= votes.sum(0)
        smooth = np.stack([gaussian_filter(vote, PRIOR_BLUR_VOXELS) for vote in votes]) + 1e-4
        result: Image = smooth / smooth.sum(0)
        return result

    @cached_property
    def _bordered(self) -> list[tuple[Image, NDArray[np.uint8]]]:
        """Of each view, pictures and labels with their borders replicated as far as phantoms are shifted."""
        return [
            (_with_border(pictures, view.reach), _with_border(self.labels, view.coarse * view.reach))
            for view, pictures in zip(VIEWS, self.pictures, strict=True)
        ]


_read: dict[tuple[int, int], Atlas] = {}


def seen(hu: NDArray[np.float32], view: View) -> Image:
    """The part of a volume on `GRID` that a view shows: HU clipped to its window, averaged in its cells."""
    part = np.clip(hu[view.part], *view.window)
    x, y, z = (n // view.coarse for n in part.shape)
    c = view.coarse
    picture: Image = part[: x * c, : y * c, : z * c].reshape(x, c, y, c, z, c).mean((1, 3, 5)).astype(np.float32)
    return picture


def _best_shift(picture: Image, bordered: Image, reach: int) -> tuple[float, Shift]:
    """(mean squared difference, shift in cells) of a picture with its border registered to `picture`; coordinate-wise
    descent."""
    tried: dict[Shift, float] = {}

    def apart(shift: Shift) -> float:
        if shift not in tried:
            tried[shift] = float(np.mean((picture - _moved(bordered, shift, reach)) ** 2))
        return tried[shift]

    best: Shift = (0, 0, 0)
    for _ in range(2):
        for axis in range(3):
            for step in (-1, 1):
                while abs(best[axis] + step) <= reach:
                    x, y, z = (place + step * (i == axis) for i, place in enumerate(best))
                    if apart((x, y, z)) >= apart(best):
                        break
                    best = (x, y, z)
    return apart(best), best


def _with_border(values: NDArray[Any], cells: int) -> NDArray[Any]:
    """Arrays (n, X, Y, Z) with their borders replicated."""
    return np.pad(values, [(0, 0)] + 3 * [(cells, cells)], mode="edge")


def _moved(bordered: NDArray[Any], shift: Shift, border: int) -> NDArray[Any]:
    """An array without its border, shifted by whole cells, at most `border`."""
    return bordered[tuple(slice(border - s, n - border - s) for s, n in zip(shift, bordered.shape, strict=True))]
