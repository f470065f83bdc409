"""One rule of plausible HU, for real images and samples: what passes, and the evidence against the rest."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest

from medlord_bench.volumes.plausible import implausible

Make = Callable[[np.ndarray], np.ndarray]


@pytest.fixture
def thorax() -> np.ndarray:
    """Air, fat, soft tissue, lung and bone in the shares of a chest CT, with noise; int16."""
    rng = np.random.default_rng(3)
    means = rng.choice([-1000, -850, -90, 40, 600], (20, 20, 20), p=[0.3, 0.25, 0.1, 0.3, 0.05])
    return (means + rng.normal(0, 12, means.shape)).astype(np.int16)


def test_a_ct_passes_whatever_its_field_of_view(thorax: np.ndarray) -> None:
    assert implausible(thorax) is None
    assert implausible(np.clip(thorax, -1000, 1000)) is None
    for padding in (-2000, -3024, -32768):  # the corners outside a round field of view
        corners = thorax.copy()
        corners[:4, :4] = padding
        assert implausible(corners) is None
    assert (
        implausible(np.full((8, 8, 8), -1000, np.int16) + thorax[:8, :8, :8] // 300) is None
    )  # air with a little noise


BAD: dict[str, tuple[Make, str]] = {
    "no intercept": (lambda hu: hu + 1024, "perhaps stored values without their intercept"),
    "no intercept, clipped": (lambda hu: np.clip(hu + 1024, 0, 3000), "intercept"),
    "no intercept, padded": (lambda hu: np.where(np.arange(20) < 4, -2000, hu + 1024), "intercept"),
    "no intercept, padded at -1500": (lambda hu: np.where(np.arange(20) < 2, -1500, hu + 1000), "intercept"),
    "8 bits": (lambda hu: np.interp(hu, (-160, 240), (0, 255)), r"0\.\.255"),
    "8 bits, lung": (lambda hu: np.interp(hu, (-1350, 150), (0, 255)), "no fat, lung or air"),
    "z-scores": (lambda hu: (hu - hu.mean()) / hu.std() * 3, "z-scores"),
    "[0, 1]": (lambda hu: np.interp(hu, (-1000, 1000), (0, 1)), "scaled to"),
    "wrapped": (lambda hu: np.where(hu < 0, 32767, hu), "stored as unsigned"),
    "wrapped in part": (lambda hu: np.where(np.arange(20) < 2, 31500, hu), "stored as unsigned"),
    "clipped to a window": (lambda hu: np.clip(hu, -160, 240), "clipped to a display window"),
    "intercept twice": (lambda hu: hu - 1024, "padding, and not air, fills most|intercept was applied twice"),
    "intercept twice, little air": (
        lambda hu: np.where(np.arange(20) < 15, np.clip(hu, -100, 700), -1000) - 1024,
        "intercept was applied twice",
    ),
    "no intercept, padded as air": (
        lambda hu: np.where(np.arange(20) < 4, -1024, hu + 1024),
        "without their intercept",
    ),
    "inverted": (lambda hu: -hu, "an inverted image"),
    "mostly padding": (lambda hu: np.where(np.arange(20) < 12, -2048, hu), "padding, and not air, fills most"),
    "constant": (lambda hu: hu * 0 + 40, "constant"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_ct_is_refused_with_evidence(thorax: np.ndarray, kind: str) -> None:
    make, evidence = BAD[kind]
    found = implausible(np.rint(make(thorax)).astype(np.int16))
    assert found is not None

    assert re.search(evidence, found), found


def test_a_window_that_the_data_set_declares_is_no_evidence(thorax: np.ndarray) -> None:
    clipped = np.clip(thorax, -160, 240)
    assert implausible(clipped, (-160, 240)) is None
    assert implausible(clipped, (-200, 240)) is not None


def test_samples_of_a_window_above_fat_are_not_judged_by_air(thorax: np.ndarray) -> None:
    assert implausible(np.clip(thorax, 0, 400), (0, 400)) is None
    assert implausible(np.clip(thorax, 0, 400)) is not None
