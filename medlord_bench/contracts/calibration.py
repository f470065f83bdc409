"""The expected and observed results of a calibration."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from medlord_bench.contracts import registry
from medlord_bench.contracts.results import ResultsFile, Score
from medlord_bench.contracts.validation import read_json
from medlord_bench.contracts.values import FrozenConfig
from medlord_bench.util.files import write_text

FILE = "calibration.json"
Status = Literal["ok", "failed", "not_checked"]


class Finding(FrozenConfig):
    """One expectation. fault: the change of the volumes, or the simulation. metric: the quantity that must, or must
    not, detect it."""

    fault: str
    metric: str
    expected: str
    seen: str
    status: Status


class Sight(FrozenConfig):
    """Whether a quantity sees a fault at the n of the calibration; None if it has no value for it."""

    fault: str
    metric: str
    sees: bool | None


class Record(FrozenConfig):
    """`calibration.json` of a run and of the store: every finding, and the versions of the tested plugins.

    sights: each fault in each quantity that can see faults. n: samples of each control. stale: in another run, the plugins whose version differs from the calibrated one.
    """

    trusted: bool
    findings: tuple[Finding, ...]
    sights: tuple[Sight, ...] = ()
    n: int = 0
    dataset: str
    versions: dict[str, int]
    date: str
    run: str
    stale: tuple[str, ...] = ()


def sight_rows(sights: Sequence[Sight]) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """The quantities, and per fault a word for each: "yes", "no", or a dash without a value."""
    metrics = list(dict.fromkeys(one.metric for one in sights))
    words = {True: "yes", False: "no", None: "-"}
    cells = {(one.fault, one.metric): words[one.sees] for one in sights}
    faults = dict.fromkeys(one.fault for one in sights)
    return metrics, [(fault, [cells.get((fault, metric), "-") for metric in metrics]) for fault in faults]


def versions() -> dict[str, int]:
    """The versions of every plugin that takes part in measuring."""
    kinds = ("metrics", "extractors", "segmenters")
    return {f"{kind}/{name}": plugin.version for kind in kinds for name, plugin in registry.loadable(kind).items()}


def write(record: Record, folder: Path) -> None:
    """Write `calibration.json` into `folder`, atomically."""
    write_text(folder / FILE, record.model_dump_json(indent=1))


def latest(store: Path) -> Record | None:
    """The store's last calibration, with the changes since then; None if there was none."""
    path = store / FILE
    if not path.exists():
        return None
    record = read_json(Record, path)
    now = versions()
    stale = tuple(name for name, version in now.items() if record.versions.get(name) != version)
    return record.model_copy(update={"stale": stale})


class Ask(NamedTuple):
    """One score. reference: required if a metric is measured against several."""

    metric: str
    control: str
    region: str = ""
    reference: str | None = None


class Seen:
    """The scores of a calibration run, looked up by their subject."""

    def __init__(self, results: ResultsFile) -> None:
        self.scores = results.scores

    def _matching(self, ask: Ask) -> list[Score]:
        named = (one for one in self.scores if one.metric == ask.metric and one.generator == ask.control)
        return [one for one in named if ask.reference in (None, one.reference)]

    def score(self, ask: Ask) -> Score | None:
        """The score if it has a value."""
        found = (one for one in self._matching(ask) if one.region == ask.region and one.value is not None)
        return next(found, None)

    def why_not(self, ask: Ask) -> str:
        """The reason why there is no value."""
        found = (one.reason for one in self._matching(ask) if one.status == "not_run")
        return next(found, f"{ask.control} has no {ask.metric} {ask.region}".rstrip())

    def regions(self, metric: str, control: str) -> list[str]:
        found = (one.region for one in self.scores if one.metric == metric and one.generator == control)
        return [region for region in dict.fromkeys(found) if region]

    def expect(
        self, fault: str, metric: str, expected: str, asks: Sequence[Ask], holds: Callable[..., bool]
    ) -> Finding:
        """Test an expectation on scores; `not_checked`, with the reason, if one of them has no value.

        metric: as shown. holds: called with the scores, in order.
        """
        found = [self.score(ask) for ask in asks]
        scores = [score for score in found if score is not None]
        if len(scores) < len(asks):
            why = next(self.why_not(ask) for ask, score in zip(asks, found, strict=True) if score is None)
            return Finding(fault=fault, metric=metric, expected=expected, seen=why, status="not_checked")
        status: Status = "ok" if holds(*scores) else "failed"
        seen = ", ".join(map(shown, scores))
        return Finding(fault=fault, metric=metric, expected=expected, seen=seen, status=status)


def shown(score: Score) -> str:
    """A score as short text."""
    parts = [f"{score.value:.4g}"]
    if score.low is not None and score.high is not None:
        parts.append(f"[{score.low:.4g}, {score.high:.4g}]")
    for name, value in (("floor", score.floor), ("ceiling", score.ceiling), ("p", score.p)):
        if value is not None:
            parts.append(f"{name} {value:.3g}")
    return " ".join(parts) + (" warned" if score.warning else "")


class Observed(NamedTuple):
    """A number of a finding's `seen`, with its interval and the floor or ceiling beside it."""

    value: float
    low: float | None = None
    high: float | None = None
    limit: float | None = None


_NUMBER = r"(-?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?|-?inf)"
_SCORE = re.compile(
    rf"(?:^|, ){_NUMBER}(?: \[{_NUMBER}, {_NUMBER}\])?(?: (?:floor|ceiling) {_NUMBER})?(?=$|,| p | warned)"
)
_SHARE = re.compile(rf"^{_NUMBER}% \({_NUMBER}% to {_NUMBER}%\)")


def observed(seen: str) -> list[Observed]:
    """The numbers in a finding's text, as `shown` or a simulation writes them; none in other words."""
    share = _SHARE.match(seen)
    if share:
        return [Observed(*(round(float(part) / 100, 9) for part in share.groups()))]
    found = [[None if part is None else float(part) for part in one.groups()] for one in _SCORE.finditer(seen)]
    return [Observed(one[0], *one[1:]) for one in found if one[0] is not None]
