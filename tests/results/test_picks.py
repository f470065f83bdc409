"""The cases worth a look."""

from __future__ import annotations

from medlord_bench.contracts.metrics import Quantity
from medlord_bench.contracts.results import CaseRow
from medlord_bench.results.picks import picks

PSNR = Quantity(name="psnr", meaning="", better="higher", cases_of="reconstructions")
HD95 = Quantity(name="hd95", meaning="", better="lower", cases_of="conditional")
COPIES = Quantity(name="copy_rate", meaning="", better="lower", pairs="copy_pair")


def rows(metric: str, values: dict[str, float], generator: str = "a", region: str = "") -> list[CaseRow]:
    return [
        CaseRow(metric=metric, generator=generator, case=case, value=v, region=region) for case, v in values.items()
    ]


def test_the_worst_and_the_lower_median_case_by_direction() -> None:
    values = {"p0": 30.0, "p1": 10.0, "p2": 20.0, "p3": 40.0}
    higher = picks(rows("psnr", values), {"psnr": PSNR})
    assert [(one.which, one.item, one.value, one.kind) for one in higher] == [
        ("worst", "p1", 10.0, "reconstructions"),
        ("median", "p0", 30.0, "reconstructions"),
    ]
    lower = picks(rows("hd95", values), {"hd95": HD95})
    assert [(one.which, one.item) for one in lower] == [("worst", "p3"), ("median", "p2")]


def test_a_case_with_regions_counts_with_their_mean() -> None:
    found = picks(
        [*rows("hd95", {"p0": 1.0, "p1": 5.0}, region="aorta"), *rows("hd95", {"p0": 9.0, "p1": 4.0}, region="lungs")],
        {"hd95": HD95},
    )
    assert [(one.which, one.item, one.value) for one in found] == [("worst", "p0", 5.0), ("median", "p1", 4.5)]


def test_the_whole_volume_counts_where_there_is_one() -> None:
    given = [*rows("psnr", {"p0": 10.0, "p1": 20.0}), *rows("psnr", {"p0": 90.0, "p1": 1.0}, region="body")]
    assert [(one.which, one.item, one.value) for one in picks(given, {"psnr": PSNR})] == [
        ("worst", "p0", 10.0),
        ("median", "p1", 20.0),
    ]


def test_each_contestant_has_its_own_and_real_volumes_have_none() -> None:
    given = [*rows("psnr", {"p0": 1.0}), *rows("psnr", {"p0": 2.0}, "b"), *rows("psnr", {"r": 0.0}, "")]
    assert [(one.contestant, one.which) for one in picks(given, {"psnr": PSNR})] == [
        ("a", "worst"), ("a", "median"), ("b", "worst"), ("b", "median"),
    ]  # fmt: skip


def test_the_nearest_pair_is_the_first_of_the_audit() -> None:
    pairs = [
        CaseRow(metric="copy_pair", generator="a", case=f"sample-{i}", against=f"train-{i}", value=float(i))
        for i in (3, 5)
    ]
    (found,) = picks(pairs, {"copy_rate": COPIES})
    assert (found.which, found.kind, found.item, found.beside) == ("nearest", "samples", "sample-3", "train-3")


def test_a_quantity_that_names_no_volumes_has_no_picks() -> None:
    assert picks(rows("nsd", {"p0": 1.0}), {"nsd": Quantity(name="nsd", meaning="")}) == []
