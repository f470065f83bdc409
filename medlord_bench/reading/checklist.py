"""What guidelines ask of a reader study, answered from the study where it can be: `analysis/checklist.md`.

GRRAS: Kottner et al. 2011, guidelines for reporting reliability and agreement studies. CLAIM: Tejani et al. 2024, checklist
for artificial intelligence in medical imaging. The items are in our words.
"""

from __future__ import annotations

from collections.abc import Sequence

from .findings import Finding
from .unblind import Unblinded

NOT_GIVEN = "not given"


def checklist(joined: Unblinded, found: Sequence[Finding]) -> str:
    """Markdown: item, what the study answers, or `not given` where the authors must."""
    rows = [*_grras(joined, found), *_claim(joined)]
    lines = [
        "# Reporting checklist",
        "",
        f"Study {joined.title or 'without a title'}. Commitment of the key: `{joined.commitment}`. Where it says "
        f"'{NOT_GIVEN}', the files of the study do not have the answer; give it in the text.",
        "",
        "| guideline | item | of this study |",
        "|---|---|---|",
        *(f"| {guide} | {item} | {cell(answer)} |" for guide, item, answer in rows),
    ]
    return "\n".join(lines) + "\n"


def cell(text: str) -> str:
    """Text that cannot break a Markdown table, nor become HTML."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace("|", "\\|").replace("`", "'")


def _grras(joined: Unblinded, found: Sequence[Finding]) -> list[tuple[str, str, str]]:
    drawn = "; ".join(f"{one.name}: {len(one.drawn)} of {one.available}" for one in joined.sources)
    failed = "; ".join(f"{one.name}: {one.failed}" for one in joined.sources if one.failed)
    told = (
        "the share of real volumes was disclosed" if joined.disclosed else "the share of real volumes was not disclosed"
    )
    repeats = f"{_repeats(joined)} hidden repeats of a volume" if _repeats(joined) else "no hidden repeats"
    size = " x ".join(map(str, joined.grid.shape))
    spacing = " x ".join(f"{one:g}" for one in joined.grid.spacing)
    items = [
        ("1 the title says that agreement was studied", NOT_GIVEN),
        ("2 the instrument", f"rubric {joined.rubric.name} ({joined.rubric.source}); design: {joined.design}"),
        (
            "3 the population of subjects",
            f"sources: {', '.join(one.name for one in joined.sources)}; patients: {NOT_GIVEN}",
        ),
        ("4 the population of readers", NOT_GIVEN),
        ("5 what is known, and why this study", NOT_GIVEN),
        ("6 how the numbers were chosen", f"{_numbers(joined)}; reason: {NOT_GIVEN} (medlord-bench reading plan)"),
        (
            "7 how subjects were sampled",
            f"by an HMAC of a secret of 256 bits from all volumes of a source, before any was seen: {drawn}"
            + (f"; failed samples: {failed}" if failed else ""),
        ),
        (
            "8 the process of rating",
            f"blinded: own codes and order of each reader; one grid ({size} voxels of {spacing} mm, HU "
            f"{joined.grid.window[0]} to {joined.grid.window[1]}); {repeats}; {joined.sessions} session(s); {told}; "
            "no clinical information",
        ),
        (
            "9 independence",
            "each reader had a pack of their own and could not see other answers; whether they talked: "
            + NOT_GIVEN
            + f"; the leak check {'left out ' + ', '.join(joined.waived) if joined.waived else 'left out nothing'}",
        ),
        ("10 statistics", "named beside each number in summary.md; " + _corrections(found)),
        ("11 numbers that were read", _read(joined)),
        ("12 experience of the readers", NOT_GIVEN),
        ("13 agreement with its uncertainty", _agreement(found)),
        ("14 what the result means in practice", NOT_GIVEN),
        (
            "15 detailed results",
            f"{'choices' if joined.design == 'pairs' else 'answers'}.csv and marks.csv; key with the commitment above",
        ),
    ]
    return [("GRRAS", *item) for item in items]


def _claim(joined: Unblinded) -> list[tuple[str, str, str]]:
    displays = [f"{one.reader}: {_display(one.display)}" for one in joined.readers]
    items = [
        ("12 de-identification", f"volumes rebuilt without headers, under random codes; in the pictures: {NOT_GIVEN}"),
        (
            "16 who read, and their qualification",
            f"aliases {', '.join(one.reader for one in joined.readers)}; {NOT_GIVEN}",
        ),
        ("17 the tool", f"medlord-bench reading; display check {'; '.join(displays)}"),
        ("18 variability within and between readers", "as GRRAS 13"),
        ("19 sample size", _numbers(joined)),
    ]
    return [("CLAIM", *item) for item in items]


def _display(passed: bool | None) -> str:
    return "not made" if passed is None else "passed" if passed else "not passed"


def _numbers(joined: Unblinded) -> str:
    drawn = sorted({len(one.drawn) for one in joined.sources})
    each = " to ".join(map(str, [drawn[0], drawn[-1]] if len(drawn) > 1 else drawn))
    return f"{len(joined.sources)} sources, {each} volumes each, {len(joined.readers) + len(joined.absent) + len(joined.withdrawn)} reader(s)"


def _read(joined: Unblinded) -> str:
    parts = [f"{one.reader}: {one.answered} of {one.items} items" for one in joined.readers]
    parts += [f"{name}: no return" for name in joined.absent]
    parts += [f"{one.reader}: withdrew" for one in joined.withdrawn]
    parts += [f"hidden repeats: {_repeats(joined)}"] if joined.design == "ratings" else []
    return "; ".join(parts) + ("; locked as partial" if joined.partial else "")


def _repeats(joined: Unblinded) -> int:
    """Of all readers, answered. Pairs have none."""
    return len({(one.reader, one.source, one.volume) for one in joined.rows if one.repeat})


def _agreement(found: Sequence[Finding]) -> str:
    known = [one for one in found if one.quantity in ("kappa_with_oneself", "alpha")]
    parts = []
    for one in known:
        name = f"{'kappa of ' + one.reader if one.quantity != 'alpha' else 'alpha'} {one.question}".strip()
        if one.value is None:
            parts.append(f"{name}: {one.note}")
        else:
            between = "" if one.low is None or one.high is None else f" ({one.low:.2f} to {one.high:.2f})"
            parts.append(f"{name} {one.value:.2f}{between}, n {one.n}")
    return "; ".join(parts) or NOT_GIVEN


def _corrections(found: Sequence[Finding]) -> str:
    tested = sorted({one.quantity for one in found if one.p_holm is not None})
    return f"p-values corrected by Holm within: {', '.join(tested)}" if tested else "no test was made"
