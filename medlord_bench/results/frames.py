"""Results as pandas frames, one row per number, case, comparison or step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from medlord_bench.contracts.results import CaseRow, Score
from medlord_bench.results.comparisons import Comparison
from medlord_bench.results.report import ReportOptions, write_reports
from medlord_bench.results.run_results import RunResults
from medlord_bench.results.step_records import Memory, StepRecord, Trained

if TYPE_CHECKING:
    import pandas as pd

MEMORY = "memory_"  # begins the columns of a step's memory
CATEGORIES = {
    *("metric", "protocol", "generator", "dataset", "region", "reference", "unit", "better", "status", "split"),
    *("first", "second", "verdict", "kind", "plugin", "contestant", "state", "device", "memory_evidence"),
}
INTEGERS = {"n", "n_reference", "n_needed", "failed", "floor_n", "items", "trained_steps"}
FLOATS = {
    *("value", "low", "high", "q1", "q3", "p", "p_holm", "p_equivalence", "floor", "ceiling", "difference", "margin"),
    *("deviation", "detectable", "seconds", "peak_gib", "trained_seconds"),
    *(MEMORY + name for name in Memory.model_fields if name not in ("card", "evidence")),
}


class Results:
    """The results of a run, or of several merged ones.

    scores: one row per number, the fields of `contracts.results.Score` without its points; the quartiles are the columns q1
    and q3, the notes one text. cases: one row per case, the fields of `CaseRow`; real volumes have an empty generator and a split.
    comparisons: one row per pair and quantity, the fields of `results.comparisons.Comparison`. steps: one row per step, with
    its time (s) and memory (GiB).

    Names are categories, counts nullable integers, values floats. The frames are made on first use.
    """

    def __init__(self, run: RunResults) -> None:
        self.run = run

    def __repr__(self) -> str:
        return f"Results({self.run.name!r}: {', '.join(self.run.contestants)} on {self.run.dataset})"

    @property
    def folder(self) -> Path:
        """The run folder; the first one of merged runs."""
        return self.run.origins[0].folder

    @cached_property
    def scores(self) -> pd.DataFrame:
        return _frame(map(_score, self.run.scores), _columns(Score, quartiles=("q1", "q3"), points=()))

    @cached_property
    def cases(self) -> pd.DataFrame:
        return _frame((row.model_dump() for row in self.run.rows), _columns(CaseRow))

    @cached_property
    def comparisons(self) -> pd.DataFrame:
        return _frame((one.model_dump() for one in self.run.comparisons.comparisons), _columns(Comparison))

    @cached_property
    def steps(self) -> pd.DataFrame:
        columns = _columns(
            StepRecord,
            memory=[MEMORY + name for name in Memory.model_fields],
            trained=("trained_steps", "trained_seconds"),
        )
        return _frame(map(_step, self.run.steps), columns)

    def report(self, out: Path | str, options: ReportOptions | None = None, only: Sequence[str] = ()) -> list[Path]:
        """Write the page, tables, figures and card below `out`; returns the files."""
        return write_reports(self.run, Path(out), options, only)


def _columns(model: type[BaseModel], **replaced: Sequence[str]) -> list[str]:
    """The fields of a model in order; a replaced one is several columns."""
    return [column for name in model.model_fields for column in replaced.get(name, (name,))]


def _score(score: Score) -> dict[str, Any]:
    row = score.model_dump(exclude={"quartiles", "points"})
    q1, q3 = score.quartiles or (None, None)
    return {**row, "q1": q1, "q3": q3, "notes": score.note_text}


def _step(step: StepRecord) -> dict[str, Any]:
    trained = step.trained or Trained()
    row = step.model_dump(exclude={"memory", "trained"})
    row |= {MEMORY + name: value for name, value in step.memory.model_dump().items()}
    return {**row, "trained_steps": trained.steps, "trained_seconds": trained.seconds}


def _frame(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    import pandas as pd

    frame = pd.DataFrame(list(rows), columns=list(columns))
    kinds = dict.fromkeys(CATEGORIES, "category") | dict.fromkeys(INTEGERS, "Int64") | dict.fromkeys(FLOATS, "float64")
    return frame.astype({name: kinds.get(name, "string") for name in columns})
