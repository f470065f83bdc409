"""Copies of a volume are found by 512 numbers, and other patients are not."""

from __future__ import annotations

import numpy as np
import pytest

from medlord_bench.plugins.datasets.phantom.dataset import PhantomDataset
from medlord_bench.volumes.outline import FLAT_HU, NEAR, near, outline


@pytest.fixture(scope="module")
def volumes() -> dict[str, np.ndarray]:
    data = PhantomDataset(PhantomDataset.Config(n_train=8, n_val=1, n_test=3))
    return {case.id: data.load(case)[0].hu for split in ("train", "test") for case in data.cases(split)}  # type: ignore[arg-type]


def test_the_means_are_those_of_blocks() -> None:
    hu = np.random.default_rng(0).integers(-1000, 1000, (16, 24, 8)).astype(np.int16)
    expected = hu.reshape(8, 2, 8, 3, 8, 1).astype(float).mean(axis=(1, 3, 5))
    assert np.abs(np.array(outline(hu)) - expected.ravel()).max() <= 0.5
    assert len(outline(np.zeros((5, 16, 17), np.int16))) == 5 * 8 * 8


def test_a_sum_does_not_overflow() -> None:
    assert set(outline(np.full((64, 64, 64), 30000, np.int16))) == {30000}


def test_copies_are_found_and_other_patients_are_not(volumes: dict[str, np.ndarray]) -> None:
    rng = np.random.default_rng(0)
    name, original = next(iter(volumes.items()))
    copies = {
        "same": original,
        "noise": original + rng.normal(0, 60, original.shape),
        "offset": original + 10.0,
        "thick": original[:, :, ::2],
    }
    outlines = {key: outline(hu) for key, hu in volumes.items()}
    assert list(near(outlines)) == []
    outlines |= {key: outline(np.asarray(hu, np.int16)) for key, hu in copies.items()}
    pairs = list(near(outlines))
    assert {tuple(sorted(pair[:2])) for pair in pairs} >= {tuple(sorted((name, copy))) for copy in copies}
    assert {key for pair in pairs for key in pair[:2]} == {name, *copies}
    assert all(0 <= distance < NEAR for *_, distance in pairs)


def test_flat_patches_are_not_copies_of_each_other() -> None:
    rng = np.random.default_rng(0)
    patches = {str(n): outline(rng.normal(60, 15, (32, 32, 32)).astype(np.int16)) for n in range(4)}
    assert max(np.std(values) for values in patches.values()) < FLAT_HU
    assert list(near(patches)) == []
    assert list(near({})) == [] and list(near({"a": outline(np.zeros((8, 8, 8), np.int16)), "b": []})) == []
