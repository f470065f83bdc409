"""What sees what: how each quantity shows a fault, what is demanded, and the table."""

from __future__ import annotations

from typing import Any

import pytest

from medlord_bench.checks.calibration.experiment import CONTROLS
from medlord_bench.checks.calibration.sight import (
    DETECTORS,
    LEAST_N,
    MUST_SEE,
    REAL,
    SHOWN,
    demanded,
    page,
    sights,
    table,
)
from medlord_bench.contracts.calibration import Seen, Sight
from medlord_bench.contracts.results import ResultsFile, Score


def score(metric: str, control: str, **more: Any) -> Score:
    fields = {"value": 1.0, "reference": "train"} | more
    return Score(metric=metric, protocol="p", generator=control, dataset="phantom", **fields)


def scores() -> list[Score]:
    """As a sound bench gives them: each fault is seen by what must see it, and unseen real volumes by nothing."""
    found = []
    for control in CONTROLS:
        for one in DETECTORS:
            wanted = one.metric in MUST_SEE.get(control, ())
            shown: dict[str, Any] = {"p": 0.0005 if wanted else 0.5, "warning": "seen" if wanted else ""}
            shown |= {"low": 90.0 if control != REAL else 9.0, "high": 110.0 if control != REAL else 11.0}
            shown["reference"] = one.reference or "train"
            found.append(score(one.metric, control, region="aorta" if one.metric == "rvr_missing" else "", **shown))
    return found


def seen(found: list[Score]) -> Seen:
    return Seen(ResultsFile(scores=tuple(found), protocols={}))


def test_every_demand_and_every_row_is_of_a_control_and_a_detector() -> None:
    assert set(MUST_SEE) <= set(CONTROLS) and set(SHOWN) <= set(CONTROLS)
    assert {metric for metrics in MUST_SEE.values() for metric in metrics} <= {one.metric for one in DETECTORS}


def test_a_sound_bench_holds_and_a_blind_quantity_is_named() -> None:
    found = list(demanded(seen(scores()), LEAST_N))
    assert {one.status for one in found} == {"ok"}, [one for one in found if one.status != "ok"]
    for fault, metrics in MUST_SEE.items():
        blind = [
            one.model_copy(update={"p": 0.4, "warning": ""})
            if (one.generator, one.metric) == (fault, metrics[0])
            else one
            for one in scores()
        ]
        failed = {(one.fault, one.metric) for one in demanded(seen(blind), LEAST_N) if one.status == "failed"}
        assert failed == {(fault, metrics[0])}


@pytest.mark.parametrize("metric", ["tissue_joint", "anatomy_joint", "artefact_joint"])
def test_real_volumes_that_are_flagged_fail(metric: str) -> None:
    flagged = [
        one.model_copy(update={"p": 0.001}) if (one.generator, one.metric) == (REAL, metric) else one
        for one in scores()
    ]
    failed = [one for one in demanded(seen(flagged), LEAST_N) if one.status == "failed"]
    assert [(one.fault, one.metric) for one in failed] == [(f"none ({REAL})", metric)]


def test_few_samples_and_missing_metrics_are_not_checked() -> None:
    assert {one.status for one in demanded(seen(scores()), 8) if not one.fault.startswith("none")} == {"not_checked"}
    assert {one.status for one in demanded(seen([]), LEAST_N)} == {"not_checked"}


def test_the_table_says_yes_no_and_nothing() -> None:
    found = sights(seen([one for one in scores() if (one.generator, one.metric) != ("noise", "kid")]))
    by_key = {(one.fault, one.metric): one.sees for one in found}
    assert by_key["fault:gain-1.05", "tissue_joint"] is True
    assert by_key[REAL, "tissue_joint"] is False and by_key[REAL, "fid"] is False
    assert by_key["noise", "kid"] is None and by_key["noise", "fid"] is True
    lines = table(found, 16)
    assert lines[0].startswith("| fault (n 16) | `fid` | `kid` |") and len(lines) == 2 + len(SHOWN)
    assert next(line for line in lines if line.startswith("| `noise` |")).startswith("| `noise` | yes | - |")
    text = page(found, 16, "phantom")
    assert all(one.metric in text for one in DETECTORS) and "unseen real volumes" in text
    assert "- `-`: no value" in text and "`-`" not in page(sights(seen(scores())), 16, "phantom")


def test_a_record_keeps_the_sights() -> None:
    one = Sight(fault="noise", metric="kid", sees=None)
    assert Sight.model_validate_json(one.model_dump_json()) == one


def test_the_page_of_the_docs_has_every_fault_and_quantity() -> None:
    from pathlib import Path

    text = (Path(__file__).parents[3] / "docs" / "metrics" / "what-sees-what.md").read_text()
    names = [f"`{fault}`" for fault in SHOWN if fault != REAL] + [f"`{one.metric}`" for one in DETECTORS]
    assert [name for name in names if name not in text] == []
    for fault, metrics in MUST_SEE.items():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{fault}` |"))
        head = next(line for line in text.splitlines() if line.startswith("| fault"))
        cells = dict(zip(head.split("|"), row.split("|"), strict=True))
        assert all(cells[f" `{metric}` "].strip() == "yes" for metric in metrics), fault
