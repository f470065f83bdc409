"""Who is best and who is tied: by the paired tests alone."""

from __future__ import annotations

from medlord_bench.results.comparisons import Comparison
from medlord_bench.results.places import Key, Place, key_of, places

KEY = Key("fid", "", "test", "p", "d")


def pair(first: str, second: str, verdict: str = "tie", **changes: object) -> Comparison:
    fields: dict[str, object] = {
        **KEY._asdict(), "first": first, "second": second, "difference": -1.0, "how": "jackknife", "p": 0.5,
        "p_holm": 0.5, "n": 16, "verdict": verdict,
    }  # fmt: skip
    return Comparison.model_validate(fields | changes)


def test_a_tie_says_what_difference_and_what_n_would_tell() -> None:
    ties = [
        pair("a", "b", n_needed=120, detectable=2.0),
        pair("a", "c", n_needed=40, detectable=3.0),
        pair("b", "c", "first"),
    ]
    assert places(KEY, "ab", ties)["a"] == Place("tied with best", (120, 120), False, (2.0, 2.0))
    found = places(KEY, "abc", ties)
    assert found["a"] == Place("tied with best", (120, 120), False, (2.0, 2.0)), "c is beaten by b, so it is no tie"
    assert "c" not in found


def test_comparisons_of_another_quantity_do_not_count() -> None:
    assert key_of(pair("a", "b")) == KEY
    for name in KEY._fields:
        assert places(KEY, "ab", [pair("a", "b", "first", **{name: "other"})]) == {}
