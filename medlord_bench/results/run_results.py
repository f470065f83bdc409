"""The reader of a run folder for every report: typed, with missing parts as None or empty.

A run folder is complete: a copy of it can be read without the store.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medlord_bench.contracts.calibration import FILE, Record
from medlord_bench.contracts.metrics import Quantity
from medlord_bench.contracts.results import CaseRow, Replicates, ResultsFile, Score, read_replicates, read_results
from medlord_bench.contracts.validation import read_json
from medlord_bench.errors import UserError
from medlord_bench.results import comparisons, inputs, references
from medlord_bench.results.comparisons import ComparisonsFile
from medlord_bench.results.efforts import Effort, budget, efforts
from medlord_bench.results.inputs import Inputs
from medlord_bench.results.pictures import Montage, picture_path, read_montage, volume_path
from medlord_bench.results.step_records import Memory, StepRecord, name_of, read_lines, read_object, read_steps

COLLECTED = ("results/steps.json", "results/comparisons.json")


@dataclass(frozen=True)
class Curve:
    """The training record of one stage: rows of {"step": int, NAME: float, "split": "val" on validation rows}."""

    contestant: str
    stage: str
    rows: Sequence[Mapping[str, Any]]
    unreadable: int


@dataclass(frozen=True)
class Origin:
    """The run folder that contestants come from.

    contestants: name in the report -> name in the folder. They differ where two runs have a contestant of one name.
    inputs: what was read of the data folder, and doubts about it; None for a run without results.
    """

    name: str
    folder: Path
    contestants: Mapping[str, str]
    config: str | None
    provenance: Mapping[str, Any] | None
    inputs: Inputs | None = None

    @property
    def key(self) -> str:
        """The part of the run's name that distinguishes runs of one day and one content."""
        return self.name.rpartition("_")[2]


@dataclass(frozen=True)
class RunResults:
    """Everything a report shows, of one run or of several that were merged (`merge.py`).

    origins: the run folders, one for a single run. started: ISO time of the first. budget: of each contestant's
    training, as text. reference: sha256 of the reference file used instead of real volumes, if any.
    references: key -> BibTeX entry. missing: files of a finished run that a folder lacks, where their absence would otherwise look
    like a result.
    """

    name: str
    origins: Sequence[Origin]
    contestants: Sequence[str]
    dataset: str
    synthetic: bool
    started: str | None
    steps: Sequence[StepRecord]
    results: ResultsFile | None
    rows: Sequence[CaseRow]
    replicates: Sequence[Replicates]
    comparisons: ComparisonsFile
    calibration: Record | None
    montage: Montage | None
    curves: Sequence[Curve]
    efforts: Sequence[Effort]
    budget: str
    references: Mapping[str, str]
    missing: Sequence[str]
    reference: str = ""

    @property
    def seconds(self) -> float | None:
        """Total of all steps that were timed in this run."""
        timed = [step.seconds for step in self.steps if step.seconds is not None]
        return sum(timed) if timed else None

    @property
    def memory_columns(self) -> Sequence[str]:
        """The fields of `Memory` that any step has: the columns of the table."""
        return [name for name in Memory.model_fields if any(getattr(step.memory, name) for step in self.steps)]

    @property
    def peak_gib(self) -> float | None:
        return max((step.peak_gib for step in self.steps if step.peak_gib is not None), default=None)

    @property
    def unfinished(self) -> Sequence[StepRecord]:
        """The steps that are not done."""
        return [step for step in self.steps if not step.state.startswith("done")]

    @property
    def scores(self) -> Sequence[Score]:
        return self.results.scores if self.results else ()

    @property
    def quantities(self) -> Mapping[str, Quantity]:
        """By name."""
        return {one.name: one for one in self.results.quantities} if self.results else {}

    @property
    def ranked(self) -> Sequence[str]:
        """The contestants that are not controls."""
        controls = self.results.controls if self.results else ()
        return [name for name in self.contestants if name not in controls]

    def picture(self, contestant: str, kind: str, item: str, real: bool = False) -> Path:
        """The mid planes of a volume. real: of a real volume of the run that the contestant is from."""
        origin, owner = self._owner(contestant, real)
        return origin.folder / picture_path(kind, owner, item)

    def volume(self, contestant: str, kind: str, item: str, real: bool = False) -> Path:
        """The volume on a coarse grid, as in `picture`."""
        origin, owner = self._owner(contestant, real)
        return origin.folder / volume_path(kind, owner, item)

    def _owner(self, contestant: str, real: bool) -> tuple[Origin, str]:
        origin = next((one for one in self.origins if contestant in one.contestants), self.origins[0])
        return origin, "real" if real else origin.contestants.get(contestant, contestant)


def read_run(folder: Path) -> RunResults:
    """Everything of a run that reports show. Raises `UserError` naming a file that cannot be read."""
    if not folder.is_dir():
        raise UserError(f"{folder}: not a run folder; `medlord-bench run` makes one and prints where it is")
    plan, steps = read_object(folder / "plan.json") or {}, read_steps(folder)
    results, rows = read_results(folder / "results") if (folder / "results" / "scores.json").exists() else (None, [])
    provenance = read_object(folder / "provenance.json")
    dataset = plan.get("dataset") or {}
    facts = [dataset, plan.get("protocol") or {}, *(results.protocols.values() if results else ())]
    config, name = folder / "run.yaml", folder.resolve().name
    contestants = _contestants(plan, results)
    origin = Origin(
        name=name,
        folder=folder,
        contestants={one: one for one in contestants},
        config=config.read_text(errors="replace") if config.exists() else None,
        provenance=provenance,
        inputs=inputs.read(folder / "results"),
    )
    return RunResults(
        name=name,
        origins=[origin],
        contestants=contestants,
        dataset=_dataset_name(plan, results),
        synthetic=any(value is True for fact in facts for value in _values(fact, "synthetic")),
        started=(provenance or {}).get("started"),
        steps=steps,
        results=results,
        rows=rows,
        replicates=read_replicates(folder / "results"),
        comparisons=comparisons.read(folder / "results"),
        calibration=_calibration(folder / "results" / FILE),
        montage=read_montage(folder),
        curves=_curves(folder / "results" / "curves", plan, contestants),
        efforts=efforts(plan, {step.name: step.trained for step in steps}),
        budget=budget(plan),
        references=references.read(folder / "results"),
        reference=str(plan.get("reference") or ""),
        missing=_missing(folder, results is not None, steps),
    )


def _missing(folder: Path, has_results: bool, steps: Sequence[StepRecord]) -> list[str]:
    """Files that a finished run has, and this folder lacks."""
    if has_results:
        return [one for one in COLLECTED if not (folder / one).exists()]
    done = bool(steps) and all(step.state.startswith("done") for step in steps)
    return ["results/scores.json"] if done else []


def _calibration(path: Path) -> Record | None:
    return read_json(Record, path) if path.exists() else None


def _contestants(plan: Mapping[str, Any], results: ResultsFile | None) -> list[str]:
    named = [name_of(entry) for entry in plan.get("contestants") or []]
    return named or list(dict.fromkeys(score.generator for score in (results.scores if results else ())))


def _dataset_name(plan: Mapping[str, Any], results: ResultsFile | None) -> str:
    """As in the protocol: a reference file describes a data set of another name."""
    if found := name_of(plan.get("protocol") or {}) or name_of(plan.get("dataset") or {}):
        return found
    return ", ".join(dict.fromkeys(score.dataset for score in results.scores)) if results else ""


def _values(value: Any, key: str) -> Iterator[Any]:
    """Every value under `key` at any depth."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if name == key:
                yield inner
            yield from _values(inner, key)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _values(inner, key)


def _curves(folder: Path, plan: Mapping[str, Any], contestants: Sequence[str]) -> list[Curve]:
    """The training records, each contestant's stages in the order of the plan's steps."""
    steps = [str(step.get("id", "")) for step in plan.get("steps") or []]
    names = {curve_folder(name): name for name in contestants}

    def order(path: Path) -> tuple[str, int, str]:
        place = next((i for i, step in enumerate(steps) if step.endswith(f":{path.stem}")), len(steps))
        return path.parent.name, place, path.stem

    if not folder.is_dir():
        return []
    found = []
    for path in sorted(folder.glob("*/*.jsonl"), key=order):
        rows, unreadable = read_lines(path)
        found.append(Curve(names.get(path.parent.name, path.parent.name), path.stem, rows, unreadable))
    return found


def curve_folder(contestant: str) -> str:
    """The name of a contestant's folder below `results/curves/`."""
    return contestant.replace(":", "_")
