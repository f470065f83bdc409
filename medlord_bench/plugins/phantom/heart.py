"""The phantom's heart and great vessels, in the frame of the left ventricle's long axis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medlord_bench.plugins.phantom.shapes import (
    Canvas,
    Distance,
    Point,
    beyond,
    both,
    ellipsoid,
    frame,
    spline,
    without,
)

if TYPE_CHECKING:
    from medlord_bench.plugins.phantom.patient import Patient

HEART_RADIUS_MM = 95.0  # mm around the heart's centre that its chambers may occupy


def paint_heart(canvas: Canvas, p: Patient, label: Mapping[str, int]) -> None:
    """Epicardial fat, four chambers, myocardium, aorta, pulmonary artery and the veins, and their labels."""
    axes = _axes(p)
    left, right = p.contrast_left, p.contrast_right
    outer, cavity = _left_ventricle(p, axes)
    rv, la, ra = _other_chambers(p, axes)
    for grown in (_grow(outer, 9), _grow(rv, 11), _grow(la, 6), _grow(ra, 8)):
        canvas.paint_ball(grown, -85.0, label["body"], p.heart, HEART_RADIUS_MM)
    _veins(canvas, p, label["body"])
    canvas.paint_ball(_grow(rv, 3.5), p.myocardium - 10, label["body"], p.heart, HEART_RADIUS_MM)
    canvas.paint_ball(_grow(ra, 2.5), p.myocardium - 20, label["body"], p.heart, HEART_RADIUS_MM)
    canvas.paint_ball(ra, right + 25, label["right_atrium"], p.heart, HEART_RADIUS_MM)
    canvas.paint_ball(la, left + 5, label["left_atrium"], p.heart, HEART_RADIUS_MM)
    canvas.paint_ball(without(rv, outer, 1.0), right, label["right_ventricle"], p.heart, HEART_RADIUS_MM)
    trunk, branches = _pulmonary(p)
    for tube in branches:
        canvas.paint_tube(tube, right + 15, label["pulmonary_artery"])
    canvas.paint_tube(trunk, right + 15, label["pulmonary_artery"])
    canvas.paint_ball(outer, p.myocardium, label["lv_myocardium"], p.heart, HEART_RADIUS_MM)
    aorta = _aorta(p)
    canvas.paint_tube([(point, radius + 1.6) for point, radius in aorta], 60.0, label["body"])
    canvas.paint_ball(outer, p.myocardium, label["lv_myocardium"], p.heart, HEART_RADIUS_MM)
    canvas.paint_tube(aorta, left - 5, label["aorta"])
    canvas.paint_ball(cavity, left, label["left_ventricle"], p.heart, HEART_RADIUS_MM)


def _axes(p: Patient) -> NDArray[np.float64]:
    """Rows: from base to apex (left, anterior, inferior), and two across; rotated by the patient's own angles."""
    turn, tilt = np.deg2rad(p.heart_turn), np.deg2rad(p.heart_tilt)
    flat = np.array([-0.72 * np.cos(turn) + 0.56 * np.sin(turn), 0.56 * np.cos(turn) + 0.72 * np.sin(turn)])
    return frame((flat[0] * np.cos(tilt), flat[1] * np.cos(tilt), -0.42 + np.sin(tilt) * 0.9))


def _at(p: Patient, r: float, a: float, s: float) -> Point:
    """A point given relative to the heart's centre, at the heart's scale."""
    k = p.heart_scale
    return p.heart[0] + k * r, p.heart[1] + k * a, p.heart[2] + k * s


def _grow(shape: Distance, by: float) -> Distance:
    return lambda r, a, s: shape(r, a, s) - np.float32(by)


def _left_ventricle(p: Patient, axes: NDArray[np.float64]) -> tuple[Distance, Distance]:
    """Myocardium with its cavity filled, and the cavity: two ellipsoids cut at the mitral plane."""
    k = p.heart_scale * p.chambers[0]
    centre = _at(p, -14, 2, -4)
    base = tuple(c - 16 * k * x for c, x in zip(centre, axes[0], strict=True))
    cut = beyond((base[0], base[1], base[2]), axes[0])
    inner = ellipsoid(centre, (43 * k, 22 * k, 23 * k), axes)
    outer = ellipsoid(centre, (43 * k + 0.8 * p.wall, 22 * k + p.wall, 23 * k + p.wall), axes)
    return both(outer, cut), both(inner, cut)


def _other_chambers(p: Patient, axes: NDArray[np.float64]) -> tuple[Distance, Distance, Distance]:
    """Right ventricle (before the left is subtracted), left atrium, right atrium."""
    k, (_, rv, la, ra) = p.heart_scale, p.chambers
    right_ventricle = ellipsoid(_at(p, 10, 26, -10), (46 * k * rv, 30 * k * rv, 31 * k * rv), axes)
    left_atrium = ellipsoid(_at(p, 8, -34, 8), (32 * k * la, 19 * k * la, 25 * k * la))
    right_atrium = ellipsoid(_at(p, 50, 2, -4), (21 * k * ra, 25 * k * ra, 31 * k * ra))
    return right_ventricle, left_atrium, right_atrium


def _aorta(p: Patient) -> list[tuple[Point, float]]:
    """Root, ascending part, arch from right-anterior to left-posterior, and the descending part beside the spine."""
    w, back = p.aorta_radius, -0.83 * p.half_depth + 12
    root, rise = _at(p, 4, 2, 14), _at(p, 24, 14, 42)
    points = [
        root,
        rise,
        (12.0, p.heart[1] + 8, p.arch - 8),
        (-6.0, p.heart[1] - 14, p.arch),
        (-20.0, back + 24, p.arch - 14),
        (-25.0, back + 8, p.arch - 48),
        (-24.0, back + 5, -50.0),
        (-14.0, back + 10, -150.0),
    ]
    return spline(points, [1.08 * w, 1.05 * w, 0.98 * w, 0.9 * w, 0.84 * w, 0.8 * w, 0.76 * w, 0.72 * w])


def _pulmonary(p: Patient) -> tuple[list[tuple[Point, float]], list[list[tuple[Point, float]]]]:
    """Trunk from the right ventricle's outflow, and its two branches to the hila."""
    w = p.pulmonary_radius
    split = _at(p, 6, -14, 46)
    trunk = spline([_at(p, -10, 30, 12), _at(p, -12, 20, 30), split], [1.1 * w, 1.1 * w, w])
    right = spline([split, _at(p, 30, -18, 44), _at(p, 62, -22, 36)], [0.85 * w, 0.78 * w, 0.55 * w])
    left = spline([split, _at(p, -18, -24, 48), _at(p, -36, -34, 42)], [0.85 * w, 0.75 * w, 0.55 * w])
    return trunk, [right, left]


def _veins(canvas: Canvas, p: Patient, body: int) -> None:
    """Venae cavae and four pulmonary veins; they have no label of their own."""
    top = _at(p, 46, 0, 22)
    canvas.paint_tube(
        spline([(26.0, top[1] - 2, 140.0), (30.0, top[1], 60.0), top], [9, 9.5, 10]), p.contrast_right + 130, body
    )
    floor = _at(p, 46, -8, -26)
    canvas.paint_tube([(floor, 12.0), ((26.0, floor[1] - 14, -140.0), 12.0)], 105.0, body)
    for side, height in ((1, 20), (1, -6), (-1, 22), (-1, -4)):
        start, end = _at(p, 8 + side * 20, -36, 4 + 0.5 * height), _at(p, 8 + side * 54, -44, 4 + height)
        canvas.paint_tube([(start, 7.0), (end, 5.0)], p.contrast_left - 10, body)
