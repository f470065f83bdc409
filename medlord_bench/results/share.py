"""Results without anything of the real patients: for a report that leaves the hospital."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from pydantic import BaseModel

from medlord_bench.contracts.results import CaseRow, Replicates
from medlord_bench.results.inputs import Inputs
from medlord_bench.results.pictures import short_id
from medlord_bench.results.run_results import Origin, RunResults

PATH = re.compile(r"(?<![\w.:/])(?:[A-Za-z]:\\|~/|/)(?:[^\s'\"(),;:]+)")
HIDDEN = "(removed)"
LEAST_LETTERS = (
    4  # shorter ids are replaced in the columns of cases, and kept in texts, where they are most likely words
)
FREE = ("reason", "notes", "warning", "floor_note", "ceiling_note")  # fields of a score that are prose
PLACES = (
    "hostname",
    "slurm_job_id",
    "sittings",
    "git",
    "command",
    "data",
)  # of provenance: where, and with which files

Model = TypeVar("Model", bound=BaseModel)


def shareable(run: RunResults) -> RunResults:
    """The results without pixels of real volumes, case and patient ids, paths and host names.

    Left out: pictures of real volumes, of reconstructions and conditional samples (they follow a patient), and of controls
    (some are real volumes); the nearest training images; run.yaml. Cases and patients are numbered in a fixed order that
    says nothing of their names. Texts lose paths and ids. A sample that copies a patient is still a picture of that patient:
    the audit of copies is what speaks about that.
    """
    hidden = _Hidden(_ids(run), {str((origin.provenance or {}).get("hostname") or "") for origin in run.origins})
    controls = set(run.contestants) - set(run.ranked)
    paired = {one.pairs for one in run.quantities.values() if one.pairs}
    montage = run.montage and run.montage.model_copy(
        update={"rows": tuple(r for r in run.montage.rows if r.kind == "samples" and r.contestant not in controls)}
    )
    return replace(
        run,
        origins=[_origin(origin, hidden) for origin in run.origins],
        results=run.results
        and run.results.model_copy(
            update={
                "scores": tuple(hidden.model(score, FREE) for score in run.scores),
                "protocols": hidden.value(run.results.protocols),
            }
        ),
        rows=[hidden.row(row) for row in run.rows if row.metric not in paired and not row.against],
        replicates=[hidden.replicates(one) for one in run.replicates],
        comparisons=run.comparisons.model_copy(
            update={"not_compared": tuple(map(hidden.text, run.comparisons.not_compared))}
        ),
        montage=montage,
    )


def _origin(origin: Origin, hidden: _Hidden) -> Origin:
    kept = {name: value for name, value in (origin.provenance or {}).items() if name not in PLACES}
    provenance: Mapping[str, Any] | None = hidden.value(kept) if origin.provenance is not None else None
    config = "# left out: it names the folder of the data\n"
    return replace(
        origin, config=config, provenance=provenance, inputs=origin.inputs and _inputs(origin.inputs, hidden)
    )


def _inputs(inputs: Inputs, hidden: _Hidden) -> Inputs:
    return Inputs(
        inventory=inputs.inventory and inputs.inventory.anonymous(),
        samples_of={name: one.anonymous() for name, one in inputs.samples_of.items()},
        doubts=tuple(one.model_copy(update={"text": hidden.text(one.text)}) for one in inputs.doubts),
    )


def _ids(run: RunResults) -> list[str]:
    """Every name of a case or patient: of items with and without their hash."""
    named: set[str] = set()
    for row in run.rows:
        real = not row.generator or row.patient
        named |= {row.patient, row.against} | ({row.case} if real else set())
    for one in run.replicates:
        named |= set(one.real)
    for picture in run.montage.rows if run.montage else ():
        if picture.kind != "samples":
            named |= {item.id for item in picture.items}
    named |= {short_id(name) for name in named}
    return sorted(named - {""})


class _Hidden:
    """Replaces ids by numbers, and removes paths and host names."""

    def __init__(self, ids: Sequence[str], hosts: Iterable[str]) -> None:
        shorts = sorted({short_id(name) for name in ids})
        self.names = {name: f"case {shorts.index(short_id(name)) + 1}" for name in ids}
        words = [word for word in (*ids, *hosts) if len(word) >= LEAST_LETTERS]
        words.sort(key=len, reverse=True)
        self.pattern = re.compile("|".join(rf"(?<!\w){re.escape(word)}(?!\w)" for word in words)) if words else None

    def text(self, text: str) -> str:
        text = PATH.sub(HIDDEN, text)
        if self.pattern is not None:
            text = self.pattern.sub(lambda found: self.names.get(found.group(0), HIDDEN), text)
        return text

    def value(self, value: Any) -> Any:
        """A JSON value with all of its texts replaced."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {name: self.value(inner) for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(inner) for inner in value]
        return value

    def model(self, model: Model, fields: Sequence[str]) -> Model:
        """The model with the texts of some fields replaced."""
        given = model.model_dump()
        return type(model).model_validate(given | {name: self.value(given[name]) for name in fields})

    def replicates(self, one: Replicates) -> Replicates:
        return one.model_copy(update={"real": {self.names[unit]: value for unit, value in one.real.items()}})

    def row(self, row: CaseRow) -> CaseRow:
        named = {"case": self.names.get(row.case, row.case), "patient": self.names.get(row.patient, "")}
        return row.model_copy(update=named)
