"""The cases worth a look: of each quantity of cases the worst and the median one, and the sample nearest to a training
image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from medlord_bench.contracts.metrics import Quantity
from medlord_bench.contracts.results import CaseRow


@dataclass(frozen=True)
class Pick:
    """kind: of the step that made the volume. beside: the real volume to show with it. value: of the case's whole
    volume, or the mean over its regions where it has none."""

    metric: str
    which: str
    contestant: str
    kind: str
    item: str
    beside: str
    value: float


def picks(rows: Iterable[CaseRow], quantities: Mapping[str, Quantity]) -> list[Pick]:
    """The worst and the median case of each contestant, in the order of the quantities; the lower median of an even
    number."""
    by_case: dict[tuple[str, str], dict[str, list[CaseRow]]] = defaultdict(lambda: defaultdict(list))
    nearest: dict[tuple[str, str], CaseRow] = {}
    paired = {one.pairs for one in quantities.values() if one.pairs}
    for row in rows:
        if row.metric in paired:
            nearest.setdefault((row.metric, row.generator), row)
        elif row.generator and row.metric in quantities and quantities[row.metric].cases_of:
            by_case[row.metric, row.generator][row.case].append(row)
    found: list[Pick] = []
    for quantity in quantities.values():
        for (metric, contestant), cases in by_case.items():
            if metric == quantity.name:
                found += _worst_and_median(quantity, contestant, {case: _value(own) for case, own in cases.items()})
        for (metric, contestant), row in nearest.items():
            if metric == quantity.pairs:
                found.append(Pick(quantity.name, "nearest", contestant, "samples", row.case, row.against, row.value))
    return found


def _value(rows: Sequence[CaseRow]) -> float:
    return fmean([row.value for row in rows if not row.region] or [row.value for row in rows])


def _worst_and_median(quantity: Quantity, contestant: str, values: Mapping[str, float]) -> Iterator[Pick]:
    best_first = sorted(values, key=lambda case: (values[case] * (-1 if quantity.better == "higher" else 1), case))
    for which, case in (("worst", best_first[-1]), ("median", best_first[(len(best_first) - 1) // 2])):
        yield Pick(quantity.name, which, contestant, quantity.cases_of, case, case, values[case])
