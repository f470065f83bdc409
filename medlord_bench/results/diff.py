"""What differs between two runs: settings, versions, protocols and numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from medlord_bench.contracts.results import Score
from medlord_bench.results.comparisons import Comparison, compare
from medlord_bench.results.run_results import RunResults
from medlord_bench.util.documents import parse_yaml

Key = tuple[str, str, str, str]  # generator, metric, region, reference


@dataclass(frozen=True)
class Change:
    """A field with its value in either run, as JSON text; "absent" where a run lacks it."""

    what: str
    field: str
    first: str
    second: str


@dataclass(frozen=True)
class Number:
    """A number in both runs. p: of no difference, by the paired test where the cases are shared, uncorrected; None
    without a test. reason: why they were not compared."""

    generator: str
    metric: str
    region: str
    reference: str
    first: float | None
    second: float | None
    p: float | None
    reason: str

    @property
    def changed(self) -> bool:
        return self.first != self.second


@dataclass(frozen=True)
class Diff:
    """changes: settings, versions and protocols. numbers: of contestants in both runs, changed or not. only: contestants
    of one run alone, with the run."""

    changes: list[Change]
    numbers: list[Number]
    only: list[tuple[str, str]]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def diff(first: RunResults, second: RunResults) -> Diff:
    """Compare two runs. A number is tested if both runs measured it under one protocol and on shared patients."""
    changes = [
        *_changes("setting", _settings(first), _settings(second)),
        *_changes("version", _versions(first), _versions(second)),
        *_changes("protocol", _protocols(first), _protocols(second)),
    ]
    shared = [name for name in first.contestants if name in second.contestants]
    only = [(name, first.name) for name in first.contestants if name not in shared]
    only += [(name, second.name) for name in second.contestants if name not in shared]
    return Diff(changes, list(_numbers(first, second)), only)


def _settings(run: RunResults) -> Any:
    found = parse_yaml(run.origins[0].config or "", f"{run.origins[0].folder}/run.yaml")
    return found if isinstance(found, dict) else {}


def _versions(run: RunResults) -> Any:
    found = run.origins[0].provenance or {}
    return {"medlord_bench": found.get("medlord_bench"), "python": found.get("python"), **(found.get("packages") or {})}


def _protocols(run: RunResults) -> Any:
    return {str(text.get("metric")): text for text in (run.results.protocols if run.results else {}).values()}


def _changes(what: str, first: Any, second: Any) -> Iterator[Change]:
    for field, a, b in differences(first, second):
        yield Change(what, field, a, b)


def differences(a: Any, b: Any, field: str = "") -> Iterator[tuple[str, str, str]]:
    """(dotted field, value in a, value in b) of each difference of two JSON values; an absent field is "absent"."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for name in dict.fromkeys((*a, *b)):
            inner = f"{field}.{name}" if field else str(name)
            if name not in a or name not in b:
                x, y = (_json(one[name]) if name in one else "absent" for one in (a, b))
                yield inner, x, y
            else:
                yield from differences(a[name], b[name], inner)
    elif a != b:
        yield field, _json(a), _json(b)


def _json(value: Any) -> str:
    return json.dumps(value, default=str)


def _numbers(first: RunResults, second: RunResults) -> Iterator[Number]:
    ours, theirs = _by_key(first), _by_key(second)
    tests = _tests(first, second)
    for key, one in ours.items():
        other = theirs.get(key)
        if other is None:
            continue
        test = tests.get((*key, one.protocol))
        reason = ""
        if one.status == "not_run" or other.status == "not_run":
            reason = one.reason or other.reason
        elif one.protocol != other.protocol:
            reason = f"protocols differ: {one.protocol} and {other.protocol}"
        elif test is None and one.value != other.value:
            reason = "no paired test: no shared patients, or too few"
        yield Number(*key, one.value, other.value, None if test is None else test.p, reason)


def _by_key(run: RunResults) -> dict[Key, Score]:
    return {(one.generator, one.metric, one.region, one.reference): one for one in run.scores}


def _tests(first: RunResults, second: RunResults) -> dict[tuple[str, str, str, str, str], Comparison]:
    """(key, protocol) -> the paired test of a contestant against its namesake in the other run."""
    quantities = {**first.quantities, **second.quantities}
    found = {}
    for name in first.contestants:
        if name not in second.contestants:
            continue
        pairs = [(run, f"{name} in {place}") for place, run in (("first", first), ("second", second))]

        def of(field: str, pairs: list[tuple[RunResults, str]] = pairs, name: str = name) -> list[Any]:
            return [
                one.model_copy(update={"generator": shown})
                for run, shown in pairs
                for one in getattr(run, field)
                if one.generator == name
            ]

        for one in compare(of("scores"), of("rows"), of("replicates"), quantities).comparisons:
            found[name, one.metric, one.region, one.reference, one.protocol] = one
    return found
