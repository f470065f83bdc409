"""One number of an analysis, with all that a reader must know of it."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import NonNegativeInt

from medlord_bench.contracts import FrozenConfig

ALL = "all"


class Finding(FrozenConfig):
    """A number, or a sentence (`note`) instead of one that cannot be computed.

    reader: an alias, or `all`. n: what was counted (`how` says of what); n_real: of the real volumes beside it. p_holm: p
    corrected over all tests of this quantity.
    """

    quantity: str
    question: str = ""
    source: str = ""
    reader: str = ALL
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: NonNegativeInt = 0
    n_real: NonNegativeInt | None = None
    p: float | None = None
    p_holm: float | None = None
    how: str = ""
    note: str = ""


def corrected(found: Sequence[Finding]) -> list[Finding]:
    """The findings with Holm's correction over those that have a p-value."""
    from medlord_bench import stats

    tested = [one for one in found if one.p is not None]
    values = iter(stats.holm([one.p for one in tested if one.p is not None]).tolist())
    return [one if one.p is None else one.model_copy(update={"p_holm": next(values)}) for one in found]


def bounded(value: float, low: float | None, high: float | None) -> dict[str, object]:
    """Value and interval; a sentence in place of an interval where all resamples are equal, or have no value."""
    if low is None or high is None:
        return {"value": value, "note": "no interval: too many resamples have no value"}
    if low == high:
        return {"value": value, "note": "no interval: all resamples are equal; more volumes are needed"}
    return {"value": value, "low": low, "high": high}
