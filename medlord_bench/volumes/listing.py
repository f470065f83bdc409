"""Every file below a folder, listed once: images, DICOM series, and what is neither, with the reason.

Nothing is read but the first bytes of files that may be DICOM, and the headers of those that are.
"""

from __future__ import annotations

import fnmatch
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medlord_bench.errors import MissingError, UserError
from medlord_bench.util.paths import shown
from medlord_bench.volumes.dicom.series import Series, series_of
from medlord_bench.volumes.formats import SUFFIXES, stem_of, suffix_of
from medlord_bench.volumes.headers import has_one_slice
from medlord_bench.volumes.pointers import is_special, pointer_of

SHOWN = 3  # series that cannot be read, in one message
SYSTEM = ("thumbs.db", "desktop.ini", "__macosx")
DATA_OF_HEADERS = (".raw", ".zraw", ".raw.gz")  # named by an .mhd or .nhdr, which is the image
# Files that may hold an image, in a format that is not read; a line names them, since somebody may expect them.
NOT_READ = (
    ".npy", ".npz", ".img", ".hdr", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".zip", ".tar", ".tgz", ".7z", ".rar", ".gz",
    ".h5", ".hdf5", ".mat", ".pt", ".pkl", ".mgz", ".mnc", ".vtk", ".vti", ".raw", ".zraw",
)  # fmt: skip
DICOM = (".dcm", ".dicom", ".ima")
NOT_DICOM = (".csv", ".tsv", ".txt", ".json", ".md", ".xml", ".xlsx", ".pdf", ".yaml", ".yml", ".html")


@dataclass(frozen=True)
class Image:
    """An image that was found. path: its file; a folder with one DICOM series; or a file of a series, of several in one
    folder. parts: its place below the root, the last without suffix. series: of DICOM. partial: whether files of its
    folder were excluded, so that the folder does not say which files make the image.
    """

    path: Path
    parts: tuple[str, ...]
    series: Series | None = None
    partial: bool = False

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of a DICOM series that is not all CT of its folder; else none."""
        return tuple(self.series.files) if self.series and (self.partial or self.path.is_file()) else ()

    @property
    def folder(self) -> tuple[str, ...]:
        """The folder that holds the image; of a DICOM folder, itself."""
        return self.parts if self.series is not None and self.path.is_dir() else self.parts[:-1]

    @property
    def stem(self) -> str:
        return self.parts[-1]


@dataclass
class Listing:
    """images: in the order of their paths. left_out: reason -> places below the root. problems: series that cannot be
    read, one line each. files: how many files were seen. directory: whether the root has a DICOMDIR."""

    root: Path
    images: list[Image] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    files: int = 0
    other: Counter[str] = field(default_factory=Counter)
    folders: list[str] = field(default_factory=list)
    directory: bool = False
    unmatched: tuple[str, ...] = ()

    def leave(self, reason: str, place: str) -> None:
        self.left_out.setdefault(reason, []).append(place)


def check_readable(listing: Listing) -> None:
    """Raise `UserError` naming the series that cannot be read, the first three in full."""
    if listing.problems:
        more = len(listing.problems) - SHOWN
        raise UserError("; ".join(listing.problems[:SHOWN]) + (f"; and {more} more series" if more > 0 else ""))


def matches(relative: Path | str, globs: Iterable[str]) -> bool:
    """Whether a path below the root, or a folder above it, matches one of the globs."""
    text = relative if isinstance(relative, str) else shown(relative)
    return any(fnmatch.fnmatch(text, glob) or fnmatch.fnmatch(text, glob.rstrip("/") + "/*") for glob in globs)


def listed(
    root: Path,
    exclude: Sequence[str] = (),
    include: Sequence[str] = (),
    suffixes: Sequence[str] = SUFFIXES,
    flat: bool = False,
    named: bool = False,
) -> Listing:
    """Every file below `root`; loops of links are visited once.

    exclude: globs of paths to leave out. include: globs of paths, of which one must match; empty for all. suffixes: of image
    files. flat: whether files of one slice are listed as images too. named: whether the caller names the images that it reads,
    so that files whose content was not fetched are no error.
    Raises `UserError` naming a file or folder that may not be opened, `MissingError` naming links and pointers whose
    content was not fetched.
    """
    listing, used = Listing(root), set()
    unfetched: list[str] = []
    for folder, files in _folders(root, listing, exclude):
        images, rest, hidden = [], [], 0
        for name in files:
            path = folder / name
            place = shown(path, root)
            listing.files += 1
            hits = [glob for glob in exclude if matches(place, [glob])]
            used.update(hits)
            if hits or (include and not matches(place, include)):
                listing.leave("excluded", place)
            elif is_special(path):
                listing.leave("special", place)
            elif _is_system(name):
                listing.leave("system", place)
                hidden += 1
            elif suffix_of(path) in suffixes or path.suffix.lower() in suffixes:
                images.append(path)
            else:
                rest.append(path)
        absent = dict.fromkeys(path for path in (*images, *rest) if _is_pointer(path))
        for path in absent if named else ():
            listing.leave("not fetched", shown(path, root))
        unfetched += [] if named else [shown(path, root) for path in absent]
        images, rest = ([path for path in paths if path not in absent] for paths in (images, rest))
        if not unfetched:
            _add_files(listing, images, flat)
            _add_rest(listing, folder, rest, images, partial=len(images) + len(rest) + hidden < len(files))
    if unfetched:
        more = f" and {len(unfetched) - 1} more" if len(unfetched) > 1 else ""
        raise MissingError(
            f"{shown(root / unfetched[0])}{more}: a link or pointer whose content was not fetched; expected the file itself: "
            "fetch it (datalad get, git annex get, git lfs pull), or exclude it with dataset.exclude"
        )
    _check_spread(listing)
    listing.unmatched = tuple(glob for glob in exclude if glob not in used)
    return listing


def _folders(root: Path, listing: Listing, exclude: Sequence[str]) -> Iterator[tuple[Path, list[str]]]:
    seen: set[Path] = set()

    def refuse(error: OSError) -> None:
        path = Path(error.filename or root)
        if not matches(shown(path, root) + "/any", exclude):
            raise _denied(path, error)

    for here, folders, files in os.walk(root, followlinks=True, onerror=refuse):
        folder = Path(here)
        if folder.resolve() in seen:
            listing.leave("link", shown(folder, root))
            folders.clear()
            continue
        seen.add(folder.resolve())
        hidden = [name for name in folders if _is_system(name)]
        for name in hidden:
            listing.leave("system", shown(folder / name, root))
        folders[:] = sorted(set(folders) - set(hidden))
        if folder != root:
            listing.folders.append(shown(folder, root))
        yield folder, sorted(files)


def _is_system(name: str) -> bool:
    return name.startswith(".") or name.lower() in SYSTEM


def _denied(path: Path, error: OSError) -> UserError:
    why = (error.strerror or str(error)).lower()
    return UserError(
        f"{shown(path)}: {why}; expected a file or folder that can be read: give the right to read it, or exclude it"
    )


def _is_pointer(path: Path) -> bool:
    try:
        return pointer_of(path)
    except OSError as error:
        raise _denied(path, error) from None


def _add_files(listing: Listing, images: Iterable[Path], flat: bool) -> None:
    for path in images:
        if not os.access(path, os.R_OK):
            raise _denied(path, PermissionError(13, "Permission denied"))
        if not flat and has_one_slice(path):
            listing.leave("one slice", shown(path, listing.root))
            continue
        parent = [shown(Path(part)) for part in path.relative_to(listing.root).parts[:-1]]
        listing.images.append(Image(path, (*parent, shown(Path(stem_of(path) if suffix_of(path) else path.stem)))))


def _add_rest(listing: Listing, folder: Path, rest: Sequence[Path], images: Sequence[Path], partial: bool) -> None:
    """DICOM series, and what is no image."""
    headers_here = any(suffix_of(path) in (".mhd", ".nhdr") for path in images)
    maybe = [path for path in rest if path.suffix.lower() not in (*NOT_DICOM, *DATA_OF_HEADERS)]
    try:
        every = series_of(folder, maybe)
    except OSError as error:
        raise _denied(Path(error.filename or folder), error) from None
    known = {path for series in every for path in (*series.files, *series.copies)}
    for path in rest:
        if path in known or (headers_here and path.suffix.lower() in DATA_OF_HEADERS):
            continue
        if path.name.upper() == "DICOMDIR":
            listing.directory |= folder == listing.root
            listing.other["DICOMDIR"] += 1
        elif path.suffix.lower() in DICOM and every:
            listing.problems.append(
                f"{shown(path)}: its name is that of DICOM, its content ({path.stat().st_size} bytes) is not; expected a slice of "
                "the series beside it: copy it again, or exclude it"
            )
        elif path.suffix.lower() in NOT_READ:
            listing.leave("not read", shown(path, listing.root))
        else:
            listing.other[path.suffix.lower() or path.name] += 1
    _add_series(listing, folder, every, partial)


def _add_series(listing: Listing, folder: Path, every: Sequence[Series], partial: bool) -> None:
    root = listing.root
    volumes = [series for series in every if series.kind == "ct"]
    for series in every:
        place = shown(folder, root) if len(every) == 1 else shown(series.files[0], root)
        if series.kind != "ct":
            listing.leave(series.what if series.kind == "not CT" else series.kind, place)
        for copy in series.copies:
            listing.leave("copy", shown(copy, root))
        if series.problem:
            listing.problems.append(series.problem)
    own = tuple(shown(Path(part)) for part in folder.relative_to(root).parts)
    for series in volumes:
        if series.problem:
            continue
        if len(volumes) == 1:
            listing.images.append(Image(folder, own or (shown(Path(root.name)),), series, partial))
        else:
            listing.images.append(Image(series.files[0], (*own, _series_name(series, volumes)), series, partial))


def _series_name(series: Series, every: Sequence[Series]) -> str:
    """`series3` by its SeriesNumber if that tells it from the others of the folder, else the end of its UID."""
    numbers = [one.headers[0].number for one in every]
    number = series.headers[0].number
    if number and numbers.count(number) == 1:
        return f"series{number}"
    return f"series{series.headers[0].series.rpartition('.')[2]}"


def _check_spread(listing: Listing) -> None:
    """Slices of one series in two folders would be two images with gaps."""
    first: dict[str, Series] = {}
    for image in listing.images:
        if image.series is None or not image.series.headers[0].series:
            continue
        other = first.setdefault(image.series.headers[0].series, image.series)
        apart = {header.instance for header in other.headers}.isdisjoint(h.instance for h in image.series.headers)
        if other is not image.series and apart:
            listing.problems.append(
                f"{shown(image.series.folder)}: has slices of the series that {shown(other.folder)} has too; expected a series "
                "in one folder: move its files together, or exclude one folder"
            )
