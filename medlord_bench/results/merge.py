"""Several runs of one protocol as one: all contestants in one report, compared with each other."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from medlord_bench.contracts.results import ResultsFile, Score
from medlord_bench.errors import UserError
from medlord_bench.results.comparisons import compare
from medlord_bench.results.diff import differences
from medlord_bench.results.pictures import Montage, MontageRow
from medlord_bench.results.run_results import RunResults, read_run

Model = TypeVar("Model", bound=BaseModel)


def read_runs(folders: Sequence[Path]) -> RunResults:
    """One or several run folders, as one. Raises `UserError` if their protocols differ (see `merge`)."""
    return merge([read_run(folder) for folder in dict.fromkeys(folder.resolve() for folder in folders)])


def merge(runs: Sequence[RunResults]) -> RunResults:
    """Runs as one, compared anew. A contestant that two runs share with equal scores is taken once; with other scores
    it gets the run's key behind its name.

    Raises `UserError` if a run has no results, or names the first field of the protocols that differs.
    """
    if len(runs) == 1:
        return runs[0]
    for run in runs:
        if run.results is None:
            raise UserError(f"{run.origins[0].folder}: has no results yet; run it to its end, or leave it out")
    for run in runs[1:]:
        _same_protocols(runs[0], run)
    merged: list[RunResults] = []
    for run in runs:
        merged.append(_told_apart(run, merged))
    return _joined(merged)


def _same_protocols(first: RunResults, other: RunResults) -> None:
    """Raise `UserError` if a metric that both measure has another protocol."""
    ours, theirs = ({text["metric"]: text for text in _protocols(run).values()} for run in (first, other))
    for metric in ours:
        difference = next(differences(ours[metric], theirs.get(metric, ours[metric])), None)
        if difference is not None:
            field, a, b = difference
            names = " ".join(f"--generator {shlex.quote(name)}" for name in other.ranked or other.contestants)
            raise UserError(
                f"{other.name}: metric {metric}: protocol field {field} is {b}, but {a} in {first.name}; "
                "numbers of different protocols are not put together. Measure again under the first protocol: "
                f"medlord-bench run {shlex.quote(str(first.origins[0].folder / 'run.yaml'))} {names}"
            )


def _protocols(run: RunResults) -> Mapping[str, Mapping[str, Any]]:
    return run.results.protocols if run.results else {}


def _told_apart(run: RunResults, before: Sequence[RunResults]) -> RunResults:
    """The run without contestants that are in `before` with equal scores, and others of the same name renamed."""
    known = {name: _of(other, name) for other in before for name in other.contestants}
    repeated = [name for name in run.contestants if known.get(name) == _of(run, name)]
    key = run.origins[0].key
    names = {name: f"{name} ({key})" if name in known else name for name in run.contestants if name not in repeated}
    return _renamed(run, names)


def _of(run: RunResults, contestant: str) -> list[Score]:
    return [score for score in run.scores if score.generator == contestant]


def _renamed(run: RunResults, names: Mapping[str, str]) -> RunResults:
    """The run with only these contestants, under their new names."""
    assert run.results is not None
    origin = run.origins[0]
    results = run.results.model_copy(
        update={
            "scores": tuple(_named(score, "generator", names) for score in run.scores if score.generator in names),
            "controls": tuple(names[name] for name in run.results.controls if name in names),
            "seen_in_pretraining": {
                names[name]: seen for name, seen in run.results.seen_in_pretraining.items() if name in names
            },
        }
    )
    montage = run.montage and run.montage.model_copy(
        update={
            "rows": tuple(
                row.model_copy(
                    update={
                        "contestant": names.get(row.contestant, row.contestant),
                        "title": row.title.replace(row.contestant, names.get(row.contestant, row.contestant), 1),
                    }
                )
                for row in run.montage.rows
                if row.contestant in names or row.kind == "images"
            )
        }
    )
    return replace(
        run,
        origins=[
            replace(origin, contestants={names[name]: old for name, old in origin.contestants.items() if name in names})
        ],
        contestants=list(names.values()),
        results=results,
        rows=[_named(row, "generator", names) for row in run.rows if row.generator in names or not row.generator],
        replicates=[_named(one, "generator", names) for one in run.replicates if one.generator in names],
        steps=[
            _named(step, "contestant", names)
            for step in run.steps
            if step.contestant in names or step.contestant not in run.contestants
        ],
        montage=montage,
        curves=[replace(one, contestant=names[one.contestant]) for one in run.curves if one.contestant in names],
        efforts=[replace(one, contestant=names[one.contestant]) for one in run.efforts if one.contestant in names],
    )


def _named(one: Model, field: str, names: Mapping[str, str]) -> Model:
    """The record with its contestant renamed; a name that is not in `names` stays."""
    old = getattr(one, field)
    return one if names.get(old, old) == old else one.model_copy(update={field: names[old]})


def _joined(runs: Sequence[RunResults]) -> RunResults:
    """Runs whose contestants differ in name."""
    results = [run.results for run in runs if run.results is not None]
    scores = tuple(score for one in results for score in one.scores)
    quantities = {quantity.name: quantity for one in results for quantity in one.quantities}
    rows = list(dict.fromkeys(row for run in runs for row in run.rows))
    replicates = [one for run in runs for one in run.replicates]
    montages = [run.montage for run in runs if run.montage is not None]
    return replace(
        runs[0],
        name=" + ".join(run.name for run in runs),
        origins=[origin for run in runs for origin in run.origins],
        contestants=[name for run in runs for name in run.contestants],
        synthetic=any(run.synthetic for run in runs),
        started=min((run.started for run in runs if run.started), default=None),
        steps=[step for run in runs for step in run.steps],
        results=ResultsFile(
            scores=scores,
            protocols={id: text for one in results for id, text in one.protocols.items()},
            controls=tuple(name for one in results for name in one.controls),
            quantities=tuple(quantities.values()),
            references={plugin: keys for one in results for plugin, keys in one.references.items()},
            licences={plugin: text for one in results for plugin, text in one.licences.items()},
            seen_in_pretraining={name: seen for one in results for name, seen in one.seen_in_pretraining.items()},
            patients_unknown=next((one.patients_unknown for one in results if one.patients_unknown), ""),
        ),
        references={key: entry for run in runs for key, entry in run.references.items()},
        rows=rows,
        replicates=replicates,
        comparisons=compare(scores, rows, replicates, quantities),
        calibration=next((run.calibration for run in runs if run.calibration), None),
        montage=montages[0].model_copy(update={"rows": _rows(montages)}) if montages else None,
        curves=[curve for run in runs for curve in run.curves],
        efforts=[effort for run in runs for effort in run.efforts],
        budget=" / ".join(dict.fromkeys(run.budget or "none" for run in runs)) if any(r.budget for r in runs) else "",
        missing=[f"{name} ({run.name})" for run in runs for name in run.missing],
    )


def _rows(montages: Sequence[Montage]) -> tuple[MontageRow, ...]:
    """The rows of all montages; the real volumes once."""
    seen = [(row.title, [item.id for item in row.items]) for row in montages[0].rows if row.kind == "images"]
    more = (row for one in montages[1:] for row in one.rows)
    return (*montages[0].rows, *(row for row in more if (row.title, [item.id for item in row.items]) not in seen))
