"""The case rows of a quantity as one list of values per region and source."""

from __future__ import annotations

from collections.abc import Iterable

from medlord_bench.contracts.results import CaseRow

REAL = "real "  # begins the name of a source of real volumes; their split follows
Sources = dict[str, dict[str, float]]  # contestant or real split -> case -> value


def by_region(rows: Iterable[CaseRow], metric: str) -> dict[str, Sources]:
    """Region -> source -> case -> value; real volumes first.

    rows: of one protocol. Each contestant's reduction repeats the rows of the real volumes: each case counts once.
    """
    found: dict[str, Sources] = {}
    for row in rows:
        if row.metric == metric:
            source = row.generator or f"{REAL}{row.split}"
            found.setdefault(row.region, {}).setdefault(source, {})[row.case] = row.value
    return {
        region: {name: sources[name] for name in sorted(sources, key=lambda name: not name.startswith(REAL))}
        for region, sources in found.items()
    }
