"""One seed, other batches, workers and numbers of items: the same noise, the same network outputs, the same volumes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medlord_bench.engine.plan import Plan, read_plan
from medlord_bench.engine.run_folder import locate
from medlord_bench.engine.store import Store
from medlord_bench.generators.medlord.diffusion import load_diffusion, sample_latents
from medlord_bench.util import seeds
from medlord_bench.volumes.io import read_volume

SAMPLES = 6
WORDS = ("run", "--generator", "medlord@smoke", "--no-report", "--samples", str(SAMPLES))
# Trained a little longer than `smoke` is, so that volumes span hundreds of HU and differ from one another.
TRAINED = ("--set", "generator.autoencoder.steps=80", "--set", "generator.autoencoder.lr_g=0.003")
TOLERANCE_HU, TOLERANCE_SHARE = 1, 0.001


@pytest.fixture(scope="module")
def words(bench: Any) -> tuple[str, ...]:
    return (*WORDS, *TRAINED, *bench.phantom)


@pytest.fixture(scope="module")
def alone(bench: Any, words: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a run with a batch of one in one process."""
    store: Path = tmp_path_factory.mktemp("alone") / "store"
    done = bench(*words, "--store", store)
    assert done.code == 0, done.err
    first, second, *_ = volumes(store, "samples").values()
    apart = np.abs(first.astype(int) - second)
    assert (apart > TOLERANCE_HU).mean() > 0.01, "samples that hardly differ would show nothing"
    return store


def volumes(store: Path, kind: str) -> dict[str, np.ndarray]:
    return {path.name: read_volume(path).hu for path in sorted((store / "objects" / kind).rglob("*.nii.gz"))}


def without(alone: Path, store: Path, *kinds: str) -> Path:
    """A store that has everything but those kinds of object."""
    shutil.copytree(alone, store, symlinks=True)
    for kind in kinds:
        shutil.rmtree(store / "objects" / kind)
    return store


def plan_of(store: Path) -> Plan:
    return read_plan(locate(Store(store), None))


def compared(title: str, first: Path, second: Path, capfd: pytest.CaptureFixture[str]) -> list[tuple[int, float]]:
    """Largest difference in HU and share of voxels beyond the tolerance, of each sample; printed."""
    found = []
    for kind in ("samples", "conditional"):
        ours, theirs = volumes(first, kind), volumes(second, kind)
        assert ours.keys() == theirs.keys() and ours
        apart = [np.abs(ours[name].astype(int) - theirs[name]) for name in ours]
        found += [(int(one.max()), float((one > TOLERANCE_HU).mean())) for one in apart]
        same = sum(not one.any() for one in apart)
        with capfd.disabled():
            beyond = sum(int((one > TOLERANCE_HU).sum()) for one in apart)
            print(
                f"\n{title}: {kind}: {same} of {len(apart)} volumes byte-equal, {beyond} of "
                f"{sum(one.size for one in apart)} voxels beyond {TOLERANCE_HU} HU",
                end="",
            )
    return found


def same_bytes(first: Path, second: Path) -> bool:
    names = {path.relative_to(first / "objects") for path in (first / "objects").rglob("*.nii.gz")}
    return bool(names) and all(
        (first / "objects" / name).read_bytes() == (second / "objects" / name).read_bytes() for name in names
    )


# ---------------------------------------------------------------------------------------------------- noise and network
@pytest.fixture(scope="module")
def diffusion(alone: Path) -> Any:
    step = plan_of(alone).step("train:medlord@smoke:diffusion")
    return load_diffusion(Store(alone).object(step.kind, step.key).items / "weights", "cpu")


def test_the_initial_noise_of_a_sample_is_bit_equal_in_every_batch(
    diffusion: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[torch.Tensor] = []

    def unet(x: torch.Tensor, *others: Any) -> torch.Tensor:
        given.append(x.clone())
        return torch.zeros_like(x)

    unet.config = diffusion.unet.config  # type: ignore[attr-defined]
    names = [seeds.derive(0, "sample", index) for index in range(4)]
    draw = lambda some: sample_latents(unet, diffusion.schedule, some, (8, 8, 4), 3, "cpu", "fp32")  # type: ignore[arg-type]  # noqa: E731
    draw(names)
    together = given[0]
    for index, name in enumerate(names):
        given.clear()
        draw([name])
        assert torch.equal(given[0][0], together[index])
    assert not torch.equal(together[0], together[1])
    assert torch.equal(together[0], seeds.noise((8, 8, 8, 4), names[0], "start"))


def test_the_networks_outputs_agree_within_1e_5_in_every_batch(
    diffusion: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    x = torch.stack([seeds.noise((8, 8, 8, 4), "batch", index) for index in range(4)])
    with torch.no_grad():
        for t in (0, 4, 9):
            together = diffusion.unet(x, torch.full((4,), t), None)
            single = torch.cat([diffusion.unet(x[i : i + 1], torch.tensor([t]), None) for i in range(4)])
            apart = float((together - single).abs().max())
            with capfd.disabled():
                print(f"\nU-Net, t = {t}: batch 4 and batch 1 differ by at most {apart:.1e}", end="")
            assert float(single.abs().max()) > 1e-3, "a network that says nothing would agree with itself"
            assert apart < 1e-5


# --------------------------------------------------------------------------------------------------------- whole runs
def test_a_batch_of_four_changes_at_most_one_voxel_in_a_thousand(
    bench: Any, words: Any, alone: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    store = without(alone, tmp_path / "store", "samples", "conditional")
    assert bench(*words, "--batch", "4", "--store", store).code == 0
    found = compared("batch 1 and batch 4", alone, store, capfd)
    assert max(share for _, share in found) <= TOLERANCE_SHARE


@pytest.mark.parametrize("batch", [pytest.param("1", marks=pytest.mark.slow), "4"])
def test_two_workers_make_the_bytes_of_one(
    bench: Any, words: Any, alone: Path, tmp_path: Path, batch: str, capfd: pytest.CaptureFixture[str]
) -> None:
    one = without(alone, tmp_path / "one", "samples") if batch != "1" else alone
    if batch != "1":
        assert bench(*words, "--batch", batch, "--store", one).code == 0
    two = without(alone, tmp_path / "two", "samples")
    done = bench(*words, "--batch", batch, "--executor", "local", "--workers", "2", "--store", two)
    assert done.code == 0, done.err
    events = [json.loads(line) for line in (locate(Store(two), None) / "events.jsonl").read_text().splitlines()]
    workers = {e["pid"] for e in events if e["step"] == "samples:medlord@smoke" and e["event"] == "start"}
    assert len(workers) == 3, "the run in one process, then two workers"
    compared(f"1 and 2 workers, batch {batch}", one, two, capfd)
    assert same_bytes(one, two)


def test_a_stop_within_a_batch_leaves_the_bytes_of_an_unbroken_run(
    bench: Any, words: Any, alone: Path, tmp_path: Path
) -> None:
    whole = without(alone, tmp_path / "whole", "samples")
    assert bench(*words, "--batch", "4", "--store", whole).code == 0
    broken = tmp_path / "broken"
    shutil.copytree(whole, broken, symlinks=True)
    for index in (1, 2):
        next((broken / "objects" / "samples").rglob(f"sample-{index:05d}.json")).unlink()
    kept = next((broken / "objects" / "samples").rglob("sample-00000.nii.gz"))
    before = kept.stat().st_mtime_ns
    assert bench(*words, "--batch", "4", "--store", broken).code == 0
    assert same_bytes(whole, broken)
    assert kept.stat().st_mtime_ns == before, "what was there is not published again"


def test_more_samples_are_added_to_those_that_are_there(bench: Any, words: Any, alone: Path, tmp_path: Path) -> None:
    store = without(alone, tmp_path / "store")
    before = {path: path.stat().st_mtime_ns for path in (store / "objects").rglob("*.nii.gz")}
    done = bench(*words, "--samples", str(SAMPLES + 2), "--store", store)
    assert done.code == 0
    assert f"samples:medlord@smoke: 2 of {SAMPLES + 2} to do" in done.err
    assert {path: path.stat().st_mtime_ns for path in before} == before
    made = set((store / "objects").rglob("*.nii.gz")) - before.keys()
    assert sorted(path.name for path in made) == ["sample-00006.nii.gz", "sample-00007.nii.gz"]
    assert len({path.parent for path in (store / "objects" / "samples").rglob("*.nii.gz")}) == 1


def test_more_training_steps_continue_and_end_where_one_long_training_ends(
    bench: Any, words: Any, alone: Path, tmp_path: Path
) -> None:
    longer = (*words, "--set", "generator.diffusion.steps=12")
    continued, fresh = (
        without(alone, tmp_path / "continued"),
        without(alone, tmp_path / "fresh", "trainings", "weights"),
    )
    done = bench(*longer, "--store", continued)
    assert done.code == 0, done.err
    assert "train:medlord@smoke:autoencoder: already done" in done.err
    lineage = plan_of(alone).step("train:medlord@smoke:diffusion").detail["lineage"]
    assert plan_of(continued).step("train:medlord@smoke:diffusion").detail["lineage"] == lineage
    folder = continued / "objects" / "trainings" / lineage
    assert torch.load(folder / "checkpoints" / "last.pt", weights_only=True)["step"] == 12
    assert bench(*longer, "--store", fresh).code == 0
    step = plan_of(continued).step("train:medlord@smoke:diffusion")
    assert (key := step.key) != plan_of(alone).step("train:medlord@smoke:diffusion").key
    ours, theirs = (p / "objects" / "weights" / key / "items" / "weights" for p in (continued, fresh))
    assert (ours / "model.safetensors").read_bytes() == (theirs / "model.safetensors").read_bytes()
