"""Which of the 48 orientations fits the real volumes best, and whether by more than chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations, product

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes

from medlord_bench import stats
from medlord_bench.util.seeds import numpy_rng

Cube = NDArray[np.float32]  # (side, side, side)
Rows = NDArray[np.float64]  # (n, side^3)
LETTERS = (("R", "L"), ("A", "P"), ("S", "I"))
TISSUE_HU = -500.0  # HU of a box's mean above which it is tissue
MIN_SHARED_BODY = 0.02  # of the cube
MIN_STANDARD_ERRORS = 3.0  # standard errors by which another orientation must beat the identity


@dataclass(frozen=True)
class Orientation:
    """A possible orientation of a volume: its axis i runs along patient axis `axes[i]` (R, A, S), backwards if
    `flips[i]`."""

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    @property
    def code(self) -> str:
        """The directions of its axes, e.g. "RAS" or "LAS"."""
        return "".join(LETTERS[axis][flip] for axis, flip in zip(self.axes, self.flips, strict=True))

    def to_ras(self, cube: NDArray) -> NDArray:
        """A cube in this orientation, reoriented to R, A, S."""
        turned = np.flip(cube, tuple(i for i, flip in enumerate(self.flips) if flip))
        return turned.transpose(np.argsort(self.axes))

    def from_ras(self, cube: NDArray) -> NDArray:
        """A cube in R, A, S, reoriented to this one: the inverse of `to_ras`."""
        return np.flip(cube.transpose(self.axes), tuple(i for i, flip in enumerate(self.flips) if flip))


# The identity is first: in a tie, the first is taken.
ORIENTATIONS = tuple(
    Orientation(axes, flips)  # type: ignore[arg-type]
    for axes in permutations(range(3))
    for flips in product((False, True), repeat=3)
)


def shrink(hu: NDArray[np.int16], window: tuple[int, int], side: int) -> Cube:
    """The field of view as float32 (side, side, side): means over boxes of HU clipped to `window`.

    Boxes may cut through voxels and are smaller than one voxel if the grid is coarser. Every axis is stretched to the
    same length, so that orientations that swap axes can be compared. Memory grows with a plane, not with the volume.
    """
    along_x, along_y, along_z = (_box_means(length, side) for length in hu.shape)
    thin = np.stack([along_y @ plane.clip(*window).astype(np.float32) @ along_z.T for plane in hu])
    cube: Cube = np.tensordot(along_x, thin, axes=1).astype(np.float32)
    return cube


def _box_means(length: int, side: int) -> Cube:
    """(side, length): the weight of each voxel in each of `side` equal boxes of a line."""
    ends = np.linspace(0, length, side + 1)
    voxels = np.arange(length)
    overlap = np.minimum(ends[1:, None], voxels + 1) - np.maximum(ends[:-1, None], voxels)
    weights: Cube = (overlap.clip(0) * side / length).astype(np.float32)
    return weights


@dataclass(frozen=True)
class Match:
    """Correlations of the mean sample with the mean real volume.

    identity: with its jackknife. best: the orientation that fits best; it has `correlation`, and must exceed the
    identity by `margin` to be significant. in_body: whether it also fits better than the identity inside the bodies
    alone, so that air in another place is no sign of another orientation. floor: one half of the real patients against
    the other; halves: volumes in the smaller half.
    """

    identity: stats.Jackknife
    best: Orientation
    correlation: float
    margin: float
    in_body: bool
    floor: float
    halves: int

    @property
    def clear(self) -> bool:
        """Whether another orientation than the identity fits better by more than the margin."""
        return self.in_body and self.correlation - self.identity.value > self.margin


def match(samples: Sequence[NDArray], real: Sequence[NDArray], seed: int) -> Match:
    """Compare mean volumes in all 48 orientations. samples, real: per sample and per patient, cubes (k, s, s, s).

    The margin is `MIN_STANDARD_ERRORS` delete-one jackknife errors (by sample and patient) of the difference between
    the best orientation and the identity, and, if one half of the real patients fits the other better in that
    orientation, plus that difference: a symmetric set must not cause a warning. Needs four of each.
    """
    mean_sample, mean_real = mean_cube(samples), mean_cube(real)
    as_ras = _unit(np.stack([one.to_ras(mean_sample) for one in ORIENTATIONS]))
    as_samples = _unit(np.stack([one.from_ras(mean_real) for one in ORIENTATIONS]))
    found = as_ras @ _unit(mean_real[None])[0]
    best = int(found.argmax())
    sides = [_without_each(samples) @ as_samples.T, _without_each(real) @ as_ras.T]
    apart = stats.jackknife(found[best] - found[0], *(side[:, best] - side[:, 0] for side in sides))
    order = numpy_rng(seed, "axes", "halves").permutation(len(real))
    halves = [[real[i] for i in part] for part in np.array_split(order, 2)]
    one, other = (_unit(mean_cube(half)[None])[0].reshape(mean_real.shape) for half in halves)
    same, turned = (float((ORIENTATIONS[i].to_ras(one) * other).sum()) for i in (0, best))
    return Match(
        stats.jackknife(found[0], *(side[:, 0] for side in sides)),
        ORIENTATIONS[best],
        float(found[best]),
        MIN_STANDARD_ERRORS * apart.error + max(turned - same, 0.0),
        _in_body(ORIENTATIONS[best].to_ras(mean_sample), mean_real) > _in_body(mean_sample, mean_real),
        same,
        min(sum(map(len, half)) for half in halves),
    )


def _in_body(sample: NDArray, real: NDArray) -> float:
    """Correlation of two mean volumes where both are body, lungs included; -1 if that is too little to tell."""
    both = _body(sample) & _body(real)
    if both.mean() < MIN_SHARED_BODY:
        return -1.0
    one, other = _unit(np.stack([sample[both], real[both]]))
    return float(one @ other)


def _body(cube: NDArray) -> NDArray[np.bool_]:
    """Boxes of tissue, and what they enclose in their plane along the third axis."""
    tissue = cube > TISSUE_HU
    filled: NDArray[np.bool_] = np.stack([binary_fill_holes(tissue[..., z]) for z in range(cube.shape[2])], axis=2)
    return filled


def mean_cube(groups: Sequence[NDArray]) -> NDArray[np.float64]:
    """The mean of all cubes of all groups."""
    total: NDArray[np.float64] = np.sum([group.sum(0, dtype=np.float64) for group in groups], axis=0)
    return total / sum(map(len, groups))


def _without_each(groups: Sequence[NDArray]) -> Rows:
    """Unit rows (groups, s^3): the mean without each group in turn."""
    count, total = sum(map(len, groups)), mean_cube(groups) * sum(map(len, groups))
    return np.concatenate([_unit(((total - group.sum(0)) / (count - len(group)))[None]) for group in groups])


def _unit(cubes: NDArray) -> Rows:
    """Cubes (n, s, s, s) as rows of mean 0 and length 1, so that products are correlations; 0 for a constant cube."""
    rows = cubes.reshape(len(cubes), -1).astype(np.float64)
    rows -= rows.mean(1, keepdims=True)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Rows = np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
    return unit
