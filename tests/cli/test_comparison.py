"""One command compares all generators beside controls, on one protocol and equal n."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CONTESTANTS = (
    "medlord@smoke",
    "maisi:scratch@smoke",
    "hagan@smoke",
    "vqtrans@smoke",
    "voldit@smoke",
    "holdout",
    "noise",
)
SMALL = ("dataset.shape=32,32,16", "dataset.n_train=4", "dataset.n_val=2", "dataset.n_test=2")
SMALL += ("fid.features.size=32", "fid.features.slices=4")


def test_five_generators_and_two_controls_stand_in_one_table(bench: Any, tmp_path: Path) -> None:
    options = [text for name in CONTESTANTS for text in ("--generator", name)]
    options += [text for one in SMALL for text in ("--set", one)]
    options += ["--metric", "fid", "--metric", "reconstruction", "--no-conditional", "--json"]
    done = bench("run", *options, "--dataset", "phantom", "--train-steps", "8", "--store", str(tmp_path / "store"))
    assert done.code == 0, done.err
    answer = json.loads(done.out)
    results = json.loads((Path(answer["results"]) / "scores.json").read_text())
    fid = [score for score in results["scores"] if score["metric"] == "fid" and score["reference"] == "test"]
    assert {score["generator"] for score in fid} == {*CONTESTANTS, "holdout:through-32x32x32"}  # HA-GAN's cube
    assert {score["n"] for score in fid} == {2} and len({score["protocol"] for score in fid}) == 1
    rebuilt = {
        score["generator"] for score in results["scores"] if score["metric"] == "psnr" and score["value"] is not None
    }
    assert rebuilt == {"medlord@smoke", "maisi:scratch@smoke", "hagan@smoke", "vqtrans@smoke", "voldit@smoke"}
    plan = json.loads((Path(answer["run"]) / "plan.json").read_text())
    trained: dict[str, int] = {}
    for step in plan["steps"]:
        if step["kind"] == "weights":
            trained[step["contestant"]] = trained.get(step["contestant"], 0) + (step["detail"]["steps"] or 0)
    assert {name: trained[name] for name in CONTESTANTS[:5]} == dict.fromkeys(CONTESTANTS[:5], 8)
    shared = [step for step in plan["steps"] if step["kind"] == "features" and step["contestant"] == "real"]
    assert len(shared) == 1, "the real set's features are computed once"
    assert set(results["controls"]) == {"holdout", "noise", "holdout:through-32x32x32"}
    montage = json.loads((Path(answer["results"]) / "montage.json").read_text())
    titles = [row["title"] for row in montage["rows"]]
    assert titles[0].startswith("real") and [title for title in titles if title.endswith(": samples")] == titles[1:9]
    assert montage["regions"]["lungs"] == [4, 5]
    page = Path(answer["report"][0]).read_text()
    assert all(name in page for name in CONTESTANTS)
