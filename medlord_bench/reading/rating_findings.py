"""What ratings say: counts, how often a source is called real, how well readers tell it, and each model against real."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from medlord_bench import stats
from medlord_bench.errors import UserError
from medlord_bench.results.ratings import REAL, Rating

from .findings import ALL, Finding, bounded, corrected
from .rubric import Question, Rubric
from .unblind import Row, Unblinded

SEED = 0
CASES_BOOTSTRAP = "95 % percentile bootstrap over volumes"


def first(joined: Unblinded) -> list[Row]:
    """Answers without hidden repeats: a repeat is evidence on the reader, not on the source."""
    return [one for one in joined.rows if one.repeat == 0]


def counts(joined: Unblinded) -> tuple[Rating, ...]:
    """The study's `ratings.csv`: by reader, source and question. "Cannot assess" is not counted in n."""
    rows, language = first(joined), joined.language
    found: list[Rating] = []
    for reader in joined.readers:
        for source in joined.sources:
            for question in joined.rubric.questions:
                levels = [one.level for one in rows if _is(one, reader.reader, source.name, question.name)]
                known = [level for level in levels if level is not None]
                verdict = question.kind == "verdict"
                for level, words in enumerate(question.levels, 1) if known else ():
                    found.append(
                        Rating(
                            reader=reader.reader,
                            source=REAL if source.real else source.name,
                            category=question.name,
                            role="verdict" if verdict else "rating",
                            level=level - verdict,
                            label=words[language],
                            count=known.count(level),
                            n=len(known),
                        )
                    )
    return tuple(found)


def _is(row: Row, reader: str, source: str, question: str) -> bool:
    return (row.reader, row.source, row.question) == (reader, source, question)


def table_of(rows: Iterable[Row], source: str, question: str, readers: Sequence[str]) -> NDArray[np.float64]:
    """(volumes, readers): levels, NaN where a reader gave none."""
    own = [one for one in rows if one.source == source and one.question == question]
    volumes = sorted({one.volume for one in own})
    found = np.full((len(volumes), len(readers)), np.nan)
    for one in own:
        if one.level is not None and one.reader in readers:
            found[volumes.index(one.volume), readers.index(one.reader)] = one.level
    return found


def scores_of(rows: Sequence[Row], rubric: Rubric, source: str, readers: Sequence[str]) -> NDArray[np.float64] | None:
    """(volumes, readers): confidence, negative where the verdict is synthetic; the verdict alone without confidence."""
    verdict = next((one for one in rubric.questions if one.kind == "verdict"), None)
    if verdict is None:
        return None
    called = table_of(rows, source, verdict.name, readers) * 2 - 3
    sure = next((one for one in rubric.questions if one.kind == "confidence"), None)
    return called if sure is None else called * table_of(rows, source, sure.name, readers)


def _score(rubric: Rubric) -> str:
    """What `scores_of` gives, in words."""
    return " x ".join(one.name for kind in ("verdict", "confidence") for one in rubric.questions if one.kind == kind)


def medians(joined: Unblinded) -> Iterator[Finding]:
    """Median and quartiles (low, high) of each question with more than two levels, for each source."""
    rows = first(joined)
    for question in [one for one in joined.rubric.questions if len(one.levels) > 2]:
        for source in joined.sources:
            for reader in [one.reader for one in joined.readers]:
                given = table_of(rows, source.name, question.name, [reader])[:, 0]
                known = given[~np.isnan(given)]
                lacking = int(np.isnan(given).sum())
                one = Finding(
                    quantity="median",
                    question=question.name,
                    source=source.name,
                    reader=reader,
                    n=len(known),
                    how=f"median and quartiles of {len(question.levels)} levels; 'cannot assess': {lacking}",
                )
                if not len(known):
                    yield one.model_copy(update={"note": "no answer"})
                    continue
                low, middle, high = np.quantile(known, [0.25, 0.5, 0.75]).tolist()
                yield one.model_copy(update={"value": middle, "low": low, "high": high})


def called_real(joined: Unblinded) -> Iterator[Finding]:
    """How often each source was called real: of a model, how often readers were fooled. Read it beside the real volumes."""
    verdict = next((one for one in joined.rubric.questions if one.kind == "verdict"), None)
    if verdict is None:
        yield Finding(quantity="called_real", note="the rubric has no verdict")
        return
    rows, readers = first(joined), [one.reader for one in joined.readers]
    for source in joined.sources:
        table = table_of(rows, source.name, verdict.name, readers)
        for place, reader in enumerate(readers):
            n, count = int((~np.isnan(table[:, place])).sum()), int((table[:, place] == 2).sum())
            low, high = stats.wilson(count, n) if n else (None, None)
            how = "Wilson; n volumes"
            note = "" if n else "no answer"
            value = count / n if n else None
            yield Finding(
                quantity="called_real", question=verdict.name, source=source.name, reader=reader, value=value, low=low,
                high=high, n=n, how=how, note=note,
            )  # fmt: skip
        if len(readers) > 1:
            yield _called_real_by_all(rows, source.name, verdict, readers)


def _called_real_by_all(rows: Sequence[Row], source: str, verdict: Question, readers: Sequence[str]) -> Finding:
    own = [one for one in rows if one.source == source and one.question == verdict.name and one.level is not None]
    names = sorted({one.volume for one in own})
    own_numbers = [names.index(one.volume) for one in own]
    one = Finding(quantity="called_real", question=verdict.name, source=source, n=len(own))
    if not own:
        return one.model_copy(update={"note": "no answer"})
    found = stats.rate([one.level == 2 for one in own], own_numbers)
    how = f"Wilson at {found.size:.3g} independent answers; n answers on {len(names)} volumes by {len(readers)} readers"
    return one.model_copy(update={"value": found.value, "low": found.low, "high": found.high, "how": how})


def detection(joined: Unblinded) -> Iterator[Finding]:
    """d' and AUC of each model against the real volumes, of each reader and averaged over readers."""
    rows, names = first(joined), [one.reader for one in joined.readers]
    if not joined.real:
        yield Finding(quantity="auc", note="no source of real volumes: nothing to tell models from")
        return
    for model in joined.models:
        for readers in [[name] for name in names] + ([names] if len(names) > 1 else []):
            reader = readers[0] if len(readers) == 1 else ALL
            both = [scores_of(rows, joined.rubric, name, readers) for name in (joined.real[0], model)]
            if both[0] is None or both[1] is None:
                yield Finding(quantity="auc", source=model, reader=reader, note="the rubric has no verdict")
                continue
            real, own = (part[~np.isnan(part).any(1)] for part in both if part is not None)
            verdict = next(one.name for one in joined.rubric.questions if one.kind == "verdict")
            common = {"source": model, "reader": reader, "n": len(own), "n_real": len(real)}
            score = {"question": _score(joined.rubric), **common}
            if not len(real) or not len(own):
                note = "no volume that all readers answered"
                yield Finding(quantity="auc", note=note, **score)
                continue
            mean = f"mean of {len(readers)} readers; " if len(readers) > 1 else ""
            found = stats.area(real, own, SEED)
            how = f"{mean}{CASES_BOOTSTRAP}; 0.5 is chance"
            yield Finding(quantity="auc", how=how, **bounded(found.value, found.low, found.high), **score)
            seen = stats.sensitivity(own < 0, real < 0, SEED)
            how = f"{mean}of the verdicts alone; log-linear correction; {CASES_BOOTSTRAP}; 0 is chance"
            fields = {"question": verdict, "how": how, **common}
            yield Finding(quantity="d_prime", **bounded(seen.value, seen.low, seen.high), **fields)


def against_real(joined: Unblinded) -> list[Finding]:
    """Each model against the real volumes, in every question, by a permutation of the volumes."""
    rows, readers = first(joined), [one.reader for one in joined.readers]
    questions = [one.name for one in joined.rubric.questions if one.kind == "rating"]
    found = []
    combined = _score(joined.rubric)
    for question in [*questions, combined]:
        for model in joined.models if joined.real else ():
            tables = [
                scores_of(rows, joined.rubric, name, readers)
                if question == combined
                else table_of(rows, name, question, readers)
                for name in (model, joined.real[0])
            ]
            if any(table is None for table in tables):
                continue
            own, real = (_means(table) for table in tables if table is not None)
            one = Finding(quantity="delta", question=question, source=model, n=len(own), n_real=len(real))
            if not len(own) or not len(real):
                found.append(one.model_copy(update={"note": "no answers to compare"}))
                continue
            test = stats.dominance(own, real, SEED)
            how = "Cliff's delta of mean levels of volumes; "
            how += f"{CASES_BOOTSTRAP}; {'exact ' if test.exact else ''}permutation of volumes"
            fields = {**bounded(test.delta, test.low, test.high), "p": test.p, "how": how}
            found.append(one.model_copy(update=fields))
    return corrected(found)


def _means(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each volume, over the readers who answered."""
    known = table[~np.isnan(table).all(1)]
    return np.asarray(np.nanmean(known, axis=1)) if len(known) else np.zeros(0)


def ordinal(joined: Unblinded) -> list[Finding]:
    """The log odds of a higher level of a model than of real: readers fixed, errors clustered by volume."""
    rows, readers = first(joined), [one.reader for one in joined.readers]
    found = []
    for question in joined.rubric.questions:
        for model in joined.models if joined.real and question.kind == "rating" else ():
            own = [one for one in rows if one.question == question.name and one.level is not None]
            own = [one for one in own if one.source in (model, joined.real[0])]
            design = [[one.source == model, *(one.reader == name for name in readers[1:])] for one in own]
            volumes = [f"{one.source}/{one.volume}" for one in own]
            n = sum(one.source == model for one in own)
            one = Finding(quantity="log_odds", question=question.name, source=model, n=n, n_real=len(own) - n)
            try:
                levels = np.array([row.level for row in own], dtype=np.float64)
                fit = stats.cumulative_logit(levels, design, volumes if len(readers) > 1 else None)
            except UserError as error:
                found.append(one.model_copy(update={"note": f"no estimate: {error}"}))
                continue
            value, low, high, p = (float(part[0]) for part in (fit.value, fit.low, fit.high, fit.p))
            how = "cumulative logit, reader fixed, Wald; n answers" + (
                "; clustered by volume" if len(readers) > 1 else ""
            )
            fields = {"value": value, "low": low, "high": high, "p": p, "how": how}
            found.append(one.model_copy(update=fields))
    return corrected(found)
