"""`fid3d`: distances of one vector for each volume, with names of their own, and honest about few volumes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from medlord_bench import stats
from medlord_bench.contracts import DataProtocol, Grid, Item, Made, MetricInputs, Need, Run, registry
from medlord_bench.contracts.metrics import quantities_of
from medlord_bench.contracts.reference import HasReference
from medlord_bench.contracts.results import Replicates, Score
from medlord_bench.errors import UserError
from medlord_bench.metrics.fid.volume_metric import FID3D, FID3DConfig
from medlord_bench.metrics.fid.volume_quantities import QUANTITIES
from medlord_bench.volumes.arrays import load_state, save_state

WIDTH = 64
DATA = DataProtocol(
    name="toy",
    grid=Grid(shape=(64, 64, 48)),
    fit="crop-pad",
    split="by hand",
    split_sha256="0" * 64,
    counts={"train": 20, "val": 0, "test": 20},
    masks="none",
)
MakeItems = Callable[..., list[Item]]


@pytest.fixture(autouse=True)
def extractor(monkeypatch: pytest.MonkeyPatch) -> None:
    """The description of an extractor without its weights."""
    made = SimpleNamespace(preprocessing={"backbone": "a 3D network", "weights_sha256": "0"}, version=1)
    monkeypatch.setattr(FID3D, "_extractor", lambda self: made)


@pytest.fixture
def items(tmp_path: Path) -> MakeItems:
    def make(source: str, n: int, shift: float = 0.0, failed: int = 0, patients: int = 0) -> list[Item]:
        made = []
        for i in range(n):
            name = f"{source.replace(':', '-')}-{i:03d}"
            patient = f"p{i % patients}" if patients else None
            if i < failed:
                made.append(Item(name, source, None, failed="constant"))
                continue
            rows = np.random.default_rng([i, len(source)]).normal(shift, 1, (1, WIDTH)).astype(np.float32)
            save_state(tmp_path / f"{name}.safetensors", {"volume": rows})
            made.append(Item(name, source, tmp_path / f"{name}.safetensors", patient=patient))
        return made

    return make


def measured(run: Run, sets: Sequence[list[Item]], data: DataProtocol = DATA, **settings: object) -> list[Any]:
    sources = ("samples", "real:train", "real:test")
    given = {Need(name, Made.FEATURES, extractor="ct3d"): some for name, some in zip(sources, sets, strict=True)}
    config = FID3DConfig.model_validate({"permutations": 499, **settings})
    return list(FID3D(config).reduce(MetricInputs("noise", "toy", data, given), run))


def scores(run: Run, sets: Sequence[list[Item]], **settings: Any) -> dict[tuple[str, str], Score]:
    found = [one for one in measured(run, sets, **settings) if isinstance(one, Score)]
    assert all(not one.region for one in found)
    return {(one.metric, one.reference): one for one in found}


def rows(some: Sequence[Item]) -> np.ndarray:
    return np.concatenate([load_state(item.path)["volume"] for item in some if item.path])


def test_values_are_those_of_one_vector_a_volume(run: Run, items: MakeItems) -> None:
    sets = items("samples", 18, 0.6), items("real:train", 18), items("real:test", 18)
    found, (x, _, z) = scores(run, sets), (rows(some) for some in sets)
    assert found["fid3d", "test"].value == pytest.approx(stats.frechet_distance(x, z))
    assert found["fid3d", "test"].floor == pytest.approx(stats.frechet_distance(rows(sets[1]), z))
    one_each = [row[None] for row in x], [row[None] for row in z]
    assert found["kid3d", "test"].value == pytest.approx(stats.kernel_distance(*one_each, 0, 499).value)
    prdc = stats.prdc(z, x, 3)
    for name in ("precision", "recall", "density", "coverage"):
        assert found[f"{name}3d", "test"].value == pytest.approx(getattr(prdc, name))
    assert {metric for metric, _ in found} == {one.name for one in QUANTITIES}
    assert found["kid3d", "test"].p < 0.01 and found["mmd3d", "test"].p < 0.01


def test_mmd_is_that_of_seven_gaussians_in_closed_form(run: Run, items: MakeItems) -> None:
    sets = items("samples", 9, 0.5), items("real:train", 9), items("real:test", 9)
    x, y = rows(sets[0]).astype(float), rows(sets[2]).astype(float)
    apart = cdist(*[np.concatenate([x, y])] * 2)
    above = np.sort(apart[np.triu_indices(18, 1)])
    median = above[(len(above) - 1) // 2]
    kernel = np.mean([np.exp(-(apart**2) / (2 * (r * median) ** 2)) for r in (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8)], axis=0)
    within = sum((part.sum() - 9) / 72 for part in (kernel[:9, :9], kernel[9:, 9:]))
    assert scores(run, sets)["mmd3d", "test"].value == pytest.approx(within - 2 * kernel[:9, 9:].mean())


def test_values_are_medmetrics_on_the_same_features(run: Run, items: MakeItems) -> None:
    medmetric = pytest.importorskip("medmetric.metrics.mmd", reason="pip install medmetric")
    sets = items("samples", 12, 0.5), items("real:train", 12), items("real:test", 12)
    found = scores(run, sets)
    x, y = (torch.from_numpy(rows(sets[i])).double() for i in (0, 2))
    assert found["mmd3d", "test"].value == pytest.approx(medmetric.MMD()(x, y, squared=True).item(), rel=1e-9)


def test_few_volumes_are_said_and_names_are_never_those_of_slices(run: Run, items: MakeItems) -> None:
    sets = items("samples", 10), items("real:train", 10), items("real:test", 10)
    found = scores(run, sets)
    assert "10 volumes, 64 features: each covariance has rank 9" in found["fid3d", "test"].note_text
    assert "a 3D network" in found["kid3d", "test"].note_text
    assert "median of the training volumes is assumed" in found["kid3d", "test"].note_text
    known = DATA.model_copy(update={"grid": Grid(shape=(64, 64, 48), spacing=(1, 1, 1))})
    assert "assumed" not in scores(run, sets, data=known)["kid3d", "test"].note_text
    assert found["precision3d", "test"].status == "not_run"  # fewer than 16
    both = quantities_of({name: registry.load("metrics", name) for name in ("fid", "fid3d")})
    assert {"fid", "fid3d", "kid", "kid3d"} <= set(both)


def test_equal_sets_are_about_zero_and_far_ones_are_not(run: Run, items: MakeItems) -> None:
    equal = scores(run, (items("samples", 16), items("real:train", 16), items("real:test", 16)))
    assert equal["kid3d", "test"].low < 0 < equal["kid3d", "test"].high and equal["kid3d", "test"].p > 0.01
    assert equal["fid3d", "test"].value == pytest.approx(equal["fid3d", "test"].floor, rel=0.15)
    far = scores(run, (items("samples", 16, 1.0), items("real:train", 16), items("real:test", 16)))
    assert far["fid3d", "test"].value > 1.3 * far["fid3d", "test"].floor


def test_replicates_leave_out_samples_and_patients(run: Run, items: MakeItems) -> None:
    made = measured(run, (items("samples", 12), items("real:train", 12, patients=6), items("real:test", 12)))
    found = {(one.metric, one.reference): one for one in made if isinstance(one, Replicates)}
    assert set(found) == {(name, split) for name in ("fid3d", "kid3d", "mmd3d") for split in ("train", "test")}
    assert len(found["kid3d", "train"].samples) == 12 and len(found["kid3d", "train"].real) == 6


def test_reasons_and_failures(run: Run, items: MakeItems) -> None:
    few = scores(run, (items("samples", 5), items("real:train", 12), items("real:test", 12)))
    assert {one.status for one in few.values()} == {"not_run"} and len(few) == 2 * len(QUANTITIES)
    assert "5 samples; fid3d needs at least 8" in few["kid3d", "test"].reason
    failed = scores(run, (items("samples", 12, failed=2), items("real:train", 12), items("real:test", 12)))
    assert (failed["kid3d", "test"].n, failed["kid3d", "test"].failed, failed["kid3d", "test"].n_reference) == (
        12,
        2,
        10,
    )


def test_slice_features_are_refused_and_there_is_no_reference_file(run: Run, items: MakeItems, tmp_path: Path) -> None:
    samples = items("samples", 8)
    save_state(samples[0].path, {"axial": np.zeros((3, WIDTH), np.float32)})
    with pytest.raises(UserError, match="'volume'"):
        scores(run, (samples, items("real:train", 8), items("real:test", 8)))
    assert not isinstance(FID3D(FID3DConfig()), HasReference)
