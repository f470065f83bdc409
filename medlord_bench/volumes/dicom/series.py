"""The DICOM series of a folder: which are CT that can be read as a volume, and why the others are not."""

from __future__ import annotations

import filecmp
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medlord_bench.errors import MissingError, UserError
from medlord_bench.util.paths import shown
from medlord_bench.volumes.dicom.geometry import GeometryError, Slice, ordered
from medlord_bench.volumes.dicom.headers import Header, read_header
from medlord_bench.volumes.stored import check_memory

Kind = Literal["ct", "localizer", "one slice", "not CT"]
FEW = 3  # slices of another orientation that count as localizers of the series
SECONDARY = "1.2.840.10008.5.1.4.1.1.7"  # Secondary Capture: dose reports, screen shots


@dataclass(frozen=True)
class Series:
    """The files of one series in one folder.

    kind: "ct" if it is a volume. what: its modality. copies: files that are equal to others of the series, and not read.
    problem: why it cannot be read, as one line that begins with the file or folder; empty if nothing is wrong.
    """

    folder: Path
    kind: Kind
    headers: tuple[Header, ...]
    what: str = "CT"
    copies: tuple[Path, ...] = ()
    problem: str = ""

    @property
    def files(self) -> list[Path]:
        return [header.path for header in self.headers]

    @property
    def patient(self) -> str:
        return self.headers[0].patient

    @property
    def slices(self) -> list[Slice]:
        return [Slice(h.path, index, frame) for h in self.headers for index, frame in enumerate(h.frames)]


def series_of(folder: Path, paths: Iterable[Path] | None = None) -> list[Series]:
    """Every series in a folder, without its sub-folders. paths: its files; unset: all but hidden ones.

    Raises `OSError` if a file cannot be opened.
    """
    if paths is None:
        paths = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    by_series: dict[str, list[Header]] = {}
    for path in paths:
        header = read_header(path)
        if header is not None:
            by_series.setdefault(header.series, []).append(header)
    damaged = [header for header in by_series.get("", []) if header.problem and not header.series]
    if damaged and len(by_series) > 1:  # a file whose header ends before its series: of which one, nobody knows
        by_series[""] = [header for header in by_series[""] if header not in damaged]
        first = next(uid for uid in by_series if uid)
        by_series[first] += damaged
    return [one for headers in by_series.values() if headers for one in _split(folder, headers)]


def _split(folder: Path, headers: Sequence[Header]) -> list[Series]:
    """One series UID to series of one kind each: CT, localizers, other modalities."""
    found: list[Series] = []
    other = [h for h in headers if h.modality not in ("", "CT") or not (h.problem or h.is_ct)]
    for what in sorted({_what(header) for header in other}):
        found.append(Series(folder, "not CT", tuple(h for h in other if _what(h) == what), what))
    rest = [header for header in headers if header not in other]
    scouts = [header for header in rest if header.is_localizer and not header.problem]
    rest = [header for header in rest if header not in scouts]
    scouts += (odd := _other_orientation(rest))
    rest = [header for header in rest if header not in odd]
    if scouts:
        found.append(Series(folder, "localizer", tuple(scouts)))
    if rest:
        found.append(_ct(folder, rest))
    return found


def _what(header: Header) -> str:
    if header.modality and header.modality != "CT":
        return header.modality
    return "secondary capture" if header.sop_class == SECONDARY else f"class {header.sop_class}"


def _other_orientation(headers: Sequence[Header]) -> list[Header]:
    """Up to three slices of another orientation than that of most: localizers that no ImageType marks."""
    groups: dict[tuple[float, ...], list[Header]] = {}
    for header in headers:
        if header.frames and header.frames[0].orientation is not None:
            groups.setdefault(tuple(np.round(header.frames[0].orientation, 1)), []).append(header)
    largest = max(groups.values(), key=len, default=[])
    return [h for group in groups.values() if group is not largest and len(group) <= FEW < len(largest) for h in group]


def _ct(folder: Path, headers: Sequence[Header]) -> Series:
    bad = next((header for header in headers if header.problem), None)
    if bad is not None:
        problem = f"{shown(bad.path)}: {bad.problem}; expected a whole file: copy it again, or exclude its series"
        return Series(folder, "ct", tuple(headers), problem=problem)
    try:
        headers, copies = _once(headers)
        series = Series(folder, "ct", tuple(headers), copies=tuple(copies))
        if len(series.slices) == 1:
            return Series(folder, "one slice", tuple(headers))
        _check_sizes(headers)
        _check_rescaled(headers)
        ordered(series.slices)
    except GeometryError as error:
        problem = f"{shown(folder)}: {error}; or exclude the series"
        return Series(folder, "ct", tuple(headers), problem=problem)
    return series


def _once(headers: Sequence[Header]) -> tuple[list[Header], list[Path]]:
    """Files of one SOPInstanceUID and equal content count once. Raises `GeometryError` naming two that differ."""
    kept: dict[str, Header] = {}
    copies = []
    for header in headers:
        first = kept.setdefault(header.instance or str(header.path), header)
        if first is header:
            continue
        if not filecmp.cmp(first.path, header.path, shallow=False):
            raise GeometryError(
                f"{first.path.name} and {header.path.name} have one SOPInstanceUID and different content; "
                "expected one file of each image: remove the wrong one"
            )
        copies.append(max(first.path, header.path, key=lambda path: (len(path.name), path.name)))
        kept[header.instance] = first if copies[-1] == header.path else header
    return sorted(kept.values(), key=lambda header: header.path.name), copies


def _check_sizes(headers: Sequence[Header]) -> None:
    sizes = [header.size for header in headers]
    usual = max(set(sizes), key=sizes.count)
    odd = next((header for header in headers if header.size != usual), None)
    if odd is not None:
        raise GeometryError(
            f"{odd.path.name} has {odd.size[1]}x{odd.size[0]} pixels, the others {usual[1]}x{usual[0]}; "
            "expected slices of one size"
        )


def _check_rescaled(headers: Sequence[Header]) -> None:
    """An intercept that some files lack would shift their slices by 1024 HU."""
    without = [header for header in headers if not header.rescaled]
    if without and len(without) < len(headers):
        more = f" and {len(without) - 1} more" if len(without) > 1 else ""
        raise GeometryError(
            f"RescaleIntercept is missing in {without[0].path.name}{more}, the others have it; expected it in every slice"
        )


def one_series(path: Path, files: Sequence[Path] = ()) -> Series:
    """The CT series of a folder, or the one that a file belongs to, in its folder. files: only these.

    Raises `MissingError` or `UserError` if there is none, if a folder has several, or if it cannot be read.
    """
    if not path.exists():
        raise MissingError(f"{path}: not found; expected a DICOM file or a folder with a DICOM series")
    folder = path if path.is_dir() else path.parent
    every = series_of(folder, files or None)
    taken = [one for one in every if one.kind == "ct"]
    if path.is_file():
        taken = [one for one in every if path in one.files] or taken
    if len(taken) != 1 or taken[0].kind != "ct":
        raise UserError(f"{shown(path)}: {_instead(every, taken)}")
    if taken[0].problem:
        raise UserError(taken[0].problem)
    return taken[0]


def _instead(every: Sequence[Series], taken: Sequence[Series]) -> str:
    """What is there instead of one CT series."""
    if len(taken) > 1:
        return f"{len(taken)} DICOM series of CT; expected exactly one per folder: give a file of one of them"
    other = next((one for one in every if one.kind != "ct"), None)
    if other is None:
        return "no DICOM series; expected exactly one per folder: give the folder of one series"
    if other.kind == "not CT":
        return f"DICOM Modality is {other.what!r}; expected 'CT': exclude the folder"
    return (
        f"only a {other.kind.replace('one slice', 'series of one slice')} of CT; expected a volume: exclude the folder"
    )


def header_of(path: Path, files: Sequence[Path] = ()) -> tuple[tuple[int, int, int], NDArray[np.float64]]:
    """The shape (column, row, slice) of a series and its affine, from its headers alone. Raises as `one_series`."""
    series = one_series(path, files)
    rows, columns = series.headers[0].size
    return (columns, rows, len(series.slices)), ordered(series.slices)[1]


def read_series(path: Path, files: Sequence[Path] = ()) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """HU int16 (column, row, slice), and the affine to mm in R, A, S; a gantry tilt is a shear in it.

    path: a folder with one CT series, or a file of one. files: the files of the series, if not all of the folder. Raises as `one_series`, and `UserError` naming a file whose
    pixel data cannot be read.
    """
    from medlord_bench.volumes.dicom.pixels import hu_of

    series = one_series(path, files)
    placed, affine = ordered(series.slices)
    of_file: dict[Path, list[int]] = {}
    for one in placed:
        of_file.setdefault(one.path, []).append(one.index)
    where = {(one.path, one.index): number for number, one in enumerate(placed)}
    rows, columns = series.headers[0].size
    check_memory(path, (columns, rows, len(placed)), 2)
    out = np.empty((columns, rows, len(placed)), np.int16)
    for file, frames in of_file.items():
        for index, hu in zip(frames, hu_of(file, frames), strict=True):
            out[:, :, where[file, index]] = hu.T
    return out, affine
