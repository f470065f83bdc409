"""A shared report has nothing of the real patients."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from medlord_bench.contracts.metrics import Quantity
from medlord_bench.contracts.results import CaseRow, Replicates, ResultsFile, Score, notes
from medlord_bench.results.comparisons import ComparisonsFile
from medlord_bench.results.pictures import Montage, MontageItem, MontageRow
from medlord_bench.results.report import ReportOptions, write_reports
from medlord_bench.results.run_results import Origin, RunResults, read_run
from medlord_bench.results.share import shareable

SECRET = ("Smith_John", "scan-77", "node17.clinic.example", "/data/clinic", "D:\\ct")


def run(folder: Path) -> RunResults:
    (folder / "results").mkdir(parents=True)
    text = f"case Smith_John-0123456789 in /data/clinic/Smith_John.nii.gz on {SECRET[2]}, ratio 3/4"
    score = Score(
        metric="rvr", protocol="p", generator="ours", dataset="folder", value=1.0, n=3, warning=text,
        reason="see D:\\ct\\scan-77", notes=notes("counts", "scan-77 is left out"),
    )  # fmt: skip
    rows = [
        CaseRow(metric="rvr", split="train", case="Smith_John-0123456789", patient="Smith_John", value=1.0),
        CaseRow(metric="rvr", generator="ours", case="sample-00000", value=2.0),
        CaseRow(metric="dsc", generator="ours", case="scan-77-aaaaaaaaaa", patient="scan-77", value=0.5),
        CaseRow(metric="copy_pair", generator="ours", case="sample-00000", against="scan-77-aaaaaaaaaa", value=0.1),
    ]
    items = (MontageItem(id="scan-77-aaaaaaaaaa", path=str(folder / "x")),)
    montage = Montage(
        rows=(
            MontageRow(title="real", kind="images", contestant="real", items=items),
            MontageRow(title="ours", kind="samples", contestant="ours", items=(MontageItem(id="sample-00000"),)),
            MontageRow(title="holdout", kind="samples", contestant="holdout", items=(MontageItem(id="sample-00000"),)),
            MontageRow(title="again", kind="reconstructions", contestant="ours", items=items),
            MontageRow(title="masks", kind="conditional", contestant="ours", items=items),
        )
    )
    replicates = [
        Replicates(
            metric="fid", protocol="p", generator="ours", dataset="d", value=1, samples={}, real={"Smith_John": 1}
        )
    ]
    provenance = {
        "hostname": SECRET[2], "command": "medlord-bench run --data-root /data/clinic", "medlord_bench": "0.1.0",
        "packages": {"numpy": "2"}, "cpu": {"model": "x"}, "gpus": [], "started": "2026-01-01",
    }  # fmt: skip
    quantities = (Quantity(name="rvr", meaning="m"), Quantity(name="copy_rate", meaning="m", pairs="copy_pair"))
    protocols: dict[str, dict[str, object]] = {"p": {"metric": "rvr", "data": {"split": "from /data/clinic/split.csv"}}}
    return replace(
        read_run(folder),
        origins=[Origin("run", folder, {"ours": "ours"}, "set:\n  dataset.data_root: /data/clinic\n", provenance)],
        contestants=["ours", "holdout"],
        results=ResultsFile(scores=(score,), protocols=protocols, controls=("holdout",), quantities=quantities),
        rows=rows,
        replicates=replicates,
        comparisons=ComparisonsFile(not_compared=("rvr of ours: Smith_John is missing",)),
        montage=montage,
    )


def test_names_paths_and_hosts_are_gone_from_everything(tmp_path: Path) -> None:
    shared = shareable(run(tmp_path / "run"))
    text = repr(replace(shared, origins=[replace(one, folder=Path("x")) for one in shared.origins]))
    assert [secret for secret in SECRET if secret in text.replace("\\\\", "\\")] == []
    assert "0123456789" not in text
    (score,) = shared.scores
    assert score.warning == "case case 1 in (removed) on (removed), ratio 3/4"
    assert set(shared.replicates[0].real) == {"case 1"}, "intervals of ranks can still be computed"
    assert score.value == 1.0 and shared.origins[0].provenance == {
        "medlord_bench": "0.1.0", "packages": {"numpy": "2"}, "cpu": {"model": "x"}, "gpus": [], "started": "2026-01-01",
    }  # fmt: skip


def test_values_of_cases_stay_under_numbers_and_samples_keep_their_names(tmp_path: Path) -> None:
    rows = shareable(run(tmp_path / "run")).rows
    assert [(row.metric, row.case, row.value) for row in rows] == [
        ("rvr", "case 1", 1.0),
        ("rvr", "sample-00000", 2.0),
        ("dsc", "case 2", 0.5),
    ]


def test_only_samples_of_contestants_are_shown(tmp_path: Path) -> None:
    montage = shareable(run(tmp_path / "run")).montage
    assert montage is not None
    assert [row.title for row in montage.rows] == ["ours"], "a control may show real volumes"


def test_ids_that_are_parts_of_words_leave_the_words_alone(tmp_path: Path) -> None:
    given = run(tmp_path / "run")
    row = CaseRow(metric="rvr", split="train", case="fid", patient="fid", value=1.0)
    shared = shareable(replace(given, rows=[row]))
    assert shared.rows[0].case.startswith("case ")
    assert shared.quantities["copy_rate"].meaning == "m" and shared.scores[0].metric == "rvr"


def test_every_report_of_a_shared_run_is_clean(tmp_path: Path) -> None:
    files = write_reports(run(tmp_path / "run"), tmp_path / "out", ReportOptions(share=True))
    assert len(files) > 4
    for path in files:
        content = path.read_bytes()
        assert [secret for secret in (*SECRET, str(tmp_path)) if secret.encode() in content] == [], path
    assert all(path.stat().st_size for path in files)
