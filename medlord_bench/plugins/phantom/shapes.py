"""Analytic shapes as signed distances in mm, and a canvas that paints them with partial volume.

A distance is negative inside. Shapes are painted one over another; a voxel's HU is mixed by the fraction that the
shape covers, its label is the last shape that covers half of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Point = tuple[float, float, float]
Distance = Callable[[Array, Array, Array], Array]
FAR_MM = np.float32(1e3)


def _ray(q: Array, f: Array) -> Array:
    """Distance to a star-shaped surface along the ray from its centre: |q| (1 - 1 / f), f = 1 on the surface."""
    return np.asarray(q - q / np.maximum(f, np.float32(1e-3)), dtype=np.float32)


def superellipse(r: Array, a: Array, half_r: Array | float, half_a: Array | float, power: float = 2.0) -> Array:
    """Distance to a column |r / half_r|^p + |a / half_a|^p = 1, measured in the plane."""
    u, v = np.abs(r / half_r).astype(np.float32), np.abs(a / half_a).astype(np.float32)
    f = np.sqrt(u * u + v * v) if power == 2.0 else (u**power + v**power) ** np.float32(1 / power)
    return _ray(np.sqrt(r * r + a * a), f)


def frame(along: Sequence[float], up: Sequence[float] = (0.0, 0.0, 1.0)) -> NDArray[np.float64]:
    """A rotation whose first row points `along`, its third as close to `up` as possible."""
    first = np.asarray(along, dtype=np.float64) / np.linalg.norm(along)
    second = np.cross(np.asarray(up, dtype=np.float64), first)
    second /= np.linalg.norm(second)
    return np.stack([first, second, np.cross(first, second)])


def ellipsoid(centre: Point, radii: Point, axes: NDArray[np.float64] | None = None) -> Distance:
    """An ellipsoid with its radii along the rows of `axes` (R, A, S if there are none)."""
    rows = np.eye(3) if axes is None else axes

    def distance(r: Array, a: Array, s: Array) -> Array:
        p, q, t = np.float32(r - centre[0]), np.float32(a - centre[1]), np.float32(s - centre[2])
        f = np.float32(0)
        for (x, y, z), radius in zip(rows.astype(np.float32), radii, strict=True):
            f = f + ((p * x + q * y + t * z) / np.float32(radius)) ** 2
        return _ray(np.sqrt(p * p + q * q + t * t), np.sqrt(f))

    return distance


def beyond(point: Point, normal: Sequence[float]) -> Distance:
    """The half space on the side of `point` that `normal` points to."""
    n = np.asarray(normal, dtype=np.float32) / np.float32(np.linalg.norm(normal))

    def distance(r: Array, a: Array, s: Array) -> Array:
        height = (r - point[0]) * n[0] + (a - point[1]) * n[1] + (s - point[2]) * n[2]
        return np.asarray(-height, dtype=np.float32)

    return distance


def both(first: Distance, second: Distance) -> Distance:
    """The intersection of two shapes."""
    return lambda r, a, s: np.maximum(first(r, a, s), second(r, a, s))


def without(first: Distance, second: Distance, gap: float = 0.0) -> Distance:
    """The first shape minus the second, which is enlarged by `gap` mm."""
    return lambda r, a, s: np.maximum(first(r, a, s), gap - second(r, a, s))


def spline(points: Sequence[Point], radii: Sequence[float], steps: int = 5) -> list[tuple[Point, float]]:
    """A Catmull-Rom curve through `points`, as nodes with radii, `steps` per span."""
    p = np.array([points[0], *points, points[-1]], dtype=np.float64)
    nodes: list[tuple[Point, float]] = []
    for i in range(1, len(points)):
        for t in np.arange(steps) / steps:
            b, c, d = p[i + 1] - p[i - 1], 2 * p[i - 1] - 5 * p[i] + 4 * p[i + 1] - p[i + 2], 0.0
            d = -p[i - 1] + 3 * p[i] - 3 * p[i + 1] + p[i + 2]
            x, y, z = 0.5 * (2 * p[i] + b * t + c * t * t + d * t**3)
            nodes.append(((x, y, z), radii[i - 1] * (1 - t) + radii[i] * t))
    return [*nodes, (points[-1], radii[-1])]


class Canvas:
    """HU (float32) and labels (uint8) on a grid, with the patient's coordinates of every voxel centre in mm.

    The patient is centred on `shift` (R, A, S, mm) and rotated by `roll` radians about the long axis.
    """

    def __init__(self, shape: tuple[int, int, int], spacing: Point, shift: Point, roll: float, air: float) -> None:
        x, y, z = ((np.arange(n) - (n - 1) / 2) * h - c for n, h, c in zip(shape, spacing, shift, strict=True))
        cos, sin = np.cos(roll), np.sin(roll)
        self.r = (cos * x[:, None, None] + sin * y[None, :, None]).astype(np.float32)
        self.a = (-sin * x[:, None, None] + cos * y[None, :, None]).astype(np.float32)
        self.s = z[None, None, :].astype(np.float32)
        self.hu = np.full(shape, air, dtype=np.float32)
        self.labels = np.zeros(shape, dtype=np.uint8)
        self.soft = np.float32(max(float(np.prod(spacing)) ** (1 / 3), 0.5))  # width of the transition at an edge, mm
        self._axes, self._turn = (x, y, z), np.array([[cos, -sin], [sin, cos]])

    def window(self, low: Point, high: Point) -> tuple[slice, slice, slice]:
        """The voxels of a box of patient coordinates, plus one edge transition."""
        corners = np.array([[r, a] for r in (low[0], high[0]) for a in (low[1], high[1])]) @ self._turn.T
        ends = [(corners[:, 0].min(), corners[:, 0].max()), (corners[:, 1].min(), corners[:, 1].max())]
        margin = float(self.soft)
        slices = [
            slice(int(np.searchsorted(axis, lo - margin)), int(np.searchsorted(axis, hi + margin)))
            for axis, (lo, hi) in zip(self._axes, [*ends, (low[2], high[2])], strict=True)
        ]
        return slices[0], slices[1], slices[2]

    def paint(
        self,
        shape: Distance | Array,
        hu: float | Array,
        label: int | None = None,
        box: tuple[Point, Point] | None = None,
    ) -> None:
        """Paint a shape. box: its bounds in patient coordinates; label None leaves the labels unchanged."""
        at = self.window(*box) if box else (slice(None),) * 3
        distance = shape(self.r[at[:2]], self.a[at[:2]], self.s[:, :, at[2]]) if callable(shape) else shape
        cover = np.clip(np.float32(0.5) - distance / self.soft, 0, 1)
        part = self.hu[at]
        part += cover * (hu - part)
        if label is not None:
            self.labels[at][np.broadcast_to(cover >= 0.5, part.shape)] = label

    def paint_ball(self, shape: Distance, hu: float, label: int | None, centre: Point, reach: float) -> None:
        """Paint a shape within `reach` mm of `centre`."""
        low, high = (tuple(c + sign * reach for c in centre) for sign in (-1, 1))
        self.paint(shape, hu, label, ((low[0], low[1], low[2]), (high[0], high[1], high[2])))

    def paint_tube(self, nodes: Sequence[tuple[Point, float]], hu: float, label: int | None = None) -> None:
        """Paint a tube along `nodes`, its radius changing linearly between them."""
        for (p, rp), (q, rq) in zip(nodes, nodes[1:], strict=False):
            reach = max(rp, rq)
            low = tuple(min(u, v) - reach for u, v in zip(p, q, strict=True))
            high = tuple(max(u, v) + reach for u, v in zip(p, q, strict=True))
            self.paint(_cone(p, q, rp, rq), hu, label, ((low[0], low[1], low[2]), (high[0], high[1], high[2])))


def _cone(p: Point, q: Point, rp: float, rq: float) -> Distance:
    way = np.asarray(q, dtype=np.float32) - np.asarray(p, dtype=np.float32)
    square = float(way @ way) or 1.0

    def distance(r: Array, a: Array, s: Array) -> Array:
        u, v, w = r - np.float32(p[0]), a - np.float32(p[1]), s - np.float32(p[2])
        t = np.clip((u * way[0] + v * way[1] + w * way[2]) / np.float32(square), 0, 1)
        u, v, w = u - t * way[0], v - t * way[1], w - t * way[2]
        return np.asarray(np.sqrt(u * u + v * v + w * w) - (rp + t * np.float32(rq - rp)), dtype=np.float32)

    return distance
