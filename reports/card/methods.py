"""A paragraph for the methods section of a paper, with citation keys of `references.bib`."""

from __future__ import annotations

from collections.abc import Iterable

from medlord_bench.results.run_results import RunResults
from medlord_bench.results.words import tools

OWN = {
    "software": "medlord_bench",
    "jackknife": "efron1982jackknife",
    "Wilcoxon": "wilcoxon1945individual",
    "Holm": "holm1979simple",
}


def methods(run: RunResults) -> str:
    """Markdown with citations as Pandoc reads them, e.g. ``[@heusel2017gans]``. Only what the run did is in it."""
    keys = run.results.references if run.results else {}
    version = (run.origins[0].provenance or {}).get("medlord_bench", "")
    sentences = [
        f"We measured {_listing(run.ranked or run.contestants)} on {run.dataset}{_cite(_of(keys, 'datasets'))} with "
        f"medlord-bench {version}".rstrip()
        + f"{_cite([OWN['software']])}."
    ]
    if generators := _of(keys, "generators"):
        sentences.append(f"The generators are described in the literature{_cite(generators)}.")
    sentences += _measured(run)
    how = " ".join(one.how for one in run.comparisons.comparisons)
    if how:
        tests = [f"{name}{_cite([key])}" for name, key in OWN.items() if name in how]
        sentences.append(
            f"Contestants were compared by paired tests ({_listing(tests) or 'as recorded in the results'}), and p-values were "
            f"corrected for multiple comparisons{_cite([OWN['Holm']])}; a difference with p > 0.05 is called a tie."
        )
    used = [key for names in keys.values() for key in names]
    tools = [key for key in dict.fromkeys(used) if f"@{key}" not in " ".join(sentences)]
    if tools:
        sentences.append(f"Further methods and tools are described in the literature{_cite(tools)}.")
    return "# Methods\n\n" + " ".join(sentences) + "\n"


def cited(run: RunResults, own: Iterable[str]) -> list[str]:
    """The keys that the paragraph cites, and those of the card itself."""
    text = methods(run)
    return [key for key in dict.fromkeys((*run.references, *own)) if f"@{key}" in text]


def _measured(run: RunResults) -> list[str]:
    """One sentence per metric: its quantities, n and interval."""
    found = []
    protocols = run.results.protocols if run.results else {}
    for protocol, text in protocols.items():
        scores = [one for one in run.scores if one.protocol == protocol and one.status == "ok"]
        if not scores:
            continue
        names = list(dict.fromkeys(one.metric for one in scores))
        sizes = sorted({one.n for one in scores if one.generator in run.ranked} or {one.n for one in scores})
        n = f"n = {sizes[0]}" if len(sizes) == 1 else f"n = {sizes[0]} to {sizes[-1]}"
        intervals = [one for one in dict.fromkeys(score.interval for score in scores if score.low is not None) if one]
        keys = (run.results.references if run.results else {}).get(f"metrics/{text.get('metric')}", ())
        interval = f"; intervals: {_listing(intervals)}" if intervals else ""
        used = f"; {told}" if (told := tools([text])) else ""
        found.append(f"We report {_listing(names)}{_cite(keys)} ({n}{used}{interval}; protocol `{protocol}`).")
    return found


def _of(keys: dict[str, tuple[str, ...]], kind: str) -> list[str]:
    return [key for plugin, names in keys.items() if plugin.startswith(f"{kind}/") for key in names]


def _cite(keys: Iterable[str]) -> str:
    named = "; ".join(f"@{key}" for key in dict.fromkeys(keys))
    return f" [{named}]" if named else ""


def _listing(words: Iterable[str]) -> str:
    *first, last = [*words] or [""]
    return f"{', '.join(first)} and {last}" if first else last
