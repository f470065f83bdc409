"""All warnings of the run, each once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from medlord_bench.contracts.results import Score
from medlord_bench.results.run_results import RunResults

MAX_TEXTS = 6  # different texts of one contestant and quantity


@dataclass(frozen=True)
class Warned:
    contestant: str
    metrics: Sequence[str]
    text: str


def doubts(run: RunResults) -> list[Warned]:
    """What to doubt about the data folder, the real images and the samples themselves."""
    found: dict[tuple[str, str], None] = {}
    for origin in run.origins:
        if origin.inputs is None:
            continue
        names = {old: new for new, old in origin.contestants.items()}
        if origin.inputs.inventory is not None:
            found |= dict.fromkeys(("data set", text) for text in origin.inputs.inventory.warnings)
        for one in origin.inputs.doubts:
            if one.about == "real" or one.about in names:
                found[("data set" if one.about == "real" else names[one.about]), one.text] = None
    return [Warned(name, ["input"], text) for name, text in found]


def warnings(scores: Sequence[Score]) -> list[Warned]:
    """One entry per contestant and quantity; quantities with the same warning share an entry."""
    found: dict[tuple[str, str], list[Score]] = defaultdict(list)
    for score in scores:
        if score.warning:
            found[score.generator, score.metric].append(score)
    merged: dict[tuple[str, str], list[str]] = defaultdict(list)
    for (name, metric), members in found.items():
        merged[name, _said(members)].append(metric)
    return [Warned(name, metrics, text) for (name, text), metrics in merged.items()]


def _said(scores: Iterable[Score]) -> str:
    """Each text once, after its regions."""
    by_text: dict[str, list[str]] = defaultdict(list)
    for score in scores:
        by_text[score.warning].append(score.region)
    parts = []
    for text, regions in list(by_text.items())[:MAX_TEXTS]:
        named = ", ".join(dict.fromkeys(region for region in regions if region))
        parts.append(f"{named}: {text}" if named else text)
    left = len(by_text) - MAX_TEXTS
    return "; ".join(parts) + (f"; and {left} more" if left > 0 else "")
