"""`plan`: what a run would do, without doing it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def rows(done: Any) -> dict[str, dict[str, Any]]:
    assert done.code == 0, done.err
    return {row["step"]: row for row in json.loads(done.out)["steps"]}


def test_a_plan_writes_nothing_and_lists_every_step_to_do(bench: Any, noise: Any, tmp_path: Path) -> None:
    found = rows(bench("plan", *noise, "--store", tmp_path / "store", "--json"))
    assert all(row["to_do"] == row["of"] > 0 for row in found.values())
    assert list(found)[:3] == ["images", "train:noise:statistics", "samples:noise"]
    assert found["images"]["of"] == 8
    assert not (tmp_path / "store").exists()


def test_a_plan_knows_what_is_there(bench: Any, noise: Any, finished: Path) -> None:
    assert all(row["to_do"] == 0 for row in rows(bench("plan", *noise, "--store", finished, "--json")).values())
    more = rows(bench("plan", *noise, "--samples", "10", "--store", finished, "--json"))
    to_do = {step: row["to_do"] for step, row in more.items() if row["to_do"]}
    features = next(step for step in more if step.startswith("features:samples:noise"))
    assert to_do == {"samples:noise": 7, features: 7, "scores:noise:fid": 1}


def test_a_plan_in_plain_words_names_protocol_grid_store_and_disk(bench: Any, noise: Any, tmp_path: Path) -> None:
    big = ("--set", "dataset.shape=512,512,256")
    first, images, *_ = bench("plan", *noise, *big, "--store", tmp_path).out.splitlines()
    assert "grid 512x512x256" in first and str(tmp_path) in first
    # int16 and uint8 of 8 x 512 x 512 x 256 voxels: 1.5 GiB.
    assert images.split("  ")[-1] == "about 1.5 GiB of disk" and "8 of 8 to do" in images


def test_a_plan_agrees_with_the_run_that_follows(bench: Any, noise: Any, finished: Path) -> None:
    (plan,) = finished.glob("runs/*/plan.json")
    ran = {step["id"]: step["key"] for step in json.loads(plan.read_text())["steps"]}
    planned = rows(bench("plan", *noise, "--store", finished, "--json"))
    assert {step: row["key"] for step, row in planned.items()} == ran


def test_threads_batch_store_and_executor_change_no_key(bench: Any, noise: Any, tmp_path: Path) -> None:
    settings = ("--threads", "2", "--batch", "4", "--executor", "local", "--workers", "2", "--device", "cpu")
    first = rows(bench("plan", *noise, "--store", tmp_path / "a", "--json"))
    other = rows(bench("plan", *noise, "--store", tmp_path / "b", *settings, "--json"))
    assert first == other


def test_a_plan_for_data_that_are_not_there_is_exit_3(bench: Any) -> None:
    done = bench("plan", "--generator", "noise", "--dataset", "luna16", "--json")
    assert (done.code, done.out) == (3, "")
    assert done.err.startswith("Error: luna16: ")


MEDLORD = ("--generator", "medlord@smoke", "--no-conditional")


def test_a_plan_says_what_memory_each_step_of_a_generator_needs(bench: Any, tmp_path: Path) -> None:
    found = rows(bench("plan", *MEDLORD, *bench.phantom, "--store", tmp_path, "--json"))
    told = {step: row["memory_gib"] for step, row in found.items() if "memory_gib" in row}
    stages = [f"train:medlord@smoke:{stage}" for stage in ("autoencoder", "latents", "diffusion")]
    assert list(told) == [*stages, "samples:medlord@smoke", "reconstructions:medlord@smoke"]
    assert all(0.5 <= gib < 1 for gib in told.values())  # hardly more than the context


def test_a_plan_of_a_generator_without_dry_runs_gives_no_number(bench: Any, noise: Any, tmp_path: Path) -> None:
    found = rows(bench("plan", *noise, "--store", tmp_path, "--json"))["samples:noise"]
    assert found["memory_gib"] is None and found["memory"].startswith("not predictable")


def test_a_plan_that_cannot_fit_is_exit_4_and_shows_itself_all_the_same(bench: Any, tmp_path: Path) -> None:
    done = bench("plan", *MEDLORD, *bench.phantom, "--store", tmp_path, "--memory-limit", "1GiB", "--device", "cpu")
    assert done.code == 4 and "samples:medlord@smoke" in done.out
    assert done.err.startswith("Error: step train:medlord@smoke:autoencoder: train autoencoder needs 1.5")
    assert "no known change makes it fit" in done.err and len(done.err.splitlines()) == 1
    left_out = bench(
        "plan", *MEDLORD, *bench.phantom, "--store", tmp_path, "--memory-limit", "1GiB", "--no-memory-check"
    )
    assert left_out.code == 0 and "of memory" not in left_out.out
