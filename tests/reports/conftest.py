"""A fabricated run folder, complete; tests take parts away from it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from medlord_bench.contracts import registry
from medlord_bench.contracts.metrics import quantities_of
from medlord_bench.contracts.results import CaseRow, ResultsFile, Score, notes, write_results
from medlord_bench.results import comparisons
from medlord_bench.results.comparisons import ComparisonsFile
from medlord_bench.results.step_records import record_steps
from medlord_bench.volumes.planes import planes_of, write_planes

QUANTITIES = quantities_of({one.name: registry.load("metrics", one.name) for one in registry.entries("metrics")})
FID, PSNR = "fid-imagenet-0a1b2c3d", "psnr-4e5f6a7b"
PROTOCOLS: dict[str, dict[str, object]] = {
    FID: {"data": {"name": "phantom", "synthetic": True, "grid": {"shape": [16, 12, 10]}}, "extractor": "imagenet"},
    PSNR: {"data": {"name": "phantom", "synthetic": True, "grid": {"shape": [16, 12, 10]}}, "window": [-1000, 1000]},
}


def score(**changes: object) -> Score:
    fields: dict[str, object] = {
        "metric": "fid",
        "protocol": FID,
        "generator": "medlord@tiny",
        "dataset": "phantom",
        "reference": "test",
        "value": 41.53217,
        "better": "lower",
        "low": 38.25,
        "high": 44.75,
        "interval": "95 % delete-one-volume jackknife",
        "n": 16,
        "n_reference": 17,
        "floor": 9.875,
        "floor_n": 8,
    }
    return Score.model_validate(fields | changes)


SCORES = (
    score(reference="train", value=40.1, low=37.1, high=43.1, n_reference=64),
    score(),
    score(generator="noise", value=312.4, low=301.2, high=324.9, failed=3, notes=notes("counts", "three samples were constant")),
    score(
        metric="psnr", protocol=PSNR, reference="", value=27.91, low=27.1, high=28.6, better="higher",
        unit="dB", interval="95 % bootstrap over patients", n_reference=None, floor=None, floor_n=None,
    ),
    score(
        metric="psnr", protocol=PSNR, generator="noise", reference="", value=None, low=None, high=None,
        unit="dB", better="higher", interval="", n=0, n_reference=None, floor=None, floor_n=None, status="not_run",
        reason="noise has no autoencoder",
    ),
)  # fmt: skip

STEPS = [
    {"id": "medlord@tiny/train", "kind": "train", "key": "aa", "plugin": {"plugin": "medlord", "config": {}}},
    {"id": "medlord@tiny/sample", "kind": "sample", "key": "bb", "plugin": "medlord", "items": ["s0", "s1"]},
    {"id": "real/features", "kind": "features", "key": "cc", "plugin": "imagenet"},
    {"id": "noise/sample", "kind": "sample", "key": "dd", "plugin": "noise"},
]
EVENTS = [
    {"time": "t", "step": "medlord@tiny/train", "event": "start"},
    {"time": "t", "step": "medlord@tiny/train", "event": "done", "seconds": 200, "peak_gib": 1.25, "device": "cpu"},
    {"time": "t", "step": "medlord@tiny/sample", "event": "done", "seconds": 10.5, "peak_gib": 0.5, "device": "cpu"},
    {"time": "t", "step": "medlord@tiny/sample", "event": "done", "seconds": 12.5, "peak_gib": 0.75, "device": "cpu"},
]


def volume(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(-1000, 1000, (16, 12, 10)).astype(np.int16)


def write_scores(folder: Path, scores: tuple[Score, ...], protocols: dict[str, dict[str, object]] = PROTOCOLS) -> None:
    rows = [CaseRow(metric="psnr", generator="medlord@tiny", case="p0", value=27.9)]
    write_results(
        folder / "results", ResultsFile(scores=scores, protocols=protocols, quantities=tuple(QUANTITIES.values())), rows
    )


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A finished run of two contestants on the phantom, in a store."""
    folder = tmp_path / "store" / "runs" / "2026-01-02_medlord_phantom_0123"
    (folder / "results" / "curves" / "medlord@tiny").mkdir(parents=True)
    (folder / "run.yaml").write_text("dataset: phantom\ngenerators: [medlord@tiny, noise]\n")
    protocol = {"name": "phantom", "synthetic": True}
    plan = {"steps": STEPS, "contestants": ["medlord@tiny", "noise"], "dataset": {"plugin": "phantom"}}
    (folder / "plan.json").write_text(json.dumps(plan | {"protocol": protocol}))
    provenance = {"medlord_bench": "0.1.0", "started": "2026-01-02T03:04:05+00:00", "packages": {"torch": "2.9.1"}}
    (folder / "provenance.json").write_text(json.dumps(provenance | {"git": {"sha": "abc", "dirty": False}}))
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in EVENTS) + '{"time": "t", "st')
    write_scores(folder, SCORES)
    record_steps(folder, folder.parents[1])
    comparisons.write(folder / "results", ComparisonsFile())
    rows = []
    for title, count in (("real (test)", 3), ("medlord@tiny", 3), ("medlord@tiny reconstructions", 2)):
        items = []
        for number in range(count):
            path = folder / "results" / f"{title}-{number}.safetensors"
            write_planes(path, planes_of(volume(number)))
            items.append({"id": f"case-{number}", "path": f"results/{path.name}"})
        rows.append({"title": title, "items": items})
    montage = {"window": [-1000, 1000], "spacing": [1.0, 1.0, 2.0], "rows": rows}
    (folder / "results" / "montage.json").write_text(json.dumps(montage))
    lines = [{"step": step, "l1": 1 / step, "loss": 2 / step, "split": "train"} for step in range(1, 101)]
    lines += [{"step": step, "l1": 1.1 / step, "split": "val"} for step in (50, 100)]
    curve = folder / "results" / "curves" / "medlord@tiny" / "autoencoder.jsonl"
    curve.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "store" / "objects" / "features" / "cc").mkdir(parents=True)
    (tmp_path / "store" / "objects" / "features" / "cc" / "manifest.json").write_text("{}")
    return folder


@pytest.fixture
def bare_folder(tmp_path: Path) -> Path:
    """A run folder of numbers alone, which is drawn at once."""
    folder = tmp_path / "store" / "runs" / "2026-01-03_bare"
    write_scores(folder, SCORES)
    return folder
