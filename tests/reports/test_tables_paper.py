"""Results written by hand from the paper's tables render to the paper's tables."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from medlord_bench.contracts import registry
from medlord_bench.contracts.metrics import Quantity, quantities_of
from medlord_bench.reports.tables.tables import Tables
from medlord_bench.results.report import ReportOptions
from tests.reports.tables_data import ROOT, TABLE_1, TABLE_2, TABLE_3, cells, records, run, score, written

QUANTITIES = quantities_of({one.name: registry.load("metrics", one.name) for one in registry.entries("metrics")})
NAMES = {"PSNR": "psnr", "MS-SSIM": "ms_ssim", "LPIPS": "lpips"}
DOWNSTREAM = [
    Quantity(name=name, title=title, meaning="of a segmenter trained on it", better="higher", spread="iqr", decimals=2)
    for name, title in (("dt_real", "DSC DT real"), ("dt_syn", "DSC DT syn"))
]


def render(run, out: Path, **options: bool) -> list[Path]:
    return list(Tables().render(run, out, ReportOptions(**options)))


def test_table_1(tmp_path: Path) -> None:
    head, *rows = cells(TABLE_1)
    scores = [
        score("fid", who, text, dataset=dataset, protocol=f"fid-{dataset}-1", reference="test", floor=float(floor))
        for dataset, *texts, floor in rows
        for who, text in zip(head[1:-1], texts, strict=True)
    ]
    render(run(scores, [QUANTITIES["fid"]]), tmp_path)
    (grid,) = written(tmp_path, "fid")
    assert grid == [["Data set", *head[1:]], *rows]
    assert "<sup>a</sup> not run: training takes too long" in (tmp_path / "tables" / "fid.md").read_text()


def test_table_2(tmp_path: Path) -> None:
    (_, *regions), *rows = cells(TABLE_2)
    names = {"DSC": "dsc", "DSC DT real": "dt_real", "DSC DT syn": "dt_syn"}
    scores = []
    for title, *texts in rows:
        metric = "adherence" if title == "DSC" else "downstream"
        for region, text in zip(regions, texts, strict=True):
            dataset = "Luna" if region == "Lung" else "PCCTA"
            protocol = f"{metric}-{dataset}-1"
            scores.append(score(names[title], "MedLoRD", text, region=region, dataset=dataset, protocol=protocol))
    render(run(scores, [QUANTITIES["dsc"], *DOWNSTREAM]), tmp_path)
    (adherence,), (downstream,) = written(tmp_path, "adherence"), written(tmp_path, "downstream")
    assert adherence == [["Metric", *regions], rows[0]]
    assert downstream == [["Metric", *regions], *rows[1:]]


def test_table_3(tmp_path: Path) -> None:
    head, *rows = cells(TABLE_3)
    scores = [
        score(NAMES[metric], who, text, dataset=dataset, protocol=f"reconstruction-{dataset}-1", better="higher")
        for dataset, metric, *texts in rows
        for who, text in zip(head[2:], texts, strict=True)
    ]
    render(run(scores, [QUANTITIES[name] for name in NAMES.values()]), tmp_path)
    (grid,) = written(tmp_path, "reconstruction")
    labelled = [[f"{title} (dB)" if title == "PSNR" else title for title in row] for row in rows]
    assert grid[0] == ["Data set", *head[1:]]
    shown = [[row[0] if i % 3 == 0 else "", *row[1:]] for i, row in enumerate(labelled)]  # a data set is named once
    assert grid[1:] == shown


def test_mean_and_deviation_are_of_the_cases_where_scores_are_medians(tmp_path: Path) -> None:
    from medlord_bench.contracts.results import CaseRow

    one = score("psnr", "a", "30.0", protocol="reconstruction-x-1", better="higher").model_copy(
        update={"quartiles": (29.0, 31.0), "low": 28.0, "high": 33.0, "n": 4}
    )
    rows = [
        CaseRow(metric="psnr", generator="a", case=f"c{i}", value=v) for i, v in enumerate((28.0, 29.0, 31.0, 33.0))
    ]
    render(run([one], [QUANTITIES["psnr"]], rows=rows), tmp_path)
    (grid,) = written(tmp_path, "reconstruction")
    assert grid[1] == ["a", "30.250(2.217)", "4"]
    assert "Mean (standard deviation) of the cases" in (tmp_path / "tables" / "reconstruction.md").read_text()
    (record,) = records(tmp_path, "reconstruction")
    assert [record[name] for name in ("value", "low", "high", "mean", "lower_quartile")] == [
        "30.0", "28.0", "33.0", "30.25", "29.0",
    ]  # fmt: skip


# ----------------------------------------------------------------------------------------------------- published values
@pytest.fixture(scope="module")
def published() -> list[dict[str, str]]:
    with open(ROOT / "reports" / "tables" / "published.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_published_values_are_those_of_the_papers_tables(published: list[dict[str, str]]) -> None:
    found = {
        (one["dataset"], one["metric"], one["region"], one["contestant"]): one["value"]
        + (f"({one['spread']})" if one["spread"] else "")
        for one in published
    }
    expected = {}
    head, *rows = cells(TABLE_1)
    expected |= {(row[0], "FID", "", who): text for row in rows for who, text in zip(head[1:], row[1:], strict=True)}
    head, *rows = cells(TABLE_2)
    for row in rows:
        for region, text in zip(head[1:], row[1:], strict=True):
            expected["Luna" if region == "Lung" else "PCCTA", row[0], region, "MedLoRD"] = text
    head, *rows = cells(TABLE_3.replace("33.360(", "33.36("))  # as printed
    for row in rows:
        expected |= {(row[0], row[1], "", who): text for who, text in zip(head[2:], row[2:], strict=True)}
    assert found == expected
    assert {one["source"] for one in published} == {f"MedLoRD, Table {i}" for i in (1, 2, 3)}


def test_published_values_stand_apart_on_request_and_are_never_ranked(tmp_path: Path) -> None:
    given = run([score("fid", "a", "9.0", better="lower", reference="test")], [QUANTITIES["fid"]])
    assert not [path for path in render(given, tmp_path / "without") if "published" in path.name]
    assert len(written(tmp_path / "without", "fid")) == 1
    render(given, tmp_path / "with", published=True)
    own, theirs = written(tmp_path / "with", "fid")
    assert own == written(tmp_path / "without", "fid")[0]
    assert theirs[1] == ["PCCTA", "FID", "1.50", "16.76", "5.40", "9.01", "10.67", "0.35"]
    text = (tmp_path / "with" / "tables" / "fid.md").read_text()
    assert "**Published; comparability unknown.**" in text and "1.50**" not in text
    assert [row["contestant"] for row in records(tmp_path / "with", "fid")] == ["a"]
    assert records(tmp_path / "with", "fid_published")[0]["source"] == "MedLoRD, Table 1"
