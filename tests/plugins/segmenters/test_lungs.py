"""Lungs without weights: against expert contours, on any grid, and nothing where there are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from medlord_bench.contracts import Grid, LabelMap, Run, Segmenter, Volume, registry
from medlord_bench.plugins.segmenters.lungs.anatomy import air_offset
from medlord_bench.plugins.segmenters.lungs.segmenter import LungsConfig, LungsSegmenter
from medlord_bench.volumes.grid import fit, fit_labels
from medlord_bench.volumes.io import read_labels, read_volume

SIDES = ("lung_left", "lung_right")
EXPERT = {1: "tumour", 2: "spinal_cord", 3: "lung_left", 4: "lung_right"}


def segment(volume: Volume, run: Run, **settings: float) -> LabelMap:
    (labels,) = LungsSegmenter(LungsConfig(**settings)).segment([("case", volume)], run)
    assert isinstance(labels, LabelMap)
    assert labels.labels.dtype == np.uint8
    assert labels.shape == volume.shape
    return labels


def dsc(found: LabelMap, truth: LabelMap, region: str) -> float:
    one, two = found.region(region), truth.region(region)
    return float(2 * np.count_nonzero(one & two) / (np.count_nonzero(one) + np.count_nonzero(two)))


def cut(volume: Volume, labels: LabelMap, *box: tuple[int, int]) -> tuple[Volume, LabelMap]:
    at = tuple(slice(*ends) for ends in box)
    return Volume(volume.hu[at], volume.affine), LabelMap(labels.labels[at], labels.affine, labels.names)


@pytest.fixture(scope="module")
def expert(data_dir: Path) -> tuple[Volume, LabelMap]:
    """LUNG1-001 at 512x512x134 and the radiation oncologists' contours of it."""
    folder = data_dir / "chest_lung1"
    return read_volume(folder / "ct.nii.gz"), read_labels(folder / "labels.nii.gz", EXPERT)


@pytest.fixture(scope="module")
def phantom() -> tuple[Volume, LabelMap]:
    dataset_class = registry.load("datasets", "phantom")
    dataset = dataset_class(dataset_class.Config(n_train=1, n_val=0, n_test=0))
    volume, labels = dataset.load(dataset.cases("train")[0])
    return volume, labels


def test_both_lungs_follow_the_expert_s_contours(expert: tuple[Volume, LabelMap], run: Run) -> None:
    volume, contours = expert
    found = segment(volume, run)
    scores = {region: dsc(found, contours, region) for region in ("lungs", *SIDES)}
    assert min(scores.values()) >= 0.96, scores
    swapped = found.region("lung_left") & contours.region("lung_right")
    swapped |= found.region("lung_right") & contours.region("lung_left")
    assert swapped.sum() < 0.001 * contours.region("lungs").sum()


@pytest.mark.parametrize("shape", [(128, 128, 64), (64, 64, 48), (170, 171, 100)])
def test_a_coarse_or_anisotropic_grid_keeps_the_contours(
    expert: tuple[Volume, LabelMap], run: Run, shape: tuple[int, int, int]
) -> None:
    grid = Grid(shape=shape)
    volume, contours = fit(expert[0], grid, "resize").volume, fit_labels(expert[1], grid, "resize")
    found = segment(volume, run)
    scores = {region: dsc(found, contours, region) for region in ("lungs", *SIDES)}
    assert min(scores.values()) >= 0.955, scores


def test_unknown_spacing_changes_little(expert: tuple[Volume, LabelMap], run: Run) -> None:
    """A generated volume has a nominal 1 mm; its lungs are then of a doll, and lengths shrink with them."""
    grid = Grid(shape=(128, 128, 64))
    volume, contours = fit(expert[0], grid, "resize").volume, fit_labels(expert[1], grid, "resize")
    known, unknown = segment(volume, run), segment(Volume(volume.hu, np.eye(4)), run)
    assert dsc(unknown, contours, "lungs") >= 0.955
    for side in SIDES:
        assert dsc(unknown, known, side) >= 0.97


def test_patches_keep_their_sides(expert: tuple[Volume, LabelMap], run: Run) -> None:
    """The image's side cuts the lungs open there; one lung alone is told by the way it bows around the heart."""
    between, only_left, only_right = (
        cut(*expert, (130, 290), (150, 310), (50, 80)),
        cut(*expert, (80, 240), (150, 330), (30, 100)),
        cut(*expert, (260, 430), (150, 330), (30, 100)),
    )
    both = segment(between[0], run)
    assert min(dsc(both, between[1], side) for side in SIDES) >= 0.95
    for (volume, contours), side in ((only_left, "lung_left"), (only_right, "lung_right")):
        found = segment(volume, run)
        assert dsc(found, contours, side) >= 0.96
        assert np.count_nonzero(found.labels) == np.count_nonzero(found.region(side))


def test_lung_bases_are_found_above_an_abdomen_and_bowel_gas_is_not(data_dir: Path, run: Run) -> None:
    volume = read_volume(data_dir / "abdomen/ct.nii.gz")
    names = {value: f"organ_{value}" for value in range(1, 118)}
    names |= {10: "lung_upper_lobe_left", 11: "lung_lower_lobe_left", 14: "lung_lower_lobe_right"}
    model = read_labels(data_dir / "abdomen/labels.nii.gz", names)
    found = segment(volume, run)
    assert dsc(found, model, "lungs") >= 0.9
    assert not found.region("lungs")[:, :, :95].any()  # colon and stomach
    left, right = (np.argwhere(found.region(side))[:, 0].mean() for side in SIDES)
    assert left < right


def test_the_airways_are_left_out_and_the_table_too(data_dir: Path, run: Run) -> None:
    volume = read_volume(data_dir / "thorax_cta/ct.nii.gz")
    found = segment(volume, run).region("lungs")
    trachea = (slice(113, 118), slice(86, 92), slice(137, 147))
    assert np.median(volume.hu[trachea]) < -950
    assert not found[trachea].any()
    assert not found[:, :15].any()  # the table's padding is as dense as lung
    litres = np.count_nonzero(found) * np.prod(volume.spacing) / 1e6
    assert 3.5 < litres < 4.6


def test_vessels_belong_to_the_lung(phantom: tuple[Volume, LabelMap], run: Run) -> None:
    """The phantom's lungs have contrast-filled vessels, which its truth counts as lung."""
    volume, truth = phantom
    found = segment(volume, run)
    assert min(dsc(found, truth, side) for side in SIDES) >= 0.94
    vessels = ndimage.binary_erosion(truth.region("lungs"), iterations=3) & (volume.hu > -300)
    assert vessels.sum() > 50
    assert (found.region("lungs") & vessels).sum() > 0.9 * vessels.sum()


def test_mirrored_anatomy_swaps_the_sides(phantom: tuple[Volume, LabelMap], run: Run) -> None:
    """Sides are places in the image: a flipped volume is not quietly put right."""
    volume, _ = phantom
    found, flipped = segment(volume, run), segment(Volume(volume.hu[::-1], volume.affine), run)
    mirrored = LabelMap(flipped.labels[::-1], found.affine, {1: "lung_right", 2: "lung_left"})
    assert min(dsc(mirrored, found, side) for side in SIDES) >= 0.99


def padded(volume: Volume, *margins: tuple[int, int]) -> Volume:
    return Volume(np.pad(volume.hu, margins, constant_values=-1000), volume.affine)


PADDING = (((0, 0), (0, 0), (1, 1)), ((0, 0), (0, 0), (0, 7)), ((9, 4), (0, 0), (0, 0)), ((5, 5), (6, 6), (3, 3)))


@pytest.mark.parametrize("margins", PADDING)
def test_padding_changes_no_lung(phantom: tuple[Volume, LabelMap], run: Run, margins: Any) -> None:
    """Also where the lungs are cut by the padded side."""
    volume = cut(*phantom, (0, 96), (0, 96), (20, 50))[0]
    whole = segment(volume, run).labels
    inside = tuple(slice(low, low + n) for (low, _), n in zip(margins, volume.shape, strict=True))
    found = segment(padded(volume, *margins), run).labels
    assert (whole > 0).mean() > 0.05
    assert abs(int((found == 1).sum()) - int((whole == 1).sum())) <= 0.02 * (whole == 1).sum()
    assert abs(int((found == 2).sum()) - int((whole == 2).sum())) <= 0.02 * (whole == 2).sum()
    outside = found.copy()
    outside[inside] = 0
    assert not outside.any()


@pytest.mark.parametrize("margins", PADDING)
@pytest.mark.parametrize("part", ["whole", "base"])
def test_padding_of_real_ct_changes_no_lung(data_dir: Path, run: Run, margins: Any, part: str) -> None:
    volume = read_volume(data_dir / "thorax_cta" / "ct.nii.gz")
    if part == "base":
        volume = Volume(volume.hu[:, :, : volume.shape[2] // 3], volume.affine)
    before, after = (segment(one, run).labels for one in (volume, padded(volume, *margins)))
    for side in (1, 2):
        assert int((after == side).sum()) == pytest.approx(int((before == side).sum()), rel=0.02)
        assert (before == side).sum() > 100_000


@pytest.mark.parametrize("offset", [20, 50])
def test_a_wrong_offset_loses_no_lung(data_dir: Path, run: Run, offset: int) -> None:
    """Room air is then above the threshold that tells it from the lungs."""
    volume = read_volume(data_dir / "thorax_cta" / "ct.nii.gz")
    shifted = Volume((volume.hu.clip(-1000, 2000) + offset).astype(np.int16), volume.affine)
    before, after = (segment(one, run).labels for one in (volume, shifted))
    for side in (1, 2):
        assert int((after == side).sum()) == pytest.approx(int((before == side).sum()), rel=0.01)
        assert (before == side).sum() > 100_000


def test_the_level_of_room_air_is_found_and_lung_is_not_taken_for_it() -> None:
    rng = np.random.default_rng(0)
    chest = rng.normal(40, 15, (40, 36, 20))
    chest[:4] = chest[-4:] = rng.normal(-950, 8, (4, 36, 20))
    assert air_offset(chest.astype(np.int16)) == pytest.approx(50, abs=2)
    assert air_offset((chest - 50).astype(np.int16)) == 0
    lung = rng.normal(-870, 45, (40, 36, 20))
    assert air_offset(lung.astype(np.int16)) == 0
    assert air_offset(np.full((8, 8, 8), 40, np.int16)) == 0


def test_volumes_without_lungs_give_empty_maps(run: Run) -> None:
    rng = np.random.default_rng(0)
    shape = (40, 36, 30)
    air, water = np.full(shape, -1000), np.full(shape, 0)
    body = air.copy()
    body[8:32, 8:28] = 40
    noise = rng.normal(-400, 450, shape)
    for hu in (air, water, body, noise, air[:1, :1, :1], noise[:, :, :1]):
        volume = Volume(hu.clip(-1024, 3071).astype(np.int16), np.eye(4))
        assert not segment(volume, run).labels.any()


def test_volumes_come_out_in_order_and_equal_again(phantom: tuple[Volume, LabelMap], run: Run) -> None:
    volume, _ = phantom
    empty = Volume(np.full_like(volume.hu, -1000), volume.affine)
    segmenter = registry.load("segmenters", "lungs")(LungsConfig())
    assert isinstance(segmenter, Segmenter)
    assert segmenter.fingerprint(["a"]) == {}
    first, second, third = segmenter.segment([("a", volume), ("b", empty), ("c", volume)], run)
    assert not second.labels.any()
    assert np.array_equal(first.labels, third.labels)
    assert first.labels.any()
