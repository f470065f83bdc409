"""The tissue metric: what it sees in 16 samples, what it does not flag, its configuration, and real CT."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from medlord_bench import stats
from medlord_bench.contracts import Item, MetricInputs, Run
from medlord_bench.contracts.metrics import protocol_of
from medlord_bench.contracts.results import CaseRow, Score
from medlord_bench.descriptors.metric import SOURCES
from medlord_bench.engine.resolve import metric_spec
from medlord_bench.errors import UserError
from medlord_bench.metrics.tissue.config import TissueConfig
from medlord_bench.metrics.tissue.describe import OF_CLASSES, describe
from medlord_bench.metrics.tissue.metric import TissueMetric
from medlord_bench.plugins.datasets.phantom.dataset import PhantomConfig, PhantomDataset
from medlord_bench.volumes.arrays import save_state
from medlord_bench.volumes.io import read_volume

SAMPLES, TRAIN, TEST = 16, 24, 8
PHANTOM = PhantomDataset(PhantomConfig(shape=(48, 48, 36), n_train=SAMPLES + TRAIN + TEST, n_val=0, n_test=0))
DATA = PHANTOM.protocol
METRIC = TissueMetric(TissueConfig(permutations=499))
Image = NDArray[np.float64]


def bent(hu: Image) -> Image:
    return np.asarray(((hu + 1000) / 2000).clip(0) ** 0.9 * 2000 - 1000)


def bias(hu: Image) -> Image:
    return hu + np.linspace(-50, 50, hu.shape[0])[:, None, None]


def grainy(hu: Image) -> Image:
    """Noise of 12 HU becomes about 24."""
    return hu + 3**0.5 * 12 * np.random.default_rng(int(abs(hu.sum()))).standard_normal(hu.shape)


FAULTS: dict[str, tuple[Callable[[Image], Image], str]] = {
    "offset": (lambda hu: hu + 20, "tissue_hu"),
    "gain": (lambda hu: hu * 1.05, "tissue_hu"),
    "gamma": (bent, "tissue_hu"),
    "bias": (bias, "tissue_spread"),
    "noise": (grainy, "tissue_noise"),
    "blur": (lambda hu: np.asarray(gaussian_filter(hu, 0.5)), "tissue_nps"),
}


@pytest.fixture(scope="module")
def volumes() -> list[NDArray[np.int16]]:
    return [PHANTOM.load(case)[0].hu.clip(*DATA.grid.hu_window) for case in PHANTOM.cases("train")]


@pytest.fixture(scope="module")
def real(volumes: list[NDArray[np.int16]]) -> list[list[float]]:
    return [describe(hu) for hu in volumes[SAMPLES:]]


def states(folder: Path, source: str, rows: Sequence[Sequence[float]]) -> list[Item]:
    made = []
    for i, row in enumerate(rows):
        path = folder / f"{source.replace(':', '-')}-{i}.safetensors"
        save_state(path, {"values": np.array(row)})
        made.append(Item(path.stem, source, path))
    return made


def scores(folder: Path, run: Run, samples: list[list[float]], real: list[list[float]]) -> list[Score]:
    sets = (samples, real[:TRAIN], real[TRAIN:])
    items = {need: states(folder, need.source, rows) for need, rows in zip(METRIC.needs(), sets, strict=True)}
    found = list(METRIC.reduce(MetricInputs("g", "phantom", DATA, items, "tissue-1"), run))
    assert sum(isinstance(one, CaseRow) and not one.generator for one in found) > TRAIN * 20
    return [one for one in found if isinstance(one, Score)]


@pytest.mark.parametrize("fault", FAULTS)
def test_16_samples_show_the_fault_and_the_quantity_that_it_changes(
    fault: str, run: Run, tmp_path: Path, volumes: list[NDArray[np.int16]], real: list[list[float]]
) -> None:
    change, quantity = FAULTS[fault]
    spoilt = [np.rint(change(hu.astype(float))).clip(*DATA.grid.hu_window) for hu in volumes[:SAMPLES]]
    found = scores(tmp_path, run, [describe(hu.astype(np.int16)) for hu in spoilt], real)
    for split in ("train", "test"):
        (joint,) = [one for one in found if one.metric == "tissue_joint" and one.reference == split]
        assert joint.p is not None and joint.p < 0.01
    shifts = [one for one in found if one.metric == f"{quantity}_shift" and one.reference == "train"]
    assert min(one.p for one in shifts if one.p is not None) < 0.01


def test_clean_samples_are_flagged_at_the_nominal_rate(
    volumes: list[NDArray[np.int16]], real: list[list[float]]
) -> None:
    rows = np.array([*(describe(hu) for hu in volumes[:SAMPLES]), *real])
    rng, found = np.random.default_rng(0), []
    for i in range(150):
        drawn = rows[rng.permutation(len(rows))[: SAMPLES + TRAIN]]
        found.append(stats.joint(drawn[:SAMPLES], drawn[SAMPLES:], i, 199).p)
    low, high = stats.wilson(sum(p <= 0.05 for p in found), len(found), 0.999)
    assert low <= 0.05 <= high


def test_the_state_of_a_volume_is_its_descriptors_with_those_of_regions(run: Run, tmp_path: Path) -> None:
    volume, labels = PHANTOM.load(PHANTOM.cases("train")[0])
    assert labels is not None
    np.save(tmp_path / "hu.npy", volume.hu)
    np.save(tmp_path / "labels.npy", labels.labels)
    of_volume = Item("a", SOURCES[0], tmp_path / "hu.npy")
    (plain,) = METRIC.extract([of_volume], run)
    assert plain["values"] == pytest.approx(describe(volume.hu), nan_ok=True) and len(plain["values"]) == len(
        OF_CLASSES
    )
    of_labels = Item("a", SOURCES[0], tmp_path / "labels.npy", volume=tmp_path / "hu.npy", names=labels.names)
    config = TissueConfig(segmenter="phantom", regions=("aorta",), by_region=True)
    (longer,) = TissueMetric(config).extract([of_labels], run)
    assert longer["values"][: len(OF_CLASSES)] == pytest.approx(plain["values"], nan_ok=True)
    assert 200 < longer["values"][len(OF_CLASSES)] < 450  # contrast of the left heart
    with pytest.raises(UserError, match="a has no volume"):
        list(METRIC.extract([Item("a", SOURCES[0], None)], run))


def test_no_segmenter_is_used_unless_regions_are_wanted() -> None:
    plain = TissueMetric(TissueConfig.model_validate(metric_spec("tissue", DATA, {}).config))
    assert not any(need.segmenter for need in plain.needs()) and plain.regions == ()
    for text, sets in (("tissue:regions", {}), ("tissue", {"tissue.regions": ["aorta"]})):
        wanted = TissueMetric(TissueConfig.model_validate(metric_spec(text, DATA, sets).config))
        assert {need.segmenter for need in wanted.needs()} == {"phantom"} and "aorta" in wanted.regions
        assert protocol_of("tissue", wanted, DATA)[0].startswith("tissue-phantom-")


def test_real_ct_has_the_hu_that_textbooks_give(data_dir: Path) -> None:
    hu = read_volume(data_dir / "thorax_cta" / "ct.nii.gz").hu.clip(-1000, 2000)
    found = dict(zip([(one.quantity, one.region) for one in OF_CLASSES], describe(hu), strict=True))
    ranges = {"air": (-1000, -950), "lung": (-900, -700), "fat": (-120, -80), "soft tissue": (20, 70)}
    ranges |= {"contrast": (200, 600), "bone": (150, 700)}
    for name, (low, high) in ranges.items():
        assert low <= found["tissue_hu", name] <= high
    assert 5 < found["tissue_noise", "soft tissue"] < 40 and 0.1 < found["tissue_share", "lung"] < 0.6
    assert 1 < found["tissue_edge", "lung border, in-plane"] < 2.5
