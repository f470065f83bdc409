"""The results file and its published schema."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from medlord_bench.contracts.results import ResultsFile, Score, write_results
from medlord_bench.results import export
from medlord_bench.results.comparisons import Comparison, ComparisonsFile
from medlord_bench.results.comparisons import write as write_comparisons
from medlord_bench.results.run_results import read_run


def test_the_published_schema_is_that_of_the_code() -> None:
    """A changed field changes `EXPORT_VERSION` and the file, which `results.schema.json` documents."""
    assert json.loads(export.schema()) == export.Export.model_json_schema(mode="serialization")


def test_exported_results_are_valid_and_another_version_is_not(tmp_path: Path) -> None:
    scores = (Score(metric="fid", protocol="p", generator="a", dataset="d", value=1.5, n=4),)
    write_results(tmp_path / "results", ResultsFile(scores=scores, protocols={"p": {"metric": "fid"}}), [])
    infinite = Comparison(
        metric="hd95", protocol="p", dataset="d", first="a", second="b", difference=float("inf"), how="h", p=1, p_holm=1, n=6,
        verdict="tie",
    )  # fmt: skip
    write_comparisons(tmp_path / "results", ComparisonsFile(comparisons=(infinite,)))
    path = export.write(tmp_path / "report", read_run(tmp_path))
    found = json.loads(path.read_text())
    jsonschema.validate(found, json.loads(export.schema()))
    assert found["scores"][0]["value"] == 1.5
    assert export.Export.model_validate(found) == export.export(read_run(tmp_path))
    with pytest.raises(jsonschema.ValidationError, match="2"):
        jsonschema.validate(found | {"schema_version": 2}, json.loads(export.schema()))


def test_a_run_without_results_is_valid_too(tmp_path: Path) -> None:
    path = export.write(tmp_path / "report", read_run(tmp_path))
    jsonschema.validate(json.loads(path.read_text()), json.loads(export.schema()))
