"""What calibration expects of the controls: a sound bench passes, and each broken metric is named."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from medlord_bench.checks.calibration.expectations import findings
from medlord_bench.checks.calibration.experiment import CONTROLS, REGIONS, experiment
from medlord_bench.checks.calibration.sight import MUST_SEE
from medlord_bench.contracts import registry
from medlord_bench.contracts.calibration import Finding, Seen, observed, shown
from medlord_bench.contracts.results import ResultsFile, Score
from medlord_bench.engine.run_file import RunFile

Key = tuple[str, str, str, str]
FID = {"holdout": 20.0, "copycat": 21.0, "noise": 300.0, "mode-collapse": 90.0, "flip": 150.0}
FID |= {"blur:0.5": 30.0, "blur:1": 50.0, "blur:2": 90.0, "implant:low": 22.0, "implant:high": 22.0}
FID |= {"hu-shift:25": 25.0, "hu-shift:50": 40.0, "hu-shift:100": 70.0, "hu-shift:200": 120.0, "oracle": 60.0}


def sound() -> dict[Key, Score]:
    """Scores as a bench that can be trusted gives them: (metric, control, region, reference) -> score."""
    found: dict[Key, Score] = {}

    def add(metric: str, control: str, value: float, region: str = "", reference: str = "", **more: Any) -> None:
        found[metric, control, region, reference] = Score(
            metric=metric, protocol="p", generator=control, dataset="phantom", region=region, reference=reference,
            value=value, **more,
        )  # fmt: skip

    for control in CONTROLS:
        fid = FID.get(control, 35.0)
        for reference in ("train", "test"):
            less = 15.0 if (control, reference) == ("copycat", "train") else 0.0
            add("fid", control, fid - less, "", reference, low=fid - less - 4, high=fid - less + 4, floor=19.0)
        add("kid", control, 0.0, "", "test", p=0.4 if control == "holdout" else 0.0005)
        for metric in ("precision", "recall"):
            bad = {"precision": "noise", "recall": "mode-collapse"}[metric]
            add(metric, control, 0.0 if control == bad else 0.9, "", "test")
        unlike = control in ("noise", "mode-collapse") or control.startswith("drop")
        add("rvr_joint", control, 1.0, "", "train", p=0.0005 if unlike else 0.5)
        rate = 1.0 if control == "copycat" else 0.0
        add("copy_rate", control, rate, low=rate * 0.8, high=rate or 0.2)
        one = control == "mode-collapse"
        add("distinct_samples", control, 1 if one else 16, "", "train", warning="1 of 16" if one else "")
        add("vendi", control, 1.1 if one else 12.0, "", "train", p=0.002 if one else 0.4)
        add("axes", control, 0.9, warning="upside down" if control == "flip" else "")
        for region in REGIONS:
            missing = float(control in ("noise", f"drop-region:{region}"))
            add("rvr_missing", control, missing, region, "train", warning="missing" if missing else "")
            add("rvr_variance_ratio", control, 0.01 if control == "mode-collapse" else 1.0, region, "train")
            if control == "oracle" or control.startswith("drop"):
                add("dsc", control, 0.0 if control == f"drop-region:{region}" else 0.9, region, "test", ceiling=0.92)
        if control.startswith(("blur", "hu-shift")):
            for metric in ("psnr", "ms_ssim"):
                add(metric, control, 50 - fid / 10, "", "test")
    return found


def judged(scores: Mapping[Key, Score]) -> list[Finding]:
    return list(findings(Seen(ResultsFile(scores=tuple(scores.values()), protocols={})), {}))


def failed(scores: Mapping[Key, Score]) -> set[tuple[str, str]]:
    return {(one.fault, one.metric) for one in judged(scores) if one.status == "failed"}


def test_a_sound_bench_passes_every_expectation() -> None:
    found = judged(sound())
    assert {one.status for one in found} == {"ok"}, [one for one in found if one.status != "ok"]
    assert len(found) > 40


def test_every_control_is_looked_at() -> None:
    scores = sound()
    for control in CONTROLS:
        without = {key: score for key, score in scores.items() if key[1] != control}
        assert any(one.status == "not_checked" for one in judged(without)) or control in ("oracle", *MUST_SEE), control


def change(scores: dict[Key, Score], wanted: Callable[[Key], bool], **fields: Any) -> dict[Key, Score]:
    touched = {key for key in scores if wanted(key)}
    assert touched
    return {key: score.model_copy(update=fields) if key in touched else score for key, score in scores.items()}


def test_two_regions_swapped_are_found() -> None:
    """As a segmenter's label table in the wrong order would."""
    swap = {"aorta": "left_ventricle", "left_ventricle": "aorta"}
    scores = {
        (metric, control, swap.get(region, region), reference): score.model_copy(
            update={"region": swap.get(region, region)}
        )
        for (metric, control, region, reference), score in sound().items()
    }
    assert {("drop-region:aorta", "rvr_missing aorta"), ("drop-region:left_ventricle", "dsc left_ventricle")} <= failed(
        scores
    )


@pytest.mark.parametrize(
    ("broken", "wanted", "fields"),
    [
        ("implant at 1000 and 2000 HU", lambda k: k[:2] == ("fid", "implant:high"), {"value": 23.0}),
        ("hu-shift 25, 50, 100, 200", lambda k: k[0] == "fid" and k[1].startswith("hu-shift"), {"value": 25.0}),
        ("copycat", lambda k: k[:2] == ("copy_rate", "copycat"), {"value": 0.5}),
        ("none (holdout)", lambda k: k[:2] == ("copy_rate", "holdout"), {"low": 0.2, "high": 0.6}),
        ("none (holdout)", lambda k: k[:2] == ("fid", "holdout"), {"low": 25.0, "high": 30.0}),
        ("none (holdout)", lambda k: k[:2] == ("fid", "holdout"), {"low": None, "high": None}),
        ("mode-collapse", lambda k: k[:2] == ("recall", "mode-collapse"), {"value": 0.9}),
        ("mode-collapse", lambda k: k[:2] == ("distinct_samples", "mode-collapse"), {"warning": ""}),
        ("none (holdout)", lambda k: k[:2] == ("vendi", "holdout"), {"warning": "less varied"}),
        ("noise", lambda k: k[:2] == ("kid", "noise"), {"p": 0.3}),
        ("drop-region:lungs", lambda k: k[:3] == ("rvr_missing", "drop-region:lungs", "lungs"), {"warning": ""}),
        ("drop-region:lungs", lambda k: k[:3] == ("rvr_missing", "drop-region:lungs", "aorta"), {"value": 0.9}),
        ("none (oracle)", lambda k: k[:3] == ("dsc", "oracle", "aorta"), {"value": 0.5}),
        ("none (oracle)", lambda k: k[:3] == ("dsc", "oracle", "aorta"), {"ceiling": None}),
        ("flip", lambda k: k[:2] == ("axes", "flip"), {"warning": ""}),
        ("blur 0.5, 1, 2", lambda k: k[:2] == ("psnr", "blur:1"), {"value": 99.0}),
    ],
)
def test_a_broken_metric_is_named(broken: str, wanted: Callable[[Key], bool], fields: dict[str, Any]) -> None:
    assert broken in {fault for fault, _ in failed(change(sound(), wanted, **fields))}


def test_a_metric_that_did_not_run_is_not_checked_and_says_why() -> None:
    scores = change(
        sound(), lambda k: k[:2] == ("copy_rate", "copycat"), value=None, status="not_run", reason="too few patients"
    )
    found = [one for one in judged(scores) if one.status == "not_checked"]
    assert [(one.fault, one.seen) for one in found] == [("copycat", "too few patients")]


def test_the_phantom_bears_every_control() -> None:
    file, left_out = experiment(RunFile(dataset="phantom"))
    assert left_out == {} and file.generators == CONTROLS and file.samples == 16


def test_what_a_data_set_cannot_bear_is_said() -> None:
    sets = {"dataset.hu_window": [-1000, 1000]}
    file, left_out = experiment(RunFile(dataset="phantom", set=sets))
    assert set(left_out) & {"implant:high"} and "implant:high" not in file.generators


def test_every_control_is_a_plugin() -> None:
    names = {entry.name for entry in registry.entries("generators")}
    assert {control.partition(":")[0] for control in CONTROLS} <= names


@pytest.mark.parametrize(
    "scores",
    [
        [{"value": 70.75, "low": 59.76, "high": 82.66, "floor": 69.0, "p": 0.3}],
        [{"value": 0.0}, {"value": -1.5e-05, "low": -0.25, "high": 0.25, "warning": "upside down"}],
        [{"value": 0.9646, "ceiling": 0.897}, {"value": 1e-6, "floor": 0.0}, {"value": float("inf")}],
    ],
)
def test_the_numbers_of_a_finding_come_back_from_its_text(scores: list[dict[str, object]]) -> None:
    fields = {"metric": "fid", "protocol": "p", "generator": "g", "dataset": "d"}
    made = [Score.model_validate(fields | one) for one in scores]
    found = observed(", ".join(map(shown, made)))
    assert [one.value for one in found] == [score.value for score in made]
    assert [(one.low, one.high) for one in found] == [(score.low, score.high) for score in made]
    assert [one.limit for one in found] == [score.floor if score.floor is not None else score.ceiling for score in made]


def test_words_and_counts_of_a_finding_are_no_numbers() -> None:
    assert observed("94.7% (92.4% to 96.3%), KS p 0.2") == [(0.947, 0.924, 0.963, None)]
    for text in ("no samples", "noise has no fid", "15000 of 15000", "95.4% of 15000", ""):
        assert observed(text) == []
