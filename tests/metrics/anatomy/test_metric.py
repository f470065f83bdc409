"""The metric on phantoms with their true labels: a magnified heart is seen, clean samples are not flagged."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from medlord_bench.contracts import DataProtocol, Grid, Item, LabelMap, MetricInputs, Run
from medlord_bench.contracts.regions import CARDIAC
from medlord_bench.contracts.results import Score
from medlord_bench.errors import UserError
from medlord_bench.metrics.anatomy.config import AnatomyConfig
from medlord_bench.metrics.anatomy.measure import descriptors, measure
from medlord_bench.metrics.anatomy.metric import Anatomy
from medlord_bench.plugins.phantom.anatomy import render
from medlord_bench.plugins.phantom.labels import LABELS
from medlord_bench.plugins.phantom.patient import draw
from medlord_bench.volumes.arrays import save_state

SHAPE, SPACING = (32, 32, 24), (11.0, 11.0, 11.0)
DATA = DataProtocol(
    name="d",
    grid=Grid(shape=SHAPE, spacing=SPACING),
    fit="crop-pad",
    split="s",
    split_sha256="0",
    counts={},
    masks="none",
    segmenter="phantom",
    rvr_regions=("aorta",),
)


@cache
def phantom(index: int) -> tuple[np.ndarray, np.ndarray]:
    hu, labels = render(draw(0, index), SHAPE, SPACING)
    return np.rint(hu).clip(-1000, 1000).astype(np.int16), labels


def magnified(hu: np.ndarray, labels: np.ndarray, factor: float = 1.4) -> tuple[np.ndarray, np.ndarray]:
    """The heart enlarged about its centre, in the image and in the labels."""
    heart = np.isin(labels, [value for value, name in LABELS.items() if name in CARDIAC[:5]])
    middle = np.array(ndimage.center_of_mass(heart))
    how = {"matrix": np.eye(3) / factor, "offset": middle - middle / factor, "order": 0}
    large = ndimage.affine_transform(heart.astype(np.uint8), **how) > 0
    return tuple(np.where(large, ndimage.affine_transform(part, **how), part) for part in (hu, labels))  # type: ignore[return-value]


def items(folder: Path, name: str, start: int, n: int, fault: bool) -> list[Item]:
    made = []
    for i in range(start, start + n):
        hu, labels = magnified(*phantom(i)) if fault else phantom(i)
        volume, path = folder / f"{name}-{i}-hu.npy", folder / f"{name}-{i}.npy"
        np.save(volume, hu)
        np.save(path, labels)
        made.append(Item(f"{name}-{i}", Anatomy(config()).needs()[0].source, path, volume=volume, names=LABELS))
    return made


def config() -> AnatomyConfig:
    return AnatomyConfig(permutations=399).for_data(DATA)


def joint(run: Run, folder: Path, fault: bool) -> Score:
    metric, n, found = Anatomy(config()), 10, {}
    for place, need in enumerate(metric.needs()):
        own = items(folder, str(place), place * n, n, fault and place == 0)
        found[need] = []
        for item, state in zip(own, metric.extract(own, run), strict=True):
            path = folder / f"{item.id}.safetensors"
            save_state(path, state)
            found[need].append(Item(item.id, need.source, path))
    scores = [one for one in metric.reduce(MetricInputs("g", "d", DATA, found, "a-1"), run) if isinstance(one, Score)]
    return next(one for one in scores if (one.metric, one.reference) == ("anatomy_joint", "train"))


def test_a_magnified_heart_is_seen_and_named(run: Run, tmp_path: Path) -> None:
    found = joint(run, tmp_path, fault=True)
    assert found.p is not None and found.p < 0.01 and "heart" in found.warning


def test_clean_samples_are_not_flagged(run: Run, tmp_path: Path) -> None:
    found = joint(run, tmp_path, fault=False)
    assert found.p is not None and found.p > 0.05 and not found.warning


def test_the_whole_heart_and_lungs_are_measured_beside_the_regions() -> None:
    assert Anatomy(config()).regions == ("aorta", "heart", "lungs", "lung_left", "lung_right")
    lungs = DATA.model_copy(update={"segmenter": "lungs", "rvr_regions": ()})
    assert Anatomy(AnatomyConfig().for_data(lungs)).regions == ("lung_left", "lung_right", "lungs")


@pytest.mark.parametrize("shape", [(32, 32, 16), (8, 8, 8)])
@pytest.mark.parametrize("level", [-1000, 40, None])
def test_empty_regions_and_constant_volumes_are_measured(shape: tuple[int, int, int], level: int | None) -> None:
    hu = np.random.default_rng(0).normal(40, 20, shape) if level is None else np.full(shape, level)
    labels = np.zeros(shape, np.uint8)
    labels[0, 0, 0] = 11
    regions = ("aorta", "heart", "lungs", "liver")
    found = measure(hu.astype(np.int16), LabelMap(labels, np.eye(4), LABELS), regions, (5.0, 5.0, 5.0))
    assert len(found) == len(descriptors(regions)) and not np.isinf(found).any()


def test_padding_changes_nothing() -> None:
    hu, labels = phantom(0)
    padded = [np.pad(part, ((4, 4), (0, 3), (5, 0)), constant_values=fill) for part, fill in ((hu, -1000), (labels, 0))]
    regions = ("heart", "lungs", "aorta")
    found = [
        measure(one, LabelMap(other, np.eye(4), LABELS), regions, SPACING) for one, other in ((hu, labels), padded)
    ]
    np.testing.assert_allclose(found[1], found[0], rtol=0.05, atol=0.01)


def test_a_label_map_without_its_volume_is_an_error(run: Run, tmp_path: Path) -> None:
    (item,) = items(tmp_path, "a", 0, 1, False)
    lone = Item("a", item.source, item.path, names=LABELS)
    with pytest.raises(UserError, match="no volume beside its label map"):
        list(Anatomy(config()).extract([lone], run))
