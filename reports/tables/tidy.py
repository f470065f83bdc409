"""CSV: one row a number with all that belongs to it, at full precision; and safe in a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from medlord_bench.contracts.results import Score
from medlord_bench.results.places import key_of
from medlord_bench.results.ranks import Ranks

from .cells import Facts

FORMULA = ("=", "+", "-", "@", "\t", "\r")


def records(scores: Sequence[Score], facts: Facts) -> list[dict[str, object]]:
    return [_record(score, facts) for score in scores]


def _record(score: Score, facts: Facts) -> dict[str, object]:
    ranks = facts.ranks.get(key_of(score), Ranks())
    low, high = ranks.intervals.get(score.generator, (None, None))
    place, cases = facts.place(score), facts.spread(score)
    lower, upper = score.quartiles or (None, None)
    detectable, needed = place.detectable or (None, None), place.needed or (None, None)
    ok = score.status == "ok"
    return {
        **{"contestant": score.generator, "control": score.generator in facts.controls, "dataset": score.dataset},
        **{"metric": score.metric, "title": facts.quantity(score.metric).label, "region": score.region},
        **{"reference": score.reference, "protocol": score.protocol, "status": score.status},
        **{"value": score.value, "unit": score.unit, "better": score.better},
        **{"low": score.low, "high": score.high, "interval": score.interval},
        **{"lower_quartile": lower, "upper_quartile": upper},
        "mean": cases.mean if cases else score.value if score.deviation is not None else None,
        "deviation": cases.deviation if cases else score.deviation,
        **{"n": score.n, "n_reference": score.n_reference, "failed": score.failed},
        **{"floor": score.floor, "floor_n": score.floor_n, "ceiling": score.ceiling, "p": score.p, "p_of": score.p_of},
        **{"verdict": place.word, "detectable_low": detectable[0], "detectable_high": detectable[1]},
        **{"n_needed_low": needed[0], "n_needed_high": needed[1]},
        **{"rank_low": low, "rank_high": high, "rank_of": ranks.of if low is not None else None},
        "rank_how": ranks.how
        if low is not None
        else ""
        if not ok or score.generator in facts.controls
        else ranks.reason,
        "patients_unknown": facts.patients_unknown,
        "seen_in_pretraining": facts.seen.get(score.generator, ""),
        "reason": "" if ok else facts.reason(score),
        "notes": score.note_text,
        "warning": score.warning,
    }


def text(records: Sequence[dict[str, object]]) -> str:
    """The records as CSV; columns in the order of their first appearance, None as an empty field."""
    out = io.StringIO(newline="")
    columns = list(dict.fromkeys(name for record in records for name in record))
    writer = csv.DictWriter(out, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: safe(value) for name, value in record.items()} for record in records)
    return out.getvalue()


def safe(value: object) -> object:
    """A text that a spreadsheet would take for a formula gets an apostrophe in front; numbers stay numbers."""
    if isinstance(value, str) and value.startswith(FORMULA):
        return f"'{value}"
    return value
