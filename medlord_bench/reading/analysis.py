"""The analysis of an unblinded study: `analysis/` with numbers, tables, figures and a checklist, each from the answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from medlord_bench.contracts import FrozenConfig
from medlord_bench.drawing.files import table, write
from medlord_bench.errors import UserError
from medlord_bench.results.ratings import read_ratings, write_ratings
from medlord_bench.results.run_results import read_run
from medlord_bench.util.files import write_json, write_text

from . import agreement_findings, marks, mrmc, pair_findings, rating_findings
from .checklist import cell, checklist
from .findings import Finding
from .lock import Withdrawn
from .returns import HASTY
from .study import Study
from .unblind import Unblinded, confirmed

TITLES = {
    "called_real": "How often a source was called real",
    "recognised": "How often the real volume of a pair was chosen",
    "calibration": "How often the real volume was chosen, by confidence",
    "strength": "Strengths (Bradley-Terry)",
    "auc": "Telling models from real: AUC",
    "d_prime": "Telling models from real: d'",
    "delta": "Models against real: Cliff's delta",
    "log_odds": "Models against real: cumulative logit",
    "median": "Answers: median and quartiles",
    "kappa_with_oneself": "Agreement of a reader with itself",
    "alpha": "Agreement between readers",
    "left_chosen": "How often the left volume was chosen",
}
READING = {
    "called_real": "Of a model this is the rate at which readers were fooled. It means little without the rate at which real "
    "volumes were called real.",
    "delta": "-1: every volume of the model is rated below every real one; 0: no difference.",
    "calibration": "Readers who know what they see are right more often where they are sure.",
    "recognised": "0.5 is chance: real and synthetic are not told apart.",
}


class Summary(FrozenConfig):
    """`analysis/summary.json`."""

    schema_version: int = 1
    title: str
    commitment: str
    protocol: str
    design: str
    rubric: str
    locked: str
    lock_sha256: str
    partial: bool
    withdrawn: tuple[str, ...] = ()
    waived: tuple[str, ...] = ()
    findings: tuple[Finding, ...]


def findings(joined: Unblinded) -> list[Finding]:
    """All numbers of a study, in the order of the page."""
    if joined.design == "pairs":
        return [
            *pair_findings.recognised(joined),
            *pair_findings.calibration(joined),
            *pair_findings.strengths(joined),
            *pair_findings.sides(joined),
        ]
    return [
        *rating_findings.called_real(joined),
        *rating_findings.detection(joined),
        *rating_findings.against_real(joined),
        *rating_findings.ordinal(joined),
        *rating_findings.medians(joined),
        *agreement_findings.with_oneself(joined),
        *agreement_findings.between_readers(joined),
    ]


def analyse(study: Study, run: Path | None = None) -> Summary:
    """Write the analysis of an unblinded study. run: a run folder that gets `results/ratings.csv`, for its report.

    A study of pairs has no ratings, so the run gets nothing. Raises `UserError` if the study is not unblinded,
    or `unblinded.json` is not what `unblind` wrote for the locked returns.
    """
    joined = confirmed(study)
    if run is not None and joined.design == "ratings":
        _of_this_run(run, joined.models)
    found = findings(joined)
    summary = Summary(
        title=joined.title,
        commitment=joined.commitment,
        protocol=joined.protocol,
        design=joined.design,
        rubric=joined.rubric.name,
        locked=joined.locked.isoformat(),
        lock_sha256=joined.lock_sha256,
        partial=joined.partial,
        withdrawn=tuple(one.reader for one in joined.withdrawn),
        waived=joined.waived,
        findings=tuple(found),
    )
    folder = study.analysis
    write_json(folder / "summary.json", summary.model_dump(mode="json"))
    rows = [list(one.model_dump().values()) for one in found]
    write_text(folder / "findings.csv", table(tuple(Finding.model_fields), rows))
    write_text(folder / "summary.md", page(joined, found))
    write_text(folder / "checklist.md", checklist(joined, found))
    if joined.design == "ratings":
        _write_ratings(joined, folder, run)
    _write_marks(joined, study)
    return summary


def _write_ratings(joined: Unblinded, folder: Path, run: Path | None) -> None:
    counts = rating_findings.counts(joined)
    if run is not None:
        _of_no_other_study(run, {(one.reader, one.source) for one in counts}, joined.withdrawn)
    for place in [folder, *([run / "results"] if run is not None else [])]:
        write_ratings(place, counts)
    write_text(folder / "mrmc.csv", table(mrmc.COLUMNS, mrmc.ratings(joined)))
    write_text(folder / "levels_long.csv", table(mrmc.LEVEL_COLUMNS, mrmc.levels(joined)))
    write_text(folder / "mrmc.R", mrmc.script(joined))


def _of_this_run(run: Path, models: Sequence[str]) -> None:
    """Raise `UserError` if no model of the study is a contestant of the run: its report would draw strangers."""
    contestants = list(read_run(run).contestants)
    if not set(models) & set(contestants):
        raise UserError(
            f"--run {run}: none of the study's sources ({', '.join(models)}) is a contestant of it ({', '.join(contestants)}); "
            "give the run that the study was exported from"
        )


def _of_no_other_study(run: Path, ours: set[tuple[str, str]], withdrawn: Sequence[Withdrawn]) -> None:
    """Raise `UserError` if a run has the ratings of other readers or sources: a report shows one study."""
    gone = {one.reader for one in withdrawn}
    theirs = {(one.reader, one.source) for one in read_ratings(run / "results") if one.reader not in gone}
    if theirs - ours:
        others = ", ".join(f"{reader} of {source}" for reader, source in sorted(theirs - ours)[:3])
        raise UserError(
            f"{run / 'results' / 'ratings.csv'}: has the ratings of another study ({others}); move it away to show this one"
        )


def _write_marks(joined: Unblinded, study: Study) -> None:
    from medlord_bench.drawing.style import style

    write_text(study.analysis / "mark_counts.csv", table(marks.COUNT_COLUMNS, marks.counted(joined)))
    with style():
        drawn = marks.heat_map(joined, study)
        if drawn is not None:
            write(drawn, study.analysis)


def page(joined: Unblinded, found: Sequence[Finding]) -> str:
    """`summary.md`: a table for each quantity."""
    lines = [
        f"# {cell(joined.title) or 'Reader study'}",
        "",
        f"Commitment of the key: `{joined.commitment}`, as printed in every pack. Returns locked "
        f"{joined.locked:%Y-%m-%d %H:%M} UTC{', as partial' if joined.partial else ''}. Rubric {cell(joined.rubric.name)}.",
        *_remarks(joined),
        "",
        f"| reader | items | minutes | median seconds of an item | items under {HASTY:g} s | display check |",
        "|---|---|---|---|---|---|",
    ]
    for one in joined.readers:
        check = "not made" if one.display is None else "passed" if one.display else "not passed"
        times = [_number(one.minutes), _number(one.seconds)]
        hasty = "" if one.seconds is None else str(one.hasty)
        lines.append(f"| {one.reader} | {one.answered} of {one.items} | {times[0]} | {times[1]} | {hasty} | {check} |")
    lines += [f"| {name} | no return | | | | |" for name in joined.absent]
    for quantity in sorted({one.quantity for one in found}, key=list(TITLES).index):
        members = [one for one in found if one.quantity == quantity]
        lines += ["", f"## {TITLES[quantity]}", ""]
        lines += [READING[quantity], ""] if quantity in READING else []
        lines += _rows(members)
    return "\n".join(lines) + "\n"


def _remarks(joined: Unblinded) -> list[str]:
    """What a reader of the page must know of the lock, the readers and the leak check."""
    lines = ["", f"sha256 of `returns/lock.json`: `{joined.lock_sha256}`. If it was published before the key was opened, the "
             "answers are those of that time."]  # fmt: skip
    for one in joined.withdrawn:
        when = "after" if one.unblinded else "before"
        lines += [
            "",
            f"Reader {one.reader} withdrew on {one.date:%Y-%m-%d}, {when} the key was opened; no number has the answers.",
        ]
    if joined.waived:
        lines += ["", f"The leak check left out: {cell(', '.join(joined.waived))} (`waived` of the protocol)."]
    return lines


def _rows(members: Sequence[Finding]) -> list[str]:
    """A table of one quantity without its empty columns. How the numbers were made is below it, by letter."""
    letters = dict(
        zip(dict.fromkeys(one.how for one in members if one.how), "abcdefghijklmnopqrstuvwxyz", strict=False)
    )
    rows = [_cells(one, letters) for one in members]
    shown = [name for name in rows[0] if any(row[name] for row in rows)]
    lines = [f"| {' | '.join(shown)} |", "|" + "---|" * len(shown)]
    lines += [f"| {' | '.join(cell(row[name]) for name in shown)} |" for row in rows]
    return [*lines, *(["", *(f"- {letter}: {cell(how)}" for how, letter in letters.items())] if letters else [])]


def _cells(one: Finding, letters: Mapping[str, str]) -> dict[str, str]:
    return {
        "question": one.question,
        "source": one.source,
        "reader": one.reader,
        "value": _number(one.value),
        "quartiles" if one.quantity == "median" else "interval": ""
        if one.low is None or one.high is None
        else f"{one.low:.3g} to {one.high:.3g}",
        "n": str(one.n),
        "n real": "" if one.n_real is None else str(one.n_real),
        "p": _number(one.p),
        "p (Holm)": _number(one.p_holm),
        "how": letters.get(one.how, one.how),
        "note": one.note,
    }


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
