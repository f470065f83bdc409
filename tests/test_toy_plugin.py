"""A third party's generator and metric, each in a distribution of its own: they install, are listed, pass, and run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medlord_bench.volumes.io import read_volume

CONTRACT = Path(__file__).with_name("contract")


def laid_out(name: str, folders: pytest.TempPathFactory) -> Path:
    """A distribution's wheel, built without a network and laid into a folder, as `pip install --target` does."""
    copy, out, place = (folders.mktemp(part) for part in ("source", "wheel", "site"))
    shutil.copytree(
        CONTRACT / name, copy, dirs_exist_ok=True, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
    )
    code = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    built = subprocess.run([sys.executable, "-c", code, str(out)], cwd=copy, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr[-2000:]
    (wheel,) = out.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(place)
    return place


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the toy generator is installed."""
    return laid_out("toy_generator", tmp_path_factory)


@pytest.fixture(scope="module")
def with_metric(bench: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """``with_metric(...)`` runs `medlord-bench` where the toy metric is installed."""
    place = laid_out("toy_metric", tmp_path_factory)
    prelude = f"import sys; sys.path.insert(0, {str(place)!r})"
    return lambda *words: bench(*words, env={"PYTHONPATH": str(place)}, prelude=prelude)


@pytest.fixture(scope="module")
def toy(bench: Any, installed: Path) -> Any:
    """``toy(...)`` runs `medlord-bench` where the toy is installed."""
    environment = {"PYTHONPATH": str(installed)}
    return lambda *words: bench(*words, env=environment, prelude=f"import sys; sys.path.insert(0, {str(installed)!r})")


def test_it_is_listed_by_a_fresh_interpreter_with_its_own_distribution(installed: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "medlord_bench", "list", "generators", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert (rows["toy"]["distribution"], rows["toy"]["version"]) == ("medlord-bench-toy", "0.1.0")
    assert (rows["toy"]["presets"], rows["toy"]["variants"]) == (["tiny"], ["quiet"])
    assert {"medlord", "noise"} <= set(rows)


def test_it_is_unknown_where_it_is_not_installed(bench: Any) -> None:
    done = bench("check", "generator", "toy")
    assert (done.code, done.out) == (2, "")
    assert done.err == "Error: unknown generator 'toy'; known: " + done.err.partition("known: ")[2]


def test_it_passes_its_check(toy: Any) -> None:
    done = toy("check", "generator", "toy", "--json")
    assert done.code == 0, done.out
    answer = json.loads(done.out)
    assert answer["ok"] is True
    names = " ".join(check["name"] for check in answer["checks"])
    for promise in (
        "stopped 3 times and resumed",
        "does not depend on its batch",
        "reconstruct: one volume per request",
    ):
        assert promise in names


def test_it_runs_on_the_phantom_to_a_page_beside_a_built_in(bench: Any, toy: Any, tmp_path: Path) -> None:
    words = ("--generator", "toy", "--generator", "toy:quiet", "--generator", "noise", *bench.phantom)
    done = toy("run", *words, "--store", tmp_path)
    assert done.code == 0, done.err
    page = Path(done.out.strip())
    assert page.name == "page.html" and "toy:quiet@tiny" in page.read_text()
    scores = json.loads((page.parents[1] / "results" / "scores.json").read_text())["scores"]
    psnr = {score["generator"]: score for score in scores if score["metric"] == "psnr" and not score["region"]}
    # Differences rounded to 50 HU, clipped to nothing: an error of at most 25 HU in a window of 2000 HU.
    assert psnr["toy@tiny"]["value"] > 20 * np.log10(2000 / 25)
    assert psnr["noise"]["status"] == "not_run"


def test_its_volumes_are_what_its_few_lines_say(bench: Any, toy: Any, tmp_path: Path) -> None:
    settings = ("--set", "toy.noise_hu=0", "--set", "toy.steps=1", "--no-report")
    done = toy("run", "--generator", "toy", *bench.phantom, *settings, "--store", tmp_path)
    assert done.code == 0, done.err
    (first, *others) = (read_volume(path).hu for path in sorted(tmp_path.glob("objects/samples/*/items/*.nii.gz")))
    training = [
        np.load(path) for path in sorted(tmp_path.glob("objects/images/*/items/*.npy")) if "labels" not in path.name
    ]
    assert any(np.array_equal(first, image) for image in training), "the mean of one case, without noise, is that case"
    assert all(np.array_equal(first, other) for other in others)


# ------------------------------------------------------------------------------------------------------------- a metric
def test_a_metric_is_listed_and_passes_its_check(with_metric: Any) -> None:
    listed = with_metric("list", "metrics", "--json")
    assert listed.code == 0, listed.err
    assert "toy-mae" in {row["name"] for row in json.loads(listed.out)}
    done = with_metric("check", "metric", "toy-mae", "--json")
    assert done.code == 0, done.out


def test_a_metric_stands_in_the_overview_the_comparisons_and_the_results(with_metric: Any, tmp_path: Path) -> None:
    """With nothing but its own module and entry point: no list of the bench names it."""
    sizes = ("dataset.shape=32,32,16", "dataset.n_train=2", "dataset.n_val=2", "dataset.n_test=6")
    words = ["--generator", "blur", "--generator", "hu-shift", "--dataset", "phantom", "--metric", "toy-mae"]
    words += [word for size in sizes for word in ("--set", size)]
    done = with_metric("run", *words, "--samples", "0", "--store", tmp_path)
    assert done.code == 0, done.err
    page = Path(done.out.strip())
    results = page.parents[1] / "results"
    found = json.loads((results / "scores.json").read_text())
    (declared,) = found["quantities"]
    assert (declared["name"], declared["margin"]) == ("toy_mae", 5.0)
    scores = {score["generator"]: score for score in found["scores"]}
    assert scores["hu-shift"]["value"] > 10 and scores["hu-shift"]["unit"] == "HU"
    assert scores["blur"]["protocol"].startswith("toy-mae-") and scores["blur"]["protocol"] in found["protocols"]
    (pair,) = json.loads((results / "comparisons.json").read_text())["comparisons"]
    assert (pair["metric"], pair["margin"], pair["n"]) == ("toy_mae", 5.0, 6)
    overview = page.read_text().split('<table class="forest">', 1)[1].split("</table>", 1)[0]
    assert "toy_mae" in overview and declared["meaning"] in unescape(overview)
    assert "hu-shift  toy_mae" in done.err
