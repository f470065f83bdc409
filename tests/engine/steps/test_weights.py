"""Which folder a training lies in, what is recorded of it, and a run with a budget of time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from medlord_bench.engine.steps.weights import _training_folder
from medlord_bench.engine.store import Store


def test_a_training_that_went_past_a_budget_is_left_alone(tmp_path: Path) -> None:
    store = Store(tmp_path)
    shared = _training_folder(store, "lineage", 10, 60.0)
    assert _training_folder(store, "lineage", 10, 60.0) == shared, "the same budget resumes"
    assert _training_folder(store, "lineage", 20, 90.0) == shared, "a larger one goes on"
    fewer, shorter = _training_folder(store, "lineage", 10, 90.0), _training_folder(store, "lineage", 20, 60.0)
    assert len({shared, fewer, shorter}) == 3
    assert _training_folder(store, "lineage", 20, None) == shared, "no limit of time is the largest"
    assert _training_folder(store, "lineage", 20, 90.0) != shared


def test_a_run_with_a_budget_of_time_says_how_far_each_training_got(bench: Any, tmp_path: Path) -> None:
    small = ("dataset.shape=32,32,16", "dataset.n_train=4", "dataset.n_val=2", "dataset.n_test=2")
    fid = ("diffusion.selection=fid", "diffusion.candidate_every=2", "diffusion.candidate_samples=2")
    sets = [word for one in (*small, *(f"generator.{one}" for one in fid)) for word in ("--set", one)]
    options = ["--generator", "medlord@smoke", "--dataset", "phantom", "--metric", "reconstruction", *sets]
    hours = 1e-9  # spent by the first step of each stage
    words = ("run", *options, "--no-conditional", "--train-hours", hours, "--store", tmp_path, "--json")
    done = bench(*words, prelude=bench.small_features)
    assert done.code == 0, done.err
    answer = json.loads(done.out)
    page = Path(answer["report"][0]).read_text()
    assert "Budget of each contestant" in page and "at most 1e-09 h" in page
    plan = json.loads((Path(answer["run"]) / "plan.json").read_text())
    steps = {}
    for step in plan["steps"]:
        if step["kind"] == "weights":
            items = tmp_path / "objects" / "weights" / step["key"] / "items"
            facts = json.loads((items / "weights.json").read_text())["facts"]["trained"]
            assert facts["device"] == "cpu" and facts["seconds"] >= 0
            steps[step["detail"]["stage"]] = facts["steps"]
    assert steps == {"autoencoder": 1, "latents": None, "diffusion": 1}
    (chosen,) = (tmp_path / "objects" / "select").glob("*/items/weights.json")
    assert json.loads(chosen.read_text())["facts"]["steps"] == 1, "the last step reached is the only candidate"
