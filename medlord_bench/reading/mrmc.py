"""Answers in the long format of programs for multi-reader multi-case studies, and a script for R."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from medlord_bench.drawing.files import Value

from .rating_findings import first, scores_of
from .unblind import Unblinded

COLUMNS = ("reader", "case", "source", "truth", "rating")
LEVEL_COLUMNS = ("reader", "case", "source", "question", "level")

SCRIPT = """\
# Models that Python's statsmodels has not: readers and volumes both random. Run in this folder: Rscript mrmc.R
# install.packages(c("ordinal", "MRMCaov"))
levels <- read.csv("levels_long.csv")
levels$source <- relevel(factor(levels$source), ref = {reference})
for (question in unique(levels$question)) {{
  own <- levels[levels$question == question, ]
  own$level <- factor(own$level, ordered = TRUE)
  cat("\\n==", question, "\\n")
  print(summary(ordinal::clmm(level ~ source + (1 | reader) + (1 | case), data = own)))
}}

# truth: 1 for synthetic; rating: higher is more surely synthetic. One model against real at a time.
mrmc <- read.csv("mrmc.csv")
for (model in setdiff(unique(mrmc$source), {reference})) {{
  own <- mrmc[mrmc$source %in% c({reference}, model), ]
  own$test <- model
  cat("\\n==", model, "\\n")
  print(MRMCaov::mrmc(MRMCaov::empirical_auc(truth, rating), test, reader, case, data = own))
}}
"""


def script(joined: Unblinded) -> str:
    reference = (joined.real or joined.models)[0].replace("\\", "\\\\").replace('"', '\\"')
    return SCRIPT.format(reference=f'"{reference}"')


def ratings(joined: Unblinded) -> Iterator[list[Value]]:
    """Rows of COLUMNS: the verdict times its confidence, higher is more surely synthetic."""
    rows = first(joined)
    for source in joined.sources:
        for reader in joined.readers:
            own = [one for one in rows if one.source == source.name and one.reader == reader.reader]
            for volume in sorted({one.volume for one in own}):
                answers = [one for one in own if one.volume == volume]
                found = scores_of(answers, joined.rubric, source.name, [reader.reader])
                if found is not None and len(found) and not np.isnan(score := found[0, 0]):
                    yield [reader.reader, f"{source.name}/{volume}", source.name, int(not source.real), -int(score)]


def levels(joined: Unblinded) -> Iterator[list[Value]]:
    """Rows of LEVEL_COLUMNS."""
    for one in first(joined):
        if one.level is not None:
            yield [one.reader, f"{one.source}/{one.volume}", one.source, one.question, one.level]
