import logging

import pytest

from medlord_bench.contracts import registry
from medlord_bench.contracts.calibration import versions
from medlord_bench.engine.run_file import default_metrics
from medlord_bench.errors import MissingError, UserError


def test_built_ins_come_through_entry_points_with_their_distribution() -> None:
    found = {entry.name: entry for entry in registry.entries("generators")}
    assert found["medlord"].distribution == "medlord-bench"
    assert found["medlord"].target == "medlord_bench.generators.medlord.plugin:MedLoRD"


def test_a_misspelt_name_is_answered_with_the_near_miss() -> None:
    with pytest.raises(UserError, match="unknown generator 'medlrod'; did you mean 'medlord'"):
        registry.load("generators", "medlrod")


def test_a_name_like_no_other_is_answered_with_all_there_are() -> None:
    with pytest.raises(UserError, match="known: .*medlord"):
        registry.load("generators", "zzz")


def test_a_plugin_whose_import_fails_is_exit_3_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    broken = EntryPoint("broken", "no_such_package.plugin:Thing", "medlord_bench.generators")
    monkeypatch.setattr(registry, "_points", lambda kind: {"broken": broken})
    with pytest.raises(MissingError, match="generator 'broken'.*no_such_package"):
        registry.load("generators", "broken")


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(UserError, match="did you mean 'metrics'"):
        registry.entries("metric")


def test_a_plugin_that_is_broken_in_any_way_is_exit_3_and_leaves_the_default_metrics(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        name, value = "edges", "edges:Edges"

        def load(self) -> None:
            raise ValueError("margin\n  must be above 0")

    known = registry._points("metrics")
    monkeypatch.setattr(registry, "_points", lambda kind: known | {"edges": Broken()})
    with pytest.raises(
        MissingError, match=r"metric 'edges' \(edges:Edges\) cannot be loaded: margin must be above 0; "
    ):
        registry.load("metrics", "edges")
    monkeypatch.setattr(registry, "entries", lambda kind: [Broken(), *known.values()] if kind == "metrics" else [])
    monkeypatch.setattr(logging.getLogger("medlord_bench"), "propagate", True)
    assert "metrics/edges" not in versions()
    assert "fid" in default_metrics() and "edges" not in default_metrics()
    assert "left out: metric 'edges'" in caplog.text
