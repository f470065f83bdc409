"""What choices between two volumes say: how often real was recognised, and Bradley-Terry strengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from medlord_bench import stats

from .findings import ALL, Finding, corrected
from .unblind import Choice, Unblinded


def recognised(joined: Unblinded) -> list[Finding]:
    """Two-alternative forced choice: how often the real volume of a pair was chosen, against each model."""
    real = set(joined.real)
    found: list[Finding] = []
    names = [one.reader for one in joined.readers]
    for model in joined.models if real else ():
        met = [one for one in joined.choices if {one.source, one.other_source} & real]
        met = [one for one in met if model in (one.source, one.other_source)]
        for reader in [*(names if len(names) > 1 else ()), ALL]:
            own = [one for one in met if reader in (one.reader, ALL)]
            one = Finding(quantity="recognised", source=model, reader=reader, n=len(own))
            if not own:
                found.append(one.model_copy(update={"note": "no choice"}))
                continue
            right = [choice.source in real for choice in own]
            sides = [_ids(choice) if choice.source in real else _ids(choice)[::-1] for choice in own]
            test = stats.accuracy(right, _numbers(sides))
            how = f"share of choices; Clopper-Pearson and exact binomial test against 0.5 (chance), at {test.size:.3g} independent "
            how += "choices (choices that share a volume are dependent)"
            fields = {"value": test.value, "low": test.low, "high": test.high, "how": how}
            found.append(one.model_copy(update={**fields, "p": test.p if reader == ALL else None}))
    return corrected(found)


def calibration(joined: Unblinded) -> Iterator[Finding]:
    """How often the real volume was chosen at each level of confidence, of all models together."""
    question = next((one for one in joined.rubric.questions if one.kind == "confidence"), None)
    real = set(joined.real)
    met = [one for one in joined.choices if len({one.source, one.other_source} & real) == 1]
    if question is None or not met:
        return
    for level, words in enumerate(question.levels, 1):
        own = [one for one in met if one.confidence == level]
        label = f"{question.name} {level}: {words[joined.language]}"
        one = Finding(quantity="calibration", question=label, n=len(own))
        if not own:
            yield one.model_copy(update={"note": "no choice at this level"})
            continue
        sides = [_ids(choice) if choice.source in real else _ids(choice)[::-1] for choice in own]
        found = stats.accuracy([choice.source in real for choice in own], _numbers(sides))
        how = f"share of choices that are right; Clopper-Pearson at {found.size:.3g} independent choices; no test"
        yield one.model_copy(update={"value": found.value, "low": found.low, "high": found.high, "how": how})
    unknown = sum(one.confidence is None for one in met)
    if unknown:
        note = "choices without an answer to it: they are in no row above"
        yield Finding(quantity="calibration", question=question.name, n=unknown, note=note)


def strengths(joined: Unblinded) -> Iterator[Finding]:
    """Bradley-Terry strengths; real, or the first source, is 0. A source that is separated from it has a sentence."""
    names = [*joined.real, *joined.models]
    linked = _linked(joined, names)
    for name in names:
        n = sum(name in (one.source, one.other_source) for one in joined.choices)
        if name not in linked:
            note = f"no estimate: every choice against {' and '.join(linked)} went one way, or none was made"
            yield Finding(quantity="strength", source=name, n=n, note=note)
    kept = [one for one in joined.choices if {one.source, one.other_source} <= set(linked)]
    if not kept:
        return
    chosen = [linked.index(one.source) for one in kept]
    other = [linked.index(one.other_source) for one in kept]
    found = stats.strengths(chosen, other, _numbers([_ids(one) for one in kept]), len(linked))
    how = f"Bradley-Terry log odds against {names[0]}; n choices; errors over shared volumes, Student's t"
    for place, name in enumerate(linked):
        yield Finding(
            quantity="strength",
            source=name,
            value=float(found.value[place]),
            low=float(found.low[place]) if place else None,
            high=float(found.high[place]) if place else None,
            n=chosen.count(place) + other.count(place),
            how=how if place else "the reference",
        )


def _linked(joined: Unblinded, names: Sequence[str]) -> list[str]:
    """The first source and all that won and lost against it, directly or over others (Ford 1957)."""
    from scipy.sparse.csgraph import connected_components

    wins = np.zeros((len(names), len(names)))
    for one in joined.choices:
        wins[names.index(one.source), names.index(one.other_source)] += 1
    group = connected_components(wins > 0, connection="strong")[1]
    return [name for name, own in zip(names, group, strict=True) if own == group[0]]


def sides(joined: Unblinded) -> Iterator[Finding]:
    """How often the left volume was chosen: about a half, since sides are drawn by lot."""
    for reader in joined.readers:
        own = [one.side == "left" for one in joined.choices if one.reader == reader.reader]
        if own:
            low, high = stats.wilson(sum(own), len(own))
            yield Finding(
                quantity="left_chosen",
                reader=reader.reader,
                value=float(np.mean(own)),
                low=low,
                high=high,
                n=len(own),
                how="Wilson",
            )


def _ids(one: Choice) -> tuple[str, str]:
    return f"{one.source}/{one.volume}", f"{one.other_source}/{one.other_volume}"


def _numbers(pairs: Sequence[tuple[str, str]]) -> np.ndarray:
    """(N, 2) whole numbers for names."""
    names = np.array(pairs, dtype=object).reshape(-1, 2)
    return np.unique(names.astype(str), return_inverse=True)[1].reshape(names.shape)
