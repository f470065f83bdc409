"""The leak check: whether a pack says anything about the source of its cases but the picture itself.

Four parts: names in any file, header fields that differ between cases, sizes and dates and their order, and quantities that
tell the source. The first three need no key. A pack that others made is checked as far as its files can be read.
"""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medlord_bench.errors import ExitCode, MissingError, UserError
from medlord_bench.util.files import write_text
from medlord_bench.util.progress import make_progress
from medlord_bench.util.text_tables import read_table

from .forms import form, readme
from .key import Entry, Key, is_key, read_key
from .leak_audit import (
    Quantities,
    audit,
    leaks_of,
    padding_notes,
    quantities_of,
    read_values,
    repeat_leaks,
    too_few,
)
from .leak_files import Leak, compressed_sizes, equal_files, files_of
from .leak_headers import cases_of, differing, zip_leaks
from .leak_words import Words, study_words
from .pack import MANIFEST, MTIME, Pack, damaged, read_pack
from .protocol import StudyProtocol, check_waived, read_protocol
from .reader_files import page_files
from .study import NOTES, PACKS, PROTOCOL, Study

LARGEST_MANIFEST = 2**28  # bytes
SHOWN = 20
COPIED = (
    "no file has the date of the export, 2000-01-01, so dates are not compared: the pack was copied without its dates; copy it "
    "with them (cp -a, zip)"
)


@dataclass(frozen=True)
class Checked:
    """leaks: what must be removed. notes: what could not be checked, and why."""

    leaks: tuple[Leak, ...]
    notes: tuple[str, ...]
    files: int
    cases: int


def check_study(study: Study, key: Key) -> tuple[str, ...]:
    """Notes on the packs of a study, which are not published yet; `sealed/leak_check.txt` keeps them.

    Raises `UserError` naming each leak; the packs are removed then.
    """
    partial = study.root / ".partial"
    protocol = read_protocol(study.protocol)
    leaks, notes = [], dict[str, str]()
    for folder in sorted(path for path in partial.iterdir() if path.is_dir()):
        found = check_pack(folder, key, protocol=protocol, waived=protocol.waived)
        leaks += [f"{folder.name}/{leak}" for leak in found.leaks]
        for note in found.notes:
            notes[note] = f"{notes[note]}, {folder.name}" if note in notes else folder.name
    if leaks:
        shutil.rmtree(partial)
        raise UserError(
            "\n".join([*shortened(leaks), "no pack is written: remove the leaks, or name a quantity in `waived`"]),
            ExitCode.FAILED,
        )
    texts = tuple(f"{folders}: {note}" for note, folders in notes.items())
    write_text(study.sealed / NOTES, "".join(f"{text}\n" for text in texts))
    return texts


def check_pack(
    folder: Path,
    key: Key | Mapping[str, str] | None = None,
    protocol: StudyProtocol | None = None,
    waived: Sequence[str] = (),
) -> Checked:
    """Check a pack, or any folder of images. key: of the study, or code -> source of a pack that others made.

    Without a key, names of sources and the audit are left out, and a note says so. Raises `UserError` if there is nothing to
    check.
    """
    if not folder.is_dir():
        raise MissingError(f"{folder}: not a folder; expected a pack")
    check_waived(waived)
    files, leaks = files_of(folder)
    pack = _manifest(folder)
    if pack is not None and isinstance(key, Key) and key.commitment() != pack.commitment:
        raise UserError(f"{folder}: the key is of another study; give the key of the study that the pack is of")
    if pack is None and (folder / PACKS).is_dir() and (folder / PROTOCOL).exists():
        raise UserError(f"{folder}: is a study; give a pack of it, {folder / PACKS}/READER")
    labels, others, repeats = _labels(key, pack)
    leaks += _shown_twice(pack)
    for path in files:
        name = path.relative_to(folder).as_posix()
        leaks += [Leak(name, "a key")] if is_key(path) else []
        leaks += [Leak(name, "a hidden file")] if any(part.startswith(".") for part in name.split("/")) else []
    sources = () if isinstance(key, Key) or key is None else key.values()
    words = Words(study_words(key if isinstance(key, Key) else None, protocol, sources), _own_text(pack))
    with make_progress().task("leak check, files", len(files)) as task:
        for path in files:
            name = path.relative_to(folder).as_posix()
            leaks += [*words.in_name(name), *words.in_file(path, name), *zip_leaks(path, name)]
            task.advance()
    codes = [*pack.codes, *(code for item in pack.practice for code in item)] if pack else [*labels, *others]
    cases = cases_of(folder, files, list(dict.fromkeys(codes)))
    if not cases and not files:
        raise UserError(f"{folder}: has no files; expected a pack")
    trials = {code for item in pack.practice for code in item} if pack else set()
    copied = pack is not None and all(int(path.stat().st_mtime) != MTIME for path in files)
    for chosen in (trials, set(cases) - trials):
        leaks += differing(folder, {code: paths for code, paths in cases.items() if code in chosen}, dates=not copied)
    leaks += equal_files(folder, cases, pack.files if pack else {})
    leaks += [Leak(*line.split(": ", 1)) for line in damaged(folder, pack)] if pack else []
    quantities, notes = _quantities(folder, cases, pack, {*labels, *repeats})
    leaks += repeat_leaks(quantities, dict.fromkeys(labels, False) | dict.fromkeys(repeats, True), waived)
    quantities = {code: own for code, own in quantities.items() if code in labels}
    notes += [COPIED] * copied + compressed_sizes(cases)
    findings = audit(quantities, labels, waived)
    leaks += leaks_of(findings)
    notes += _notes(key, labels, quantities, cases, waived)
    notes += padding_notes(quantities, labels, findings) + _showings(key, pack)
    if not any("too few" in note for note in notes):
        notes += [f"by chance or not, {one}" for one in findings if one.suspect]
    return Checked(tuple(sorted(set(leaks))), tuple(notes), len(files), len(cases))


def shortened(lines: Sequence[str]) -> list[str]:
    """At most `SHOWN` lines, and how many more there are."""
    more = len(lines) - SHOWN
    return [*lines[:SHOWN], f"and {more} more"] if more > 0 else list(lines)


def read_labels(path: Path, identity: Path | None = None) -> Key | dict[str, str]:
    """A key, or a CSV file with the columns `code` and `source`. Raises `UserError` naming what is wrong."""
    if path.suffix.lower() != ".csv":
        return read_key(path, identity)
    if not path.exists():
        raise MissingError(f"{path}: not found; expected a CSV file with the columns code and source")
    columns, rows = read_table(path)
    found = {row["code"]: row["source"] for _, row in rows} if {"code", "source"} <= set(columns) else {}
    if not found:
        raise UserError(f"{path}: expected a CSV file with the columns code and source, and a line for each code")
    return found


def protocol_of(key: Path | None) -> StudyProtocol | None:
    """The protocol of a key's study, if the folder of the study contains the key."""
    path = key.parent.parent / PROTOCOL if key else None
    return read_protocol(path) if path and path.is_file() else None


def _manifest(folder: Path) -> Pack | None:
    """The manifest of a pack of the bench; none for one that others made."""
    path = folder / MANIFEST
    if path.is_symlink() or not path.is_file():
        return None
    if path.stat().st_size > LARGEST_MANIFEST:
        raise UserError(f"{path}: {path.stat().st_size / 1e6:,.0f} MB; expected a manifest of a few MB")
    return read_pack(folder)


def _labels(key: Key | Mapping[str, str] | None, pack: Pack | None) -> tuple[dict[str, str], list[str], list[str]]:
    """Code -> source of the cases of the study; the other codes; those of them that are hidden repeats.

    Sources are compared by one case of each volume, since tests count cases as independent.
    """
    if not isinstance(key, Key):
        return dict(key or {}), [], []
    entries = [one for one in key.entries if pack is None or one.reader == pack.reader]
    first: dict[tuple[str, str], Entry] = {}
    for one in entries:
        if not one.repeat and not one.practice:
            first.setdefault((one.reader, one.sha256), one)
    labels = {one.code: one.source for one in first.values()}
    return labels, [one.code for one in entries if one.code not in labels], [one.code for one in entries if one.repeat]


def _shown_twice(pack: Pack | None) -> list[Leak]:
    """Codes that come again: where each real volume meets several models, the code that comes again is the real one."""
    counts = Counter(pack.codes if pack else ())
    return [
        Leak(MANIFEST, f"case {code} is shown {times} times; expected a code of its own for each showing: export again")
        for code, times in counts.items()
        if times > 1
    ]


def _showings(key: Key | Mapping[str, str] | None, pack: Pack | None) -> list[str]:
    """A note if volumes of one source are shown more often than those of another, hidden repeats apart."""
    if not isinstance(key, Key):
        return []
    entries = [one for one in key.entries if not one.practice and not one.repeat]
    counts = Counter((one.source, one.sha256) for one in entries if pack is None or one.reader == pack.reader)
    times: dict[str, list[int]] = {}
    for (source, _), number in counts.items():
        times.setdefault(source, []).append(number)
    if len({sum(found) / len(found) for found in times.values()}) < 2:
        return []
    text = ", ".join(f"{source} {sum(found) / len(found):.2g} times" for source, found in sorted(times.items()))
    return [
        f"a volume is shown on average: {text}; a reader who recognises an anatomy can tell the source that comes again: give "
        "that source more volumes, or lower pairs"
    ]


def _own_text(pack: Pack | None) -> str:
    """What the bench itself writes into the texts of a pack: no title, and the words of a rubric."""
    if pack is None:
        return ""
    bare = pack.model_copy(update={"title": ""})
    texts = page_files().values()
    return "\n".join([form(bare), readme(bare), pack.rubric.model_dump_json(), *Pack.model_fields, *texts])


def _quantities(
    folder: Path, cases: Mapping[str, Sequence[Path]], pack: Pack | None, wanted: Collection[str]
) -> tuple[dict[str, Quantities], list[str]]:
    """Quantities of each wanted case, and a note if cases cannot be read."""
    found: dict[str, Quantities] = {}
    failed: list[str] = []
    order = pack.codes if pack else []
    audited = [(place, code) for place, code in enumerate(sorted(cases)) if code in wanted]
    with make_progress().task("leak check, voxels of cases", len(audited)) as task:
        for place, code in audited:
            own = {"size": float(sum(path.stat().st_size for path in cases[code])), "listing": float(place)}
            if code in order:
                own |= {"order": float(order.index(code)), "times_shown": float(order.count(code))}
            own |= _uid(cases[code])
            try:
                own |= quantities_of(*read_values(cases[code], *_grid(pack)))
            except UserError as error:
                failed.append(str(error).replace(f"{folder}/", ""))
            found[code] = own
            task.advance()
    return found, [f"{len(failed)} cases are not in the audit of voxels: {failed[0]}"] if failed else []


def _grid(pack: Pack | None) -> tuple[Sequence[int], Sequence[float]]:
    return (pack.grid.shape, pack.grid.spacing) if pack else ((), ())


def _uid(paths: Sequence[Path]) -> dict[str, float]:
    """The last part of the series' UID, which is random unless series were numbered one after the other."""
    first = next((path for path in paths if path.suffix.lower() == ".dcm"), None)
    if first is None:
        return {}
    from .dicom import require_pydicom

    try:
        uid = str(require_pydicom().dcmread(first, stop_before_pixels=True, defer_size=1024).SeriesInstanceUID)
        value = float(uid.rpartition(".")[2])
    except MissingError:
        raise
    except Exception:  # a damaged file is a leak of the headers
        return {}
    return {"uid": value} if math.isfinite(value) else {}


def _notes(
    key: Key | Mapping[str, str] | None,
    labels: Mapping[str, str],
    quantities: Mapping[str, Quantities],
    cases: Mapping[str, Sequence[Path]],
    waived: Sequence[str],
) -> list[str]:
    if key is None:
        return ["without a key: names of sources and items, and the audit of quantities, are not checked"]
    notes = [f"waived: {', '.join(waived)}"] if waived else []
    lacking = sorted(set(labels) - set(cases))
    if lacking:
        notes.append(f"{len(lacking)} codes of the key have no file, such as {lacking[0]}")
    names = {name for one in quantities.values() for name in one}
    few = too_few({code: labels[code] for code in quantities}, len(names))
    return [*notes, few] if few else notes
