"""The patients of the procedural phantom: their variable parameters."""

from __future__ import annotations

from dataclasses import dataclass

from medlord_bench.plugins.phantom.shapes import Point
from medlord_bench.util.seeds import numpy_rng


@dataclass(frozen=True)
class Patient:
    """The parameters that vary between patients: lengths in mm, angles in degrees, HU. Ranges are in `draw`."""

    seed: int
    female: bool
    half_width: float
    half_depth: float
    roundness: float
    fat: float
    breast: float
    apex: float
    dome_right: float
    dome_left: float
    rib_step: float
    rib_slope: float
    rib_phase: float
    kyphosis: float
    scoliosis: float
    disc_phase: float
    heart: Point
    heart_scale: float
    heart_turn: float
    heart_tilt: float
    wall: float
    chambers: tuple[float, float, float, float]
    aorta_radius: float
    arch: float
    pulmonary_radius: float
    contrast_left: float
    contrast_right: float
    myocardium: float
    lung: float
    bone: float
    liver: float
    gas: float
    roll: float
    shift: Point
    table: float
    kernel: float
    noise: float


def draw(seed: int, index: int) -> Patient:
    """The patient of this number. Independent of the grid and of every other patient."""
    rng = numpy_rng(seed, "phantom", index)

    def u(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    female = bool(rng.random() < 0.5)
    size = u(0.86, 1.04) * (0.94 if female else 1.0)
    return Patient(
        seed=int(rng.integers(2**31)),
        female=female,
        half_width=126 * size * u(0.96, 1.04),
        half_depth=88 * size * u(0.92, 1.08),
        roundness=u(2.1, 2.7),
        fat=u(6, 26),
        breast=u(18, 42) if female else 0.0,
        apex=u(108, 124),
        dome_right=u(-74, -48),
        dome_left=u(-82, -60),
        rib_step=u(23, 28),
        rib_slope=u(38, 62),
        rib_phase=u(0, 1),
        kyphosis=u(6, 20),
        scoliosis=u(-6, 6),
        disc_phase=u(0, 1),
        heart=(u(-24, -12), u(6, 20), u(-38, -24)),
        heart_scale=u(0.86, 1.10) * (0.95 if female else 1.0),
        heart_turn=u(-14, 14),
        heart_tilt=u(-14, 14),
        wall=u(8.5, 13),
        chambers=(u(0.88, 1.14), u(0.88, 1.12), u(0.85, 1.2), u(0.88, 1.15)),
        aorta_radius=u(12.5, 17.5),
        arch=u(50, 66),
        pulmonary_radius=u(11.5, 14.5),
        contrast_left=u(320, 440),
        contrast_right=u(150, 280),
        myocardium=u(90, 120),
        lung=u(-885, -825),
        bone=u(0.8, 1.2),
        liver=u(60, 95),
        gas=u(0, 24),
        roll=u(-5, 5),
        shift=(u(-8, 8), u(-10, 10), u(-6, 6)),
        table=u(5, 16),
        kernel=u(0.5, 1.1),
        noise=u(9, 18),
    )
