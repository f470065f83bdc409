"""The files of a pack besides its raw cases: one writer for each format that a protocol names, and the forms.

Every file is written from nothing: a header has the study's grid and the case's code, and no field of a source's file. Files
are not compressed, since the size of a compressed file depends on noise and sharpness and so says which model made it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medlord_bench.contracts import Volume
from medlord_bench.util.files import publish, publish_folder
from medlord_bench.volumes.io import write_volume

from .dicom import require_pydicom, write_series
from .draw import Secret
from .forms import write_forms
from .grand_challenge import write_study
from .pack import PRACTICE, Pack, case_file
from .pictures import write_stacks
from .reader_files import MOST_VOXELS, write_reader
from .rebuild import StudyGrid, affine_of

SIZES: Mapping[str, float] = {"nifti": 1, "mha": 1, "dicom": 1, "png": 1.5}  # of the raw cases' size
SCRIPT_SHARE = 1.4  # of a raw case: base64 in a script


@dataclass(frozen=True)
class Case:
    """One raw case of a pack. pack, secret: for what depends on the reader."""

    code: str
    practice: bool
    raw: Path
    pack: Pack
    secret: Secret

    def hu(self) -> NDArray[np.int16]:
        """(X, Y, Z), axes towards R, A, S."""
        return np.fromfile(self.raw, dtype="<i2").reshape(self.pack.grid.shape)


def scripts_share(grid: StudyGrid) -> float:
    """Of the raw cases' size: the scripts that the browser reader loads from a file, of a small grid."""
    return SCRIPT_SHARE if math.prod(grid.shape) <= MOST_VOXELS else 0.0


def require(formats: Sequence[str]) -> None:
    """Raise `MissingError` for a format whose package is not installed, before any work."""
    if "dicom" in formats:
        require_pydicom()


def finish(
    folder: Path, pack: Pack, formats: Sequence[str], secret: Secret, advance: Callable[[], object] = lambda: None
) -> None:
    """Add the files of the formats and the forms to a pack that has its raw cases.

    The raw cases stay if `browser` is a format. advance: called for each case and format. Raises `MissingError` for DICOM
    without pydicom.
    """
    for name in formats:
        if name in WRITERS:
            for case in _cases(folder, pack, secret):
                place = folder / name / PRACTICE if case.practice else folder / name
                WRITERS[name](place, case)
                advance()
    if "mha" in formats:
        write_study(folder / "mha", pack)
    write_forms(folder, pack)
    if "browser" in formats:
        write_reader(folder, pack)
    else:
        for case in _cases(folder, pack, secret):
            case.raw.unlink(missing_ok=True)
        for empty in (folder / PRACTICE, folder / "cases"):
            if empty.is_dir() and not any(empty.iterdir()):
                empty.rmdir()


def _cases(folder: Path, pack: Pack, secret: Secret) -> Iterator[Case]:
    """Each case once, in order of the codes."""
    for items, practice in ((pack.items, False), (pack.practice, True)):
        for code in sorted({code for item in items for code in item}):
            yield Case(code, practice, case_file(folder, code, practice), pack, secret)


def _nifti(place: Path, case: Case) -> None:
    path = place / f"{case.code}.nii"
    if not path.exists():
        write_volume(path, Volume(case.hu(), affine_of(case.pack.grid)))


def _mha(place: Path, case: Case) -> None:
    """MetaImage in the patient's axes L, P, S, as ITK has them."""
    import SimpleITK as sitk

    path = place / f"{case.code}.mha"
    if path.exists():
        return
    (x, y, _), shape = case.pack.grid.spacing, case.pack.grid.shape
    image = sitk.GetImageFromArray(np.ascontiguousarray(case.hu()[::-1, ::-1].T))
    image.SetSpacing(case.pack.grid.spacing)
    image.SetOrigin((-x * (shape[0] - 1), -y * (shape[1] - 1), 0.0))
    publish(path, lambda temporary: sitk.WriteImage(image, str(temporary), False))


def _dicom(place: Path, case: Case) -> None:
    path = place / case.code
    if not path.is_dir():

        def uid(*parts: str | int) -> str:
            return _uid(case.secret, case.pack.reader, case.code, *parts)

        publish_folder(path, lambda temporary: write_series(temporary, case.hu(), case.pack.grid, case.code, uid))


def _uid(secret: Secret, *parts: str | int) -> str:
    """2.25 and a random number of 38 digits: the same length for all, so that files have the same size."""
    return f"2.25.{10**37 + secret.number('uid', *parts) % (9 * 10**37)}"


def _png(place: Path, case: Case) -> None:
    path = place / case.code
    if not path.is_dir():
        publish_folder(path, lambda temporary: write_stacks(temporary, case.hu(), case.pack.grid))


WRITERS: Mapping[str, Callable[[Path, Case], None]] = {"nifti": _nifti, "mha": _mha, "dicom": _dicom, "png": _png}
