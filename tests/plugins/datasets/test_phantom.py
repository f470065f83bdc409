"""The phantom is whole, varied, reproducible and fast."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy.ndimage import label as connected

from medlord_bench.contracts import Dataset, LabelMap, Volume
from medlord_bench.plugins.datasets.phantom.dataset import PhantomConfig, PhantomDataset
from medlord_bench.plugins.phantom.labels import LABELS
from medlord_bench.volumes.checks import not_ct

HU = {  # plausible medians of a contrast-enhanced scan
    "ribs": (200, 700),
    "spine": (120, 500),
    "lung_left": (-920, -760),
    "lung_right": (-920, -760),
    "lv_myocardium": (70, 160),
    "left_ventricle": (280, 460),
    "left_atrium": (280, 470),
    "aorta": (280, 460),
    "right_ventricle": (120, 330),
    "right_atrium": (120, 350),
    "pulmonary_artery": (120, 330),
}


@pytest.fixture(scope="module")
def fifty() -> list[tuple[Volume, LabelMap]]:
    dataset = PhantomDataset(PhantomConfig(n_train=50))
    return [dataset.load(case) for case in dataset.cases("train")]  # type: ignore[misc]


def test_it_fulfils_the_contract() -> None:
    dataset = PhantomDataset(PhantomConfig())
    assert isinstance(dataset, Dataset)
    assert dataset.protocol.synthetic
    assert [len(dataset.cases(split)) for split in ("train", "val", "test")] == [24, 8, 8]
    ids = [case.id for split in ("train", "val", "test") for case in dataset.cases(split)]
    assert len(set(ids)) == 40


def test_every_region_is_there_in_every_patient(fifty: list[tuple[Volume, LabelMap]]) -> None:
    for number, (_, labels) in enumerate(fifty):
        for name in LABELS.values():
            assert labels.region(name).sum() >= 100, f"patient {number}: {name}"
        assert set(np.unique(labels.labels)) == {0, *LABELS}


def test_every_region_has_the_hu_of_its_tissue(fifty: list[tuple[Volume, LabelMap]]) -> None:
    for number, (volume, labels) in enumerate(fifty):
        for name, (low, high) in HU.items():
            assert low < np.median(volume.hu[labels.region(name)]) < high, f"patient {number}: {name}"
        left, right = (np.median(volume.hu[labels.region(f"{side}_ventricle")]) for side in ("left", "right"))
        assert left > right + 20, f"patient {number}: arterial phase"
        assert np.median(volume.hu[labels.labels == 0]) < -950
        assert not_ct(volume) is None


def test_organs_lie_where_they_belong(fifty: list[tuple[Volume, LabelMap]]) -> None:
    for number, (_, labels) in enumerate(fifty):
        at = {name: np.argwhere(labels.region(name)).mean(axis=0) for name in LABELS.values()}
        where = f"patient {number}"
        assert at["lung_left"][0] < at["lung_right"][0], where  # R grows to the right
        assert at["left_ventricle"][0] < at["right_atrium"][0], where
        assert at["left_ventricle"][0] < at["spine"][0], where  # the heart points left
        assert at["right_ventricle"][1] > at["left_atrium"][1], where  # the left atrium is the hindmost
        assert at["spine"][1] < at["aorta"][1], where
        assert at["pulmonary_artery"][2] > at["left_ventricle"][2], where
        cavity, wall = labels.region("left_ventricle"), labels.region("lv_myocardium")
        assert (np.argwhere(wall).std(axis=0) > 0.75 * np.argwhere(cavity).std(axis=0)).all(), where  # it surrounds it


@pytest.mark.parametrize("name", ["left_ventricle", "aorta", "lung_left", "lung_right", "left_atrium"])
def test_organs_are_one_piece(fifty: list[tuple[Volume, LabelMap]], name: str) -> None:
    for number, (_, labels) in enumerate(fifty):
        parts, _ = connected(labels.region(name), np.ones((3, 3, 3)))
        sizes = np.bincount(parts.ravel())[1:]
        assert sizes.max() / sizes.sum() > 0.95, f"patient {number}"


def test_patients_differ_far_more_than_two_scans_of_one() -> None:
    """What makes copying detectable: the nearest other patient is much farther than the same one with other noise."""
    dataset, quiet = PhantomDataset(PhantomConfig()), PhantomDataset(PhantomConfig(noise=0.0))
    cases = [*dataset.cases("train"), *dataset.cases("test")]
    noisy = np.stack([dataset.load(case)[0].hu.ravel() for case in cases]).clip(-1000, 1000).astype(np.float32)
    clean = np.stack([quiet.load(case)[0].hu.ravel() for case in cases]).clip(-1000, 1000).astype(np.float32)
    own = np.sqrt(((noisy - clean) ** 2).mean(axis=1))
    nearest = [
        min(float(np.sqrt(((noisy[i] - noisy[j]) ** 2).mean())) for j in range(len(cases)) if j != i)
        for i in range(len(cases))
    ]
    assert min(nearest) > 5 * own.max()


def test_volumes_of_organs_vary_between_patients(fifty: list[tuple[Volume, LabelMap]]) -> None:
    for name in ("left_ventricle", "right_ventricle", "aorta", "lung_left", "lv_myocardium"):
        sizes = np.array([labels.region(name).sum() for _, labels in fifty])
        assert 0.08 < sizes.std() / sizes.mean() < 0.5, name


def test_the_same_configuration_gives_the_same_bytes() -> None:
    first, second = (PhantomDataset(PhantomConfig(shape=(24, 24, 16))) for _ in range(2))
    case = first.cases("test")[3]
    assert case == second.cases("test")[3]
    (a, ma), (b, mb) = first.load(case), second.load(case)
    assert ma is not None
    assert mb is not None
    assert np.array_equal(a.hu, b.hu)
    assert np.array_equal(ma.labels, mb.labels)


def test_a_case_s_identity_follows_all_that_changes_it() -> None:
    base = PhantomDataset(PhantomConfig()).cases("train")[0].sha256
    for change in ({"seed": 1}, {"noise": 0.5}, {"shape": (32, 32, 24)}):
        assert PhantomDataset(PhantomConfig(**change)).cases("train")[0].sha256 != base
    assert PhantomDataset(PhantomConfig(n_train=30)).cases("train")[0].sha256 == base  # more patients: the same first


def test_anatomy_does_not_depend_on_the_grid() -> None:
    """The same patient on a finer grid: organs keep their volume in mL."""
    coarse, fine = (PhantomDataset(PhantomConfig(shape=shape)) for shape in ((64, 64, 48), (128, 128, 96)))
    for index in range(3):
        maps = [dataset.load(dataset.cases("train")[index])[1] for dataset in (coarse, fine)]
        assert maps[0] is not None
        assert maps[1] is not None
        for name in ("lung_left", "left_ventricle", "aorta", "body"):
            first, second = (float(m.region(name).sum()) * float(np.prod(np.diag(m.affine)[:3])) for m in maps)
            assert first == pytest.approx(second, rel=0.12), name


@pytest.mark.parametrize("shape", [(17, 40, 23), (32, 32, 16)])
def test_any_grid_is_drawn(shape: tuple[int, int, int]) -> None:
    dataset = PhantomDataset(PhantomConfig(shape=shape))
    volume, labels = dataset.load(dataset.cases("train")[0])
    assert volume.shape == shape
    assert labels is not None
    assert labels.shape == shape
    assert np.allclose(np.array(volume.spacing) * shape, (352, 352, 264))
    assert dataset.protocol.grid.spacing == pytest.approx(volume.spacing)


def test_a_case_takes_less_than_a_second() -> None:
    dataset = PhantomDataset(PhantomConfig())
    dataset.load(dataset.cases("train")[0])  # imports
    start = time.perf_counter()
    for case in dataset.cases("train")[:3]:
        dataset.load(case)
    assert (time.perf_counter() - start) / 3 < 1.0
