"""A procedural contrast-enhanced CT of the thorax: patients generated from a seed, painted as smooth analytic shapes.

Patient coordinates are mm towards R, A, S relative to the middle of the thorax. It is a phantom: proportions and HU are
those of an arterial-phase cardiac CT, but no shape was taken from a patient.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medlord_bench.contracts import Shape
from medlord_bench.plugins.phantom.heart import paint_heart
from medlord_bench.plugins.phantom.labels import LABELS
from medlord_bench.plugins.phantom.patient import Patient
from medlord_bench.plugins.phantom.shapes import Array, Canvas, Point, ellipsoid, frame, spline, superellipse
from medlord_bench.util.seeds import numpy_rng


def render(
    patient: Patient, shape: Shape, spacing: Point, noise: float = 1.0
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """HU (float32) and labels (uint8), both of `shape` and centred on the thorax.

    noise: factor on the scanner's noise; 0 for none. Noise and texture depend on the grid as well as the patient.
    """
    canvas = Canvas(shape, spacing, patient.shift, np.deg2rad(patient.roll), air=-1000.0)
    _trunk(canvas, patient)
    cavity, floor = _cavity(canvas, patient)
    _abdomen(canvas, patient, cavity, floor)
    _lungs(canvas, patient, cavity, floor)
    _spine(canvas, patient)
    _ribs(canvas, patient, cavity)
    _airways(canvas, patient)
    paint_heart(canvas, patient, {name: value for value, name in LABELS.items()})
    return _scan(canvas, patient, shape, spacing, noise), canvas.labels


def _trunk(canvas: Canvas, p: Patient) -> None:
    """Table, fat, breasts and chest wall."""
    s = canvas.s
    up = np.clip((s - 50) / 80, 0, 1)
    half_r = (p.half_width + 20) * (1 + 0.07 * up) * (1 + 0.02 * np.cos(s / 40))
    half_a = (p.half_depth + 19) * (1 - 0.10 * up)
    back = p.half_depth + 19 + p.fat + p.table
    bed = np.abs(canvas.a + back - canvas.r**2 / 900) - 4
    canvas.paint(np.maximum(bed, np.abs(canvas.r) - 190) + 0 * s, -250.0)
    skin = superellipse(canvas.r, canvas.a, half_r + p.fat * 1.15, half_a + p.fat, p.roundness)
    canvas.paint(skin, -105 + 120 * np.exp(-((skin / 2.0) ** 2)), 1)
    for side in (-1, 1) if p.female else ():
        centre = (side * 0.58 * p.half_width, 0.80 * p.half_depth + p.fat, 0.0)
        fat = ellipsoid(centre, (54.0, 22 + p.breast, 56.0))
        canvas.paint_ball(fat, -100.0, 1, centre, 80)
        glands = ellipsoid((centre[0], centre[1] + 0.4 * p.breast, -4.0), (26.0, 8 + 0.4 * p.breast, 28.0))
        canvas.paint_ball(glands, -20.0, 1, centre, 80)
    wall = superellipse(canvas.r, canvas.a, half_r, half_a, p.roundness)
    canvas.paint(wall, 52.0, 1)


def _cavity(canvas: Canvas, p: Patient) -> tuple[Array, Array]:
    """Distance to the thoracic cavity, and the height of the diaphragm (X, Y, 1)."""
    rise = np.clip((canvas.s + 30) / (p.apex + 30), 0, 0.999)
    taper = np.sqrt(1 - rise**2.2).astype(np.float32)
    cavity = superellipse(canvas.r, canvas.a, p.half_width * taper, p.half_depth * (0.25 + 0.75 * taper), 2.3)
    cavity = np.maximum(cavity, canvas.s - p.apex)

    def dome(top: float, middle: float) -> Array:
        bend = ((canvas.r - middle) / (0.52 * p.half_width)) ** 2 + ((canvas.a - 8) / (0.85 * p.half_depth)) ** 2
        return np.asarray(top - 34 * bend, dtype=np.float32)

    floor = np.maximum(dome(p.dome_right, 0.47 * p.half_width), dome(p.dome_left, -0.50 * p.half_width))
    return cavity, floor


def _abdomen(canvas: Canvas, p: Patient, cavity: Array, floor: Array) -> None:
    """Fat, liver, spleen and stomach below the diaphragm."""
    below = canvas.s - floor
    canvas.paint(np.maximum(cavity + 5, below + 3), -95.0, 1)
    left_edge = -30 - canvas.r - 0.35 * canvas.a + 0.25 * (canvas.s + 100)
    canvas.paint(np.maximum(np.maximum(cavity + 8, below + 5), left_edge + 0 * canvas.s), p.liver, 1)
    spleen = (-0.66 * p.half_width, -0.50 * p.half_depth, p.dome_left - 42)
    canvas.paint(np.maximum(ellipsoid(spleen, (22, 36, 34))(canvas.r, canvas.a, canvas.s), below + 5), 118.0, 1)
    stomach = (-0.48 * p.half_width, 0.25 * p.half_depth, p.dome_left - 36)
    pouch = np.maximum(ellipsoid(stomach, (32, 34, 27))(canvas.r, canvas.a, canvas.s), below + 6)
    canvas.paint(pouch, 35.0, 1)
    canvas.paint(np.maximum(pouch + 4, stomach[1] + 22 - p.gas - canvas.a), -980.0, 1)


def _lungs(canvas: Canvas, p: Patient, cavity: Array, floor: Array) -> None:
    """Both lungs with vessels, then the mediastinum between them."""
    rng = numpy_rng(p.seed, "lungs")
    inside = np.maximum(cavity + 4, floor - canvas.s)
    heavier = p.lung - 45 * canvas.a / p.half_depth  # the dependent lung is denser
    for label, side in ((4, -1.0), (5, 1.0)):
        canvas.paint(np.maximum(inside, -side * canvas.r), heavier, label)
        before = canvas.hu.copy()
        hilum = (side * 30.0, p.heart[1] - 22, p.heart[2] + 38)
        for nodes in _tree(rng, p, hilum, side):
            canvas.paint_tube(nodes, p.contrast_right + 60)
        keep = canvas.labels != label  # vessels end at the pleura
        canvas.hu[keep] = before[keep]
    rim = 10 * np.clip((p.dome_right + 40 - canvas.s) / 60, 0, 1)
    middle = superellipse(canvas.r, canvas.a + 6, 27 + rim, p.half_depth - 2, 2.0)
    canvas.paint(np.maximum(middle, cavity - 6), -75.0, 1)


def _tree(rng: np.random.Generator, p: Patient, hilum: Point, side: float) -> list[list[tuple[Point, float]]]:
    """Branches from the hilum into a lung: tapered curves, each with two twigs."""
    branches = []
    for _ in range(18):
        end = (
            side * float(rng.uniform(0.45, 0.97)) * p.half_width,
            float(rng.uniform(-0.85, 0.85)) * p.half_depth,
            float(rng.uniform(p.dome_right - 15, p.apex - 15)),
        )
        bow = rng.normal(0, 9, 3)
        x, y, z = (0.5 * (h + e) + b for h, e, b in zip(hilum, end, bow, strict=True))
        thick = float(rng.uniform(3.4, 5.2))
        branches.append(spline([hilum, (x, y, z), end], [thick, 0.62 * thick, 1.0], 3))
        for _ in range(2):
            tx, ty, tz = (e + t for e, t in zip(end, rng.normal(0, 30, 3), strict=True))
            branches.append(spline([(x, y, z), (tx, ty, tz)], [0.5 * thick, 0.8], 2))
    return branches


def spine_middle(p: Patient, s: Array | float) -> tuple[Array | float, Array | float]:
    """R and A of the vertebral bodies' centre at the height s."""
    return p.scoliosis * np.sin(s / 70), -0.83 * p.half_depth - p.kyphosis * (1 - (s / 130) ** 2) + 10


def _spine(canvas: Canvas, p: Patient) -> None:
    """Vertebral bodies with discs between, canal, arches, transverse and spinous processes."""
    middle_r, middle_a = spine_middle(p, canvas.s)
    r, a = canvas.r - middle_r, canvas.a - middle_a
    phase = ((canvas.s / 25.0 + p.disc_phase) % 1.0 - 0.5) * 25.0
    column = superellipse(r, a, 17.5, 14.0, 2.3)
    canvas.paint(superellipse(r, a + 24, 46.0, 25.0, 2.2), 55.0, 1)  # muscles of the back
    canvas.paint(column, 75.0, 3)
    body = np.maximum(column, np.abs(phase) - 10.2)
    canvas.paint(body, p.bone * (210 + 420 * np.exp(-((body / 2.5) ** 2))), 3)
    arch = np.maximum(superellipse(r, a + 23, 16.0, 13.0), np.abs(phase) - 9)
    canvas.paint(arch, p.bone * 480.0, 3)
    wings = np.maximum(superellipse(r, a + 26 + np.abs(r) * 0.35, 33.0, 5.5, 2.5), np.abs(phase) - 6)
    canvas.paint(wings, p.bone * 380.0, 3)
    thorn = np.maximum(superellipse(r, a + 44, 4.5, 17.0, 2.5), np.abs(phase + 4) - 7)
    canvas.paint(thorn, p.bone * 400.0, 3)
    canvas.paint(superellipse(r, a + 22, 9.5, 8.0), 32.0, 3)


def _ribs(canvas: Canvas, p: Patient, cavity: Array) -> None:
    """Rib pairs that slope down from the spine to the front, cartilage, sternum and shoulder blades."""
    angle = np.arctan2(np.abs(canvas.r), -canvas.a)  # 0 at the back, pi at the front
    drop = p.rib_slope * (1 - np.cos(np.minimum(angle, 2.6))) / 2 - 26 * np.clip(angle - 2.1, 0, 1)
    phase = (((canvas.s + drop) / p.rib_step + p.rib_phase) % 1.0 - 0.5) * p.rib_step
    rib = (np.sqrt(((cavity - 5.5) / 4.4) ** 2 + (phase / 6.6) ** 2) - 1) * 4.8
    front = np.pi - angle
    rib = np.maximum(np.maximum(rib, 30 - np.abs(canvas.r)), canvas.s - p.apex + 6)
    bone = p.bone * (300 + 480 * np.exp(-((rib / 1.8) ** 2)))
    canvas.paint(np.maximum(rib, (0.62 - front) * 90), bone, 2)
    canvas.paint(np.maximum(np.maximum(rib, (front - 0.62) * 90), p.dome_right - 45 - canvas.s), 130.0, 1)
    ahead = np.maximum(np.abs(canvas.r) - 15, np.abs(cavity - 5) - 5.5)
    plate = np.maximum(np.maximum(ahead, -canvas.a), np.abs(canvas.s - 18) - 72)
    canvas.paint(plate, p.bone * (190 + 380 * np.exp(-((plate / 1.8) ** 2))), 2)
    for side in (-1.0, 1.0):
        blade_at = (side * 0.78 * p.half_width, -0.86 * p.half_depth, 78.0)
        blade = ellipsoid(blade_at, (38, 4.2, 52), frame((1.0, side * 0.55, 0.0)))
        canvas.paint_ball(blade, p.bone * 420.0, 1, blade_at, 60)


def _airways(canvas: Canvas, p: Patient) -> None:
    """Trachea, main bronchi and oesophagus."""
    x, y, z = p.heart
    carina = (1.0, y - 30, z + 66)
    canvas.paint_tube([((2.0, carina[1] - 13, 140.0), 6.5), ((carina[0], carina[1] - 13, 90.0), 6.5)], 35.0, 1)
    trachea = spline([(2.0, carina[1] + 8, 140.0), (1.0, carina[1] + 4, 95.0), carina], [8.5, 8.5, 8.5])
    right = [(carina, 7.5), ((22.0, y - 30, z + 50), 7.0), ((38.0, y - 32, z + 38), 5.5)]
    left = [(carina, 7.0), ((-24.0, y - 32, z + 46), 6.2), ((-42.0, y - 36, z + 34), 5.0)]
    for tube in (trachea, right, left):
        canvas.paint_tube([(point, radius + 1.8) for point, radius in tube], 30.0, 1)
    for tube in (trachea, right, left):
        canvas.paint_tube(tube, -985.0, 1)


def _scan(canvas: Canvas, p: Patient, shape: Shape, spacing: Point, noise: float) -> Array:
    """Tissue texture, the point spread of the scanner, and correlated noise that grows inside the body."""
    from scipy.ndimage import gaussian_filter, zoom

    rng = numpy_rng(p.seed, "scan", *shape)
    coarse = rng.standard_normal([max(n // 4, 2) for n in shape]).astype(np.float32)
    texture = zoom(
        coarse, [n / m for n, m in zip(shape, coarse.shape, strict=True)], order=1, grid_mode=True, mode="nearest"
    )
    inside = canvas.labels > 0
    hu = canvas.hu + 9 * texture * inside
    hu = gaussian_filter(hu, [p.kernel * 1.4 / h for h in spacing])
    grain = gaussian_filter(rng.standard_normal(shape).astype(np.float32), 0.45)
    grain /= grain.std()
    return np.asarray(hu + noise * p.noise * grain * np.where(inside, 1.0, 0.6), dtype=np.float32)
