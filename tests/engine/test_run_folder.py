"""The run folder: found again, named for people, linked into the store, and re-runnable from its own file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medlord_bench.engine import resolve
from medlord_bench.engine.plan import Plan, read_plan
from medlord_bench.engine.planner import build
from medlord_bench.engine.run_file import RunFile, read_run_file
from medlord_bench.engine.run_folder import (
    find,
    locate,
    newest_finished,
    open_run,
    progress_of,
    record_provenance,
    settings_of,
)
from medlord_bench.engine.store import Store
from medlord_bench.engine.worker import Settings, output
from medlord_bench.errors import UserError

SET = {"dataset.shape": (16, 16, 16), "dataset.n_train": 2, "dataset.n_val": 1, "dataset.n_test": 2}


def spec(**fields: Any) -> RunFile:
    given = {"generators": ("noise",), "dataset": "phantom", "metrics": ("reconstruction",), "set": SET}
    return RunFile(**{**given, **fields})


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., tuple[Plan, Path]]:
    """Opens the run of a run file in one store."""

    def make(**fields: Any) -> tuple[Plan, Path]:
        file = spec(**fields)
        plan = build(resolve.resolve(file))
        settings = Settings(store=tmp_path, device="cpu")
        return plan, open_run(Store(tmp_path), plan, file, settings)

    return make


def aged(folder: Path, seconds: float) -> None:
    """As if the run had been started that long ago."""
    path = folder / "plan.json"
    os.utime(path, (path.stat().st_atime, path.stat().st_mtime - seconds))


def test_the_same_run_opens_the_same_folder(opened: Any, tmp_path: Path) -> None:
    plan, folder = opened()
    assert opened() == (plan, folder)
    assert find(Store(tmp_path), plan.run_key) == folder
    assert folder.name.endswith(f"_noise_phantom_{plan.run_key[:8]}")


def test_another_seed_or_number_of_samples_is_another_run(opened: Any) -> None:
    assert len({opened(**fields)[1] for fields in ({}, {"seed": 1}, {"samples": 3})}) == 3


def test_a_run_of_another_day_is_gone_on_with_in_its_own_folder(opened: Any) -> None:
    _, folder = opened()
    old = folder.rename(folder.with_name(folder.name.replace(folder.name[:10], "2020-01-01")))
    assert opened()[1] == old


def test_a_long_name_is_cut_before_the_key_that_tells_runs_apart(opened: Any) -> None:
    presets = ("smoke", "released-luna")
    many = ("noise", *(f"medlord{variant}@{preset}" for variant in ("", ":untrained") for preset in presets))
    (plan, first), (_, second) = opened(generators=many), opened(generators=many, seed=1)
    assert first != second and len(first.name) <= 120
    assert first.name.endswith(plan.run_key[:8])
    assert opened(generators=many)[1] == first


def test_the_run_file_in_the_folder_gives_the_same_plan(opened: Any) -> None:
    plan, folder = opened(seed=3, samples=4, conditional=False)
    assert build(resolve.resolve(read_run_file(folder / "run.yaml"))) == plan
    assert read_plan(folder) == plan


def test_links_lead_to_the_objects_also_after_the_store_moved(opened: Any, tmp_path: Path) -> None:
    plan, folder = opened()
    step = plan.step("samples:noise")
    items = output(Store(tmp_path), step).items
    items.mkdir(parents=True)
    assert (folder / "samples" / "noise").resolve() == items
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    assert (moved / folder.relative_to(tmp_path) / "samples" / "noise").is_dir()


def test_without_links_the_listing_names_every_object(
    opened: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(self: Path, target: Any, target_is_directory: bool = False) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    plan, folder = opened()
    listed = dict(line.split("\t") for line in (folder / "objects.tsv").read_text().splitlines())
    assert Path(listed["samples/noise"]) == output(Store(tmp_path), plan.step("samples:noise")).items
    assert not (folder / "samples" / "noise").exists()


def test_a_link_follows_a_key_that_changed(opened: Any) -> None:
    _, folder = opened()
    link = folder / "samples" / "noise"
    wanted = link.readlink()
    link.unlink()
    link.symlink_to("elsewhere")
    opened()
    assert link.readlink() == wanted


def test_the_newest_run_is_the_one_opened_last(opened: Any, tmp_path: Path) -> None:
    _, first = opened()
    _, second = opened(seed=1)
    aged(first, 20)
    aged(second, 10)
    assert locate(Store(tmp_path), None) == second
    opened()
    assert locate(Store(tmp_path), None) == first


def test_only_a_run_with_results_is_finished(opened: Any, tmp_path: Path) -> None:
    _, first = opened()
    _, second = opened(seed=1)
    with pytest.raises(UserError, match="no finished run"):
        newest_finished(Store(tmp_path))
    (first / "results" / "scores.json").write_text("{}")
    aged(first, 20)
    assert newest_finished(Store(tmp_path)) == first
    assert locate(Store(tmp_path), None) == second


@pytest.mark.parametrize("name", ["yesterday", "/nowhere"])
def test_a_run_that_is_not_there_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{name}: not a run folder, nor the name of a run in"):
        locate(Store(tmp_path), name)


def test_an_empty_store_says_how_to_start(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run yet; start one: medlord-bench run"):
        locate(Store(tmp_path), None)


def test_the_settings_last_used_are_those_read(opened: Any, tmp_path: Path) -> None:
    _, folder = opened()
    assert settings_of(folder) == Settings(store=tmp_path, device="cpu")


@pytest.mark.parametrize("content", [None, "{", '{"store": "x", "devise": "cpu"}'])
def test_settings_that_cannot_be_read_are_named(opened: Any, content: str | None) -> None:
    _, folder = opened()
    path = folder / "settings.json"
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    with pytest.raises(UserError, match="settings.json"):
        settings_of(folder)


def test_progress_counts_what_is_published(opened: Any, tmp_path: Path) -> None:
    plan, _ = opened(samples=3)
    step = plan.step("samples:noise")
    assert progress_of(Store(tmp_path), step) == (0, 3)
    output(Store(tmp_path), step).put_failure("sample-00002", "constant", {})
    assert progress_of(Store(tmp_path), step) == (1, 3)


def test_provenance_keeps_every_sitting(opened: Any) -> None:
    _, folder = opened()
    for _ in range(3):
        record_provenance(folder, "cpu")
    found = json.loads((folder / "provenance.json").read_text())
    assert found["device"] == "cpu"
    assert len(found["sittings"]) == 3
    assert all(sitting["host"] == found["hostname"] for sitting in found["sittings"])
