"""The typed results file, the only input of reports.

`scores.json` holds a `ResultsFile`; `cases.csv` holds the per-case rows. Derived values can be recomputed.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationError, model_validator

from medlord_bench.contracts.metrics import Better, Quantity
from medlord_bench.contracts.validation import read_json
from medlord_bench.contracts.values import FrozenConfig, FrozenResult
from medlord_bench.errors import UserError
from medlord_bench.util.files import write_text

SCHEMA_VERSION = 1

NoteKind = Literal["definition", "counts", "context", "caution", "fallback"]


class Note(FrozenConfig):
    """One remark on a number.

    kind: `definition`, what exactly the value is; `counts`, which cases are included and excluded; `context`, further
    values for comparison; `caution`, a limitation; `fallback`, a substitute that the user requested.
    """

    kind: NoteKind
    text: str


def notes(kind: NoteKind, *texts: str) -> tuple[Note, ...]:
    """Notes of one kind; an empty text gives none."""
    return tuple(Note(kind=kind, text=text) for text in texts if text)


class Score(FrozenResult):
    """One number with all required details (docs/architecture.md, "What a number carries")."""

    metric: str = Field(description="e.g. fid, psnr")
    protocol: str = Field(description="id of the protocol that the number was measured under")
    generator: str = Field(description="the contestant, name[:variant]@preset")
    dataset: str
    region: str = Field(
        "", description="anatomical region, the plane of a planar metric, or a dose; empty for the whole"
    )
    reference: str = Field("", description="the real split it is measured against: train, val or test")
    value: float | None = None
    unit: str = ""
    better: Better = Field("", description="which direction is better; empty if neither is")
    low: float | None = Field(None, description="lower end of the interval")
    high: float | None = Field(None, description="upper end of the interval")
    interval: str = Field("", description="how the interval was made, e.g. '95 % delete-one-volume jackknife'")
    quartiles: tuple[float, float] | None = Field(None, description="of the cases, if the value is their median")
    deviation: float | None = Field(None, description="standard deviation of the cases, if the value is their mean")
    p: float | None = Field(None, ge=0, le=1, description="p-value against 'no difference from the reference'")
    p_of: str = Field("", description="which test p is of")
    n: int = Field(0, description="number of volumes (or patients)")
    n_reference: int | None = Field(None, description="number of real reference volumes, if there is such a set")
    failed: int = Field(0, description="samples that failed and are counted in n")
    floor: float | None = Field(None, description="real against real, on disjoint halves")
    floor_n: int | None = Field(None, description="volumes on each side of the floor")
    floor_note: str = ""
    ceiling: float | None = Field(None, description="score of the measuring tool itself on real images")
    ceiling_note: str = ""
    points: tuple[tuple[float, float], ...] = Field(
        (), description="(number of samples, value) pairs that an extrapolated value comes from"
    )
    status: Literal["ok", "not_run"] = "ok"
    reason: str = Field("", description="why a value was not computed")
    notes: tuple[Note, ...] = Field((), description="remarks for the reader, e.g. a fallback that the user requested")
    warning: str = Field("", description="important warning, e.g. samples that are upside down")

    @property
    def note_text(self) -> str:
        """The texts of all notes in one line."""
        return "; ".join(note.text for note in self.notes)


class CaseRow(FrozenResult):
    """One value of one case.

    generator: the contestant of the case; empty for a real volume. split: a real volume's split. patient: the case's
    patient, if cases are compared in pairs. against: the item that the case is compared with, e.g. the nearest
    training image.
    """

    metric: str
    generator: str = ""
    split: Literal["", "train", "val", "test"] = ""
    case: str
    region: str = ""
    against: str = ""
    value: float
    patient: str = ""


class Replicates(FrozenResult):
    """A score with each unit left out in turn, for the interval of the difference of two generators.

    samples: sample -> the value without it. real: real patient -> the value without it; the same patients are used
    for every generator, so these values are paired. squared: a squared distance, never negative, as FID: differences
    are tested on its root.
    """

    metric: str
    protocol: str
    generator: str
    dataset: str
    region: str = ""
    reference: str = ""
    value: float
    better: Better = "lower"
    squared: bool = False
    samples: dict[str, float]
    real: dict[str, float]


class ReplicatesFile(FrozenConfig):
    """`results/replicates.json`: what is needed to compare this run's contestants with those of another run."""

    model_config = ConfigDict(ser_json_inf_nan="constants")

    replicates: tuple[Replicates, ...] = ()


class SeenInPretraining(FrozenConfig):
    """That the published weights of a contestant were trained on cases of the data set that it is measured on.

    trained_on: the data sets of its weights that matter here. data_set: the one measured on. relation: whether they are
    the same, or share cases. note: the sentence of an earlier release, which has nothing else.
    """

    trained_on: tuple[str, ...] = ()
    data_set: str = ""
    relation: Literal["same", "shares cases", "not recorded"] = "not recorded"
    note: str = ""

    @model_validator(mode="before")
    @classmethod
    def _sentence(cls, value: Any) -> Any:
        return {"note": value} if isinstance(value, str) else value

    def __str__(self) -> str:
        if self.note:
            return self.note
        shares = f", which shares cases with {self.data_set}" if self.relation == "shares cases" else ""
        return f"seen in pretraining: its published weights were trained on {' and '.join(self.trained_on)}{shares}"


class ResultsFile(FrozenConfig):
    """`results/scores.json` of a run. protocols: id -> its full text, so that an id can always be explained.

    controls: contestants that are reference points and are not ranked.
    quantities: the quantities declared by the metrics of the run. references: plugin, as "metrics/fid", -> keys in
    `references.bib`. licences: plugin -> licence of the data or weights it uses, as far as declared.
    seen_in_pretraining: contestant -> which data sets, if its published weights were trained on cases of the data set.
    patients_unknown: why the patients of the data set are not known; empty if they are.
    """

    schema_version: int = SCHEMA_VERSION
    scores: tuple[Score, ...]
    protocols: dict[str, dict[str, object]]
    controls: tuple[str, ...] = ()
    quantities: tuple[Quantity, ...] = ()
    references: dict[str, tuple[str, ...]] = {}
    licences: dict[str, str] = {}
    seen_in_pretraining: dict[str, SeenInPretraining] = {}
    patients_unknown: str = ""


AGAIN = "restore it, or run the command again, which collects the results anew"
REPLICATES = "replicates.json"
CASE_COLUMNS = tuple(CaseRow.model_fields)


def write_results(folder: Path, results: ResultsFile, rows: Iterable[CaseRow]) -> None:
    """Write `scores.json` and `cases.csv` into `folder`, each atomically."""
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, CASE_COLUMNS)
    writer.writeheader()
    writer.writerows(row.model_dump() for row in rows)
    write_text(folder / "cases.csv", table.getvalue())
    write_text(folder / "scores.json", results.model_dump_json(indent=1))


def write_replicates(folder: Path, found: Iterable[Replicates]) -> None:
    """Write `replicates.json` into `folder`, atomically."""
    write_text(folder / REPLICATES, ReplicatesFile(replicates=tuple(found)).model_dump_json())


def read_replicates(folder: Path) -> tuple[Replicates, ...]:
    """The replicates of a run; none without a file. Raises `UserError` naming a damaged one."""
    path = folder / REPLICATES
    return read_json(ReplicatesFile, path).replicates if path.exists() else ()


def read_results(folder: Path) -> tuple[ResultsFile, list[CaseRow]]:
    """Read the files of `write_results`. Raises `UserError` if a file is missing or of another schema."""
    path = folder / "scores.json"
    try:
        results = ResultsFile.model_validate_json(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: not found; the run has no results yet: run it again to finish it") from None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the whole file"
        raise UserError(f"{path}: {field}: {first['msg']}; {AGAIN}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not text; {AGAIN}") from None
    if results.schema_version != SCHEMA_VERSION:
        versions = f"{results.schema_version}, this version of medlord-bench reads {SCHEMA_VERSION}"
        raise UserError(f"{path}: schema_version {versions}; {AGAIN}")
    return results, _read_rows(folder / "cases.csv")


def _read_rows(path: Path) -> list[CaseRow]:
    try:
        with open(path, newline="", encoding="utf-8") as file:
            table = csv.DictReader(file, strict=True)
            if tuple(table.fieldnames or ()) != CASE_COLUMNS:
                raise UserError(f"{path}: columns {table.fieldnames}, expected {', '.join(CASE_COLUMNS)}; {AGAIN}")
            return [CaseRow.model_validate(row) for row in table]
    except FileNotFoundError:
        raise UserError(f"{path}: not found; {AGAIN}") from None
    except (ValidationError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: damaged ({str(error).splitlines()[0]}); {AGAIN}") from None
