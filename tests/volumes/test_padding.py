"""The box without padding."""

from __future__ import annotations

import numpy as np

from medlord_bench.volumes.padding import image_box


def test_flat_planes_and_planes_of_air_at_the_ends_are_padding() -> None:
    rng = np.random.default_rng(0)
    hu = np.rint(40 + 20 * rng.standard_normal((20, 20, 20))).astype(np.int16)
    hu[:, :, :3] = np.rint(-990 + 20 * rng.standard_normal((20, 20, 3)))  # room air beyond the scan
    padded = np.pad(hu, ((2, 0), (0, 4), (1, 1)), constant_values=-1000)
    assert image_box(padded) == (slice(2, 22), slice(0, 20), slice(4, 21))
    assert image_box(hu) == (slice(0, 20), slice(0, 20), slice(3, 20))


def test_a_flat_volume_is_no_image() -> None:
    assert image_box(np.full((4, 4, 4), -1000, np.int16)) is None
