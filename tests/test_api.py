"""The verbs from Python, and the documented example."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import medlord_bench as mb
from medlord_bench.errors import ExitCode, UserError

SMALL = {"dataset.shape": [32, 32, 16], "dataset.n_train": 4, "dataset.n_val": 2, "dataset.n_test": 4}
PAGE = Path(__file__).parents[1] / "docs" / "python.md"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place: Path = tmp_path_factory.mktemp("api") / "medlord-bench-store"
    mb.run(["noise", "holdout"], "phantom", metrics=["axes"], samples=4, set=SMALL, store=place, device="cpu")
    return place


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, medlord_bench; print([n for n in ('torch', 'pandas', 'numpy', 'pydantic') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_reading_results_loads_no_torch(store: Path) -> None:
    code = "import sys, medlord_bench as mb; mb.load(store=sys.argv[1]).scores; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, store], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_run_returns_what_load_reads(store: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    results = mb.run(["noise", "holdout"], "phantom", metrics=["axes"], samples=4, set=SMALL, store=store, device="cpu")
    assert signal.getsignal(signal.SIGINT) is before, "a notebook keeps its Ctrl-C"
    assert results.scores.equals(mb.load(store=store).scores)
    assert list(results.run.contestants) == ["noise", "holdout"]
    assert results.folder.parent == store / "runs"


def test_frames_have_documented_columns_of_documented_kinds(store: Path) -> None:
    results = mb.load(store=store)
    text = PAGE.read_text()
    for name in ("scores", "cases", "comparisons", "steps"):
        frame = getattr(results, name)
        (row,) = re.findall(rf"^\| `{name}` .*$", text, re.MULTILINE)
        documented = set(re.findall(r"`(\w+)`", row.partition("|")[2].partition("|")[2].partition("|")[2]))
        assert {column for column in frame.columns if not column.startswith("memory_")} == documented, name
        kinds = {str(kind) for kind in frame.dtypes}
        assert kinds <= {"category", "Int64", "float64", "string"}
    assert str(results.scores.dtypes["n"]) == "Int64" and str(results.scores.dtypes["metric"]) == "category"


def test_an_empty_run_gives_empty_frames(store: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "plan.json").write_text("{}")
    results = mb.load(tmp_path / "run")
    assert len(results.scores) == len(results.cases) == len(results.comparisons) == len(results.steps) == 0
    assert "value" in results.scores.columns


def test_a_stopped_run_says_how_to_go_on_without_a_command_line(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        mb.run("noise", "phantom", metrics=["axes"], samples=4, set=SMALL, store=tmp_path, device="cpu", max_time=1e-9)
    assert error.value.code == ExitCode.REQUEUE
    assert str(error.value).endswith("call it again to go on")


def test_an_unknown_setting_is_an_error_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown argument 'gpu'; expected a field of Settings: store, device"):
        mb.run("noise", "phantom", store=tmp_path, gpu=1)
    with pytest.raises(UserError, match="set: got 'dataset.shape=3', expected a dictionary"):
        mb.run("noise", "phantom", store=tmp_path, set="dataset.shape=3")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="expected names or folders as separate arguments"):
        mb.load(["a", "b"])  # type: ignore[arg-type]
    with pytest.raises(AttributeError, match="has no attribute 'lod'"):
        mb.lod  # noqa: B018


def test_folders_are_evaluated(store: Path, tmp_path: Path) -> None:
    """The stored samples of one run against its real volumes, as somebody's folders."""
    import shutil

    samples = next((store / "objects" / "samples").iterdir()) / "items"
    for place, count in (("real", 4), ("ours", 2)):
        (tmp_path / place).mkdir()
        for number, path in enumerate(sorted(samples.glob("*.nii.gz"))[:count]):
            shutil.copyfile(path, tmp_path / place / f"{place}-{number}.nii.gz")
    results = mb.evaluate(
        tmp_path / "real", {"mine": tmp_path / "ours"}, metrics=["axes"], conditional=False, store=tmp_path / "store",
        device="cpu",
    )  # fmt: skip
    assert set(results.scores.generator) == {"files:mine"}


def test_the_documented_example_runs(store: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) >= 6
    monkeypatch.chdir(store.parent)
    known: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), known)
    assert "holdout" in capsys.readouterr().out


def test_a_process_that_is_not_the_bench_s_own_is_not_forked(tmp_path: Path) -> None:
    """A notebook may have trained something, and a fork of it could not: its workers are started."""
    code = (
        "import os, sys, torch; import medlord_bench as mb\n"
        "(torch.ones(64, 64, requires_grad=True) ** 2).sum().backward()\n"
        "os.fork = None\n"
        "results = mb.run('noise', 'phantom', metrics=['axes'], samples=4, store=sys.argv[1], device='cpu',\n"
        f"    executor='local', workers=2, set={SMALL})\n"
        "print(list(results.scores.status))"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, "['ok']\n"), done.stderr[-2000:]
