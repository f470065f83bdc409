"""Agreement: of each reader with itself, from hidden repeats, and of the readers with each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from medlord_bench import stats

from .findings import Finding, bounded
from .rating_findings import CASES_BOOTSTRAP, SEED, first, table_of
from .unblind import Unblinded


def with_oneself(joined: Unblinded) -> Iterator[Finding]:
    """Weighted kappa of the first answer and the hidden repeat of the same volume, for each reader and question."""
    rows = {(one.reader, one.source, one.volume, one.question, one.repeat): one.level for one in joined.rows}
    for question in joined.rubric.questions:
        for reader in joined.readers:
            keys = [key for key in rows if key[0] == reader.reader and key[3] == question.name and key[4] == 1]
            both = [(rows.get((*key[:4], 0)), rows[key]) for key in keys]
            known = [place for place, pair in enumerate(both) if None not in pair]
            pairs = np.array([both[place] for place in known], dtype=float).reshape(-1, 2)
            number = Counter(keys[place][1] for place in known)
            of = ", ".join(f"{source.name} {number[source.name]}" for source in joined.sources)
            one = Finding(quantity="kappa_with_oneself", question=question.name, reader=reader.reader, n=len(pairs))
            if not len(pairs):
                yield one.model_copy(update={"note": "no hidden repeat was answered"})
                continue
            levels = len(question.levels)

            def kappa(
                drawn: NDArray[np.intp], pairs: NDArray[np.float64] = pairs, levels: int = levels
            ) -> float | None:
                return stats.weighted_kappa(pairs[drawn, 0], pairs[drawn, 1], levels)

            value = kappa(np.arange(len(pairs)))
            apart = np.abs(pairs[:, 0] - pairs[:, 1])
            how = f"Cohen's kappa, quadratic weights; n repeats: {of}; equal {int((apart == 0).sum())}"
            how += f", within one level {int((apart <= 1).sum())}" if levels > 2 else ""
            how += f"; {CASES_BOOTSTRAP}"
            if value is None:
                yield one.model_copy(
                    update={"how": how, "note": "all these answers are one level: kappa is not defined"}
                )
                continue
            low, high = stats.over_cases(kappa, len(pairs), SEED) or (None, None)
            yield one.model_copy(update={**bounded(value, low, high), "how": how})


def between_readers(joined: Unblinded) -> Iterator[Finding]:
    """Krippendorff's alpha of all readers, over the volumes of all sources, for each question."""
    rows, readers = first(joined), [one.reader for one in joined.readers]
    if len(readers) < 2:
        yield Finding(quantity="alpha", note="one reader: agreement between readers cannot be computed")
        return
    for question in joined.rubric.questions:
        tables = [table_of(rows, source.name, question.name, readers) for source in joined.sources]
        table = np.concatenate(tables).T
        difference: stats.Difference = "nominal" if question.kind == "verdict" else "ordinal"

        def alpha(
            drawn: NDArray[np.intp], table: NDArray[np.float64] = table, difference: stats.Difference = difference
        ) -> float | None:
            return stats.krippendorff_alpha(table[:, drawn], difference)

        n = int((~np.isnan(table)).sum(0).__ge__(2).sum())
        one = Finding(quantity="alpha", question=question.name, n=n)
        value = alpha(np.arange(table.shape[1])) if n else None
        if value is None:
            yield one.model_copy(update={"note": "all ratings are equal, or no volume has two: alpha is not defined"})
            continue
        low, high = stats.over_cases(alpha, table.shape[1], SEED) or (None, None)
        how = f"Krippendorff's alpha, {difference} difference, {len(readers)} readers; n volumes; {CASES_BOOTSTRAP}"
        yield one.model_copy(update={**bounded(value, low, high), "how": how})
