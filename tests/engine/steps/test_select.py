"""Choosing a checkpoint by FID on the validation split: what is chosen, what is published, what it costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

SELECT = (
    "dataset.shape=32,32,16",
    "dataset.n_train=4",
    "dataset.n_test=3",
    "generator.diffusion.selection=fid",
    "generator.diffusion.candidate_every=2",
)
SELECT += ("generator.diffusion.candidate_samples=2", "dataset.n_val=2")
UNPREDICTED = ("--no-memory-check",)  # these tests read other columns of the plan
OPTIONS = ("--generator", "medlord@smoke", "--dataset", "phantom", "--metric", "reconstruction", "--no-conditional")


def options(*more: str) -> list[str]:
    return [*OPTIONS, *(word for setting in (*SELECT, *more) for word in ("--set", setting))]


@pytest.fixture(scope="module")
def store(bench: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("select")
    done = bench("run", *options(), "--store", place, "--no-report", prelude=bench.small_features)
    assert done.code == 0, done.err
    return place


def test_the_candidate_of_the_lowest_fid_is_published(store: Path) -> None:
    (selected,) = (store / "objects" / "select").iterdir()
    facts = json.loads((selected / "items" / "weights.json").read_text())["facts"]
    fids = {int(step): fid for step, fid in facts["fid_val"].items()}
    assert sorted(fids) == [2, 4, 6] and len(set(fids.values())) == 3
    assert facts["steps"] == min(fids, key=lambda step: fids[step])
    candidates = list((store / "objects" / "weights").glob("*/items/weights/step-*"))
    assert sorted(path.name for path in candidates) == ["step-00000002", "step-00000004", "step-00000006"]
    chosen = next(path for path in candidates if path.name == f"step-{facts['steps']:08d}")
    published = {path.name: path.read_bytes() for path in (selected / "items" / "weights").iterdir()}
    assert published == {path.name: path.read_bytes() for path in chosen.iterdir()}
    others = [path for path in candidates if path != chosen]
    name = next(path.name for path in chosen.iterdir() if path.suffix == ".safetensors")
    assert all((path / name).read_bytes() != published[name] for path in others)


def test_a_candidate_already_measured_is_not_sampled_again(bench: Any, store: Path) -> None:
    (selected,) = (store / "objects" / "select").iterdir()
    items = selected / "items"
    known = items / "step-00000002.json"
    sidecar = json.loads(known.read_text())
    sidecar["facts"]["fid"] = 1e-3  # what only a look at the stored value can find
    known.write_text(json.dumps(sidecar))
    (items / "weights.json").unlink()
    done = bench("run", *options(), "--store", store, "--no-report", prelude=bench.small_features)
    assert done.code == 0, done.err
    assert json.loads((items / "weights.json").read_text())["facts"]["steps"] == 2


def test_plan_prices_the_choice(bench: Any, tmp_path: Path) -> None:
    done = bench("plan", *options(), *UNPREDICTED, "--store", tmp_path, "--json")
    assert done.code == 0, done.err
    rows = {row["step"]: row for row in json.loads(done.out)["steps"]}
    assert rows["select:medlord@smoke:diffusion"]["volumes_to_sample"] == 3 * 2
    text = bench("plan", *options(), *UNPREDICTED, "--store", tmp_path).out
    assert "samples 6 volumes for selection" in text


def test_another_way_to_choose_trains_nothing_but_the_stage_again(bench: Any, tmp_path: Path) -> None:
    def keys(*more: str) -> dict[str, str]:
        done = bench("plan", *options(*more), *UNPREDICTED, "--store", tmp_path, "--json")
        return {row["step"]: row["key"] for row in json.loads(done.out)["steps"]}

    first, second = keys(), keys("generator.diffusion.candidate_samples=3")
    changed = {step for step in first if first[step] != second[step]}
    assert "select:medlord@smoke:diffusion" in changed and "samples:medlord@smoke" in changed
    assert "train:medlord@smoke:autoencoder" not in changed and "train:medlord@smoke:latents" not in changed
