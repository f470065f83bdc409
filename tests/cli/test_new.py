"""`medlord-bench new`: the distribution of a third party's generator or metric installs, is listed, passes, and runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medlord_bench.cli import new
from medlord_bench.errors import UserError
from medlord_bench.volumes.io import read_volume


def laid_out(kind: str, name: str, folders: pytest.TempPathFactory) -> Path:
    """The wheel of a new distribution, built without a network and laid into a folder, as `pip install --target` does."""
    source, out, place = folders.mktemp("source") / name, folders.mktemp("wheel"), folders.mktemp("site")
    new.write_plugin(kind, name, source)
    code = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    built = subprocess.run([sys.executable, "-c", code, str(out)], cwd=source, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr[-2000:]
    (wheel,) = out.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(place)
    return place


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the toy generator is installed."""
    return laid_out("generators", "toy", tmp_path_factory)


@pytest.fixture(scope="module")
def with_metric(bench: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """``with_metric(...)`` runs `medlord-bench` where the toy metric is installed."""
    place = laid_out("metrics", "toy-mae", tmp_path_factory)
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


# -------------------------------------------------------------------------------------------------------- what is written
@pytest.mark.parametrize(("kind", "name"), [("generator", "mine"), ("metric", "my-mae")])
def test_the_command_writes_a_distribution_of_clean_code_and_says_what_is_next(
    kind: str, name: str, bench: Any, tmp_path: Path
) -> None:
    done = bench("new", kind, name, "--to", tmp_path / name)
    assert done.code == 0, done.err
    assert done.out.splitlines()[:2] == [f"pip install -e {tmp_path / name}", f"medlord-bench check {kind} {name}"]
    module = f"medlord_bench_{name.replace('-', '_')}"
    written = {path.relative_to(tmp_path / name).as_posix() for path in (tmp_path / name).rglob("*") if path.is_file()}
    assert written == {"pyproject.toml", "README.md", f"{module}.py", f"tests/test_{module}.py"}
    ruff = [sys.executable, "-m", "ruff"]
    for words in (["check", "--select", "E,F,I,B,UP"], ["format", "--check"]):
        command = [*ruff, *words, "--isolated", "--no-cache", "--line-length", "120", "."]
        found = subprocess.run(command, cwd=tmp_path / name, capture_output=True, text=True)
        assert found.returncode == 0, found.stdout


def test_the_tests_that_a_new_plugin_brings_pass(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    kinds = {"mine": "generators", "my-mae": "metrics"}
    places = [str(laid_out(kind, name, tmp_path_factory)) for name, kind in kinds.items()]
    sources = [str(new.write_plugin(kind, name, tmp_path / name)) for name, kind in kinds.items()]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *sources]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "6 passed" in done.stdout


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("generators", "noise", "name 'noise': medlord-bench has a generator of that name; choose another"),
        ("metrics", "My_MAE", "name 'My_MAE': expected lower-case letters, digits and single hyphens, e.g. my-vae"),
        ("generators", "a:b", "name 'a:b': expected lower-case"),
        ("reports", "mine", "unknown kind with a template 'reports'; known: generators, metrics"),
    ],
)
def test_a_name_or_kind_that_cannot_be_used_is_refused_before_anything_is_written(
    kind: str, name: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as error:
        new.write_plugin(kind, name, tmp_path / "new")
    assert str(error.value).startswith(said)
    assert not (tmp_path / "new").exists()


def test_a_folder_with_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="exists and is not an empty folder"):
        new.write_plugin("generators", "mine", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
