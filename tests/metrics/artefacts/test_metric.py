"""The metric from volumes to scores: faults are seen, failures are counted, small and empty volumes are measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medlord_bench.contracts import DataProtocol, Grid, Item, MetricInputs, Run
from medlord_bench.contracts.results import Score
from medlord_bench.errors import UserError
from medlord_bench.metrics.artefacts.config import ArtefactsConfig
from medlord_bench.metrics.artefacts.measure import DESCRIPTORS, measure
from medlord_bench.metrics.artefacts.metric import Artefacts
from medlord_bench.volumes.arrays import save_state

NEEDS = tuple(Artefacts(ArtefactsConfig()).needs())

DATA = DataProtocol(
    name="d", grid=Grid(shape=(32, 32, 32)), fit="crop-pad", split="s", split_sha256="0", counts={}, masks="none"
)
SHAPE = (32, 32, 32)


def volume(seed: int) -> np.ndarray:
    """Soft tissue with a lung in it."""
    rng = np.random.default_rng(seed)
    hu = rng.normal(40, rng.uniform(10, 20), SHAPE)
    hu[4:28, 6:26, 3:29] = rng.normal(-850, 25, (24, 20, 26))
    return hu


def seam(hu: np.ndarray) -> np.ndarray:
    return hu + np.where(np.arange(32) < 16, 0, 25)


def scores(run: Run, folder: Path, fault: Callable[[np.ndarray], np.ndarray]) -> dict[tuple[str, str, str], Score]:
    metric = Artefacts(ArtefactsConfig(spacing=(3.0, 3.0, 3.0), permutations=399))
    items = {}
    for place, need in enumerate(NEEDS):
        own = []
        for i in range(10):
            path = folder / f"{place}-{i}.npy"
            hu = volume(100 * place + i)
            np.save(path, np.rint(fault(hu) if place == 0 else hu).astype(np.int16))
            own.append(Item(path.stem, need.source, path))
        states = []
        for item, state in zip(own, metric.extract(own, run), strict=True):
            save_state(folder / f"{item.id}.safetensors", state)
            states.append(Item(item.id, need.source, folder / f"{item.id}.safetensors"))
        items[need] = states
    items[NEEDS[0]].append(Item("bad", NEEDS[0].source, None, failed="constant"))
    found = metric.reduce(MetricInputs("g@smoke", "d", DATA, items, "artefacts-1"), run)
    return {(one.metric, one.region, one.reference): one for one in found if isinstance(one, Score)}


def test_a_seam_is_seen_and_named(run: Run, tmp_path: Path) -> None:
    found = scores(run, tmp_path, seam)
    joint = found["artefact_joint", "", "train"]
    assert joint.p is not None and joint.p < 0.01 and "artefact_seam middle z" in joint.warning
    assert (joint.n, joint.failed) == (11, 1)
    shift = found["artefact_seam_shift", "middle z", "train"]
    assert shift.low is not None and shift.low > 1


def test_clean_samples_are_not_flagged(run: Run, tmp_path: Path) -> None:
    joint = scores(run, tmp_path, lambda hu: hu)["artefact_joint", "", "train"]
    assert joint.p is not None and joint.p > 0.05 and not joint.warning


@pytest.mark.parametrize("shape", [(32, 32, 16), (8, 8, 8), (16, 20, 9)])
@pytest.mark.parametrize("level", [-1000, 40, None])
def test_any_grid_and_constant_volumes_are_measured(shape: tuple[int, int, int], level: int | None) -> None:
    hu = np.full(shape, level or 0) if level is not None else np.random.default_rng(0).normal(40, 20, shape)
    found = measure(hu.astype(np.int16), (5.0, 5.0, 5.0))
    assert len(found) == len(DESCRIPTORS) and not np.isinf(found).any()


def test_a_failed_item_cannot_be_measured(run: Run) -> None:
    with pytest.raises(UserError, match="failed and has no volume"):
        list(Artefacts(ArtefactsConfig()).extract([Item("a", NEEDS[0].source, None)], run))


def test_the_voxel_size_is_that_of_the_protocol() -> None:
    grid = Grid(shape=(8, 8, 8), spacing=(1.0, 1.0, 2.0))
    config = ArtefactsConfig().for_data(DATA.model_copy(update={"grid": grid}))
    assert config.spacing == (1.0, 1.0, 2.0) and ArtefactsConfig().for_data(DATA).spacing is None
