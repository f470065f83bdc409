"""Results by hand for the tables: those of the paper, and a run of made-up numbers."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medlord_bench.contracts.metrics import Quantity
from medlord_bench.contracts.results import CaseRow, ResultsFile, Score, SeenInPretraining
from medlord_bench.results.comparisons import Comparison, ComparisonsFile
from medlord_bench.results.run_results import RunResults

ROOT = Path(__file__).resolve().parents[2]
EMPTY: Mapping[str, Any] = {
    **dict.fromkeys(("origins", "steps", "curves", "efforts", "missing", "replicates"), ()),
    **dict.fromkeys(("started", "calibration", "montage")),
}
# The paper's printed tables, as text: rows of cells.
TABLE_1 = """\
Dataset	MedLoRD	MAISI_ST	MAISI_PT	HA-GAN	VQ-Trans	Real
PCCTA	1.50	16.76	5.40	9.01	10.67	0.35
Luna	3.62	-	3.33	5.07	5.87	0.28"""
TABLE_2 = """\
Metric	Aorta	LA	RA	LV Myo	LV	RV	Lung
DSC	0.87(0.09)	0.85(0.11)	0.81(0.09)	0.73(0.15)	0.89(0.13)	0.80(0.08)	0.98(0.00)
DSC DT real	0.97(0.04)	0.98(0.01)	0.97(0.01)	0.97(0.02)	0.98(0.01)	0.98(0.02)	0.99(0.00)
DSC DT syn	0.95(0.05)	0.95(0.02)	0.94(0.04)	0.92(0.03)	0.95(0.03)	0.94(0.04)	0.98(0.01)"""
# The paper prints 33.36(1.050): two decimals beside three. All other values have three.
TABLE_3 = """\
Dataset	Metric	MedLoRD	MAISI_ST	MAISI_PT	VQ-Trans
PCCTA	PSNR	44.460(1.322)	29.613(1.998)	33.360(1.050)	29.011(1.120)
PCCTA	MS-SSIM	0.998(0.001)	0.963(0.010)	0.973(0.075)	0.896(0.012)
PCCTA	LPIPS	0.043(0.008)	0.099(0.022)	0.087(0.012)	0.325(0.020)
Luna	PSNR	40.634(7.220)	-	34.631(6.440)	30.684(2.361)
Luna	MS-SSIM	0.995(0.010)	-	0.982(0.026)	0.934(0.022)
Luna	LPIPS	0.113(0.171)	-	0.077(0.059)	0.343(0.164)"""


def cells(table: str) -> list[list[str]]:
    return [line.split("\t") for line in table.splitlines()]


def run(
    scores: Sequence[Score],
    quantities: Sequence[Quantity],
    comparisons: Sequence[Comparison] = (),
    rows: Sequence[CaseRow] = (),
    controls: Sequence[str] = (),
    seen: Mapping[str, str] | None = None,
    patients_unknown: str = "",
    **fields: Any,
) -> RunResults:
    results = ResultsFile(
        scores=tuple(scores),
        protocols={score.protocol: {"metric": score.protocol.partition("-")[0]} for score in scores},
        quantities=tuple(quantities),
        controls=tuple(controls),
        seen_in_pretraining={name: SeenInPretraining(note=text) for name, text in (seen or {}).items()},
        patients_unknown=patients_unknown,
    )
    return RunResults(
        name="by-hand", dataset="phantom", synthetic=True, budget="", references={}, results=results, rows=rows,
        contestants=list(dict.fromkeys(score.generator for score in scores)),
        comparisons=ComparisonsFile(comparisons=tuple(comparisons)), **{**EMPTY, **fields},
    )  # fmt: skip


def score(metric: str, generator: str, text: str = "", **fields: Any) -> Score:
    """text: as the paper prints it; "-" was not run."""
    common = {"metric": metric, "generator": generator, "dataset": "phantom", "protocol": f"{metric}-x-1"} | fields
    if text == "-":
        return Score(status="not_run", reason="training takes too long", **common)
    value, _, spread = text.rstrip(")").partition("(")
    if spread and fields.get("region"):
        common["quartiles"] = (0.0, float(spread))
    elif spread:
        common["deviation"] = float(spread)
    return Score(value=float(value), **common)


def written(folder: Path, name: str) -> list[list[list[str]]]:
    """The grids of a Markdown table, marks and bold letters left out."""
    text = (folder / "tables" / f"{name}.md").read_text()
    found: list[list[list[str]]] = []
    before = ""
    for line in text.splitlines():
        if line.startswith("|"):
            row = [cell.strip().replace("\\_", "_").replace("**", "") for cell in line.strip("|").split(" | ")]
            row = [cell.partition("<sup>")[0].strip(" |") for cell in row]
            if not before.startswith("|"):
                found.append([])
            if set(row[0]) - {"-", ":"} or not row[0]:
                found[-1].append(row)
        before = line
    return found


def records(folder: Path, name: str) -> list[dict[str, str]]:
    with open(folder / "tables" / f"{name}.csv", newline="") as file:
        return list(csv.DictReader(file))
