"""The header of one DICOM file: what decides whether it is a slice of a CT, and where the slice lies. No pixels.

pydicom reads the header. A file without the preamble of 128 bytes is DICOM too if its first element is one of group
0002 or 0008 (part 10 of the standard forbids such files; old archives have them).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from medlord_bench.volumes.dicom.frame import Frame, Vector

TAGS = [
    *("SOPClassUID", "SOPInstanceUID", "ImageType", "Modality", "SeriesInstanceUID", "SeriesNumber", "PatientID"),
    *("NumberOfFrames", "Rows", "Columns", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient"),
    *("RescaleIntercept", "BitsAllocated", "SamplesPerPixel"),
]
DIRECTORY = "1.2.840.10008.1.3.10"  # Media Storage Directory Storage: a DICOMDIR
CT_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.2",  # CT Image Storage
    "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced CT Image Storage
    "1.2.840.10008.5.1.4.1.1.2.2",  # Legacy Converted Enhanced CT Image Storage
)
DEFLATED = "1.2.840.10008.1.2.1.99"
UNDEFINED = 0xFFFFFFFF
PIXEL_TAGS = (0x7FE00008, 0x7FE00009, 0x7FE00010)
PARSERS = (b"\x02\x00", b"\x08\x00", b"\x00\x02", b"\x00\x08")  # first bytes without a preamble, little and big endian


@dataclass(frozen=True)
class Header:
    """What one file says. frames: one for a slice, as many as it has for a multi-frame file.

    rescaled: whether the file, not a functional group, has a RescaleIntercept.
    problem: why the file cannot be read, e.g. "cut short"; empty if nothing is wrong with it.
    """

    path: Path
    sop_class: str = ""
    instance: str = ""
    series: str = ""
    number: str = ""
    modality: str = ""
    image_type: tuple[str, ...] = ()
    patient: str = ""
    size: tuple[int, int] = (0, 0)
    frames: tuple[Frame, ...] = ()
    rescaled: bool = False
    problem: str = ""

    @property
    def is_localizer(self) -> bool:
        return "LOCALIZER" in self.image_type

    @property
    def is_ct(self) -> bool:
        """Whether it is a CT image: by its class, or by its modality where the class is of another kind of image but
        the file has a position (CT converted by other programs)."""
        if (self.modality and self.modality != "CT") or not min(self.size):
            return False
        return not self.sop_class or self.sop_class in CT_CLASSES or any(frame.position for frame in self.frames)


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM does. Raises `OSError` if it cannot be opened."""
    with open(path, "rb") as file:
        start = file.read(132)
    return start[128:] == b"DICM" or (len(start) == 132 and start[:2] in PARSERS and _first_element(start))


def _first_element(start: bytes) -> bool:
    """Whether the bytes are an element of group 2 or 8 with a plausible length: DICOM without its preamble."""
    order = "little" if start[0] else "big"
    group, element = int.from_bytes(start[:2], order), int.from_bytes(start[2:4], order)  # type: ignore[arg-type]
    explicit = start[4:6].isalpha() and start[4:6].isupper()
    length = int.from_bytes(start[6:8] if explicit else start[4:8], order)  # type: ignore[arg-type]
    return group in (2, 8) and element <= 0x1140 and length <= 1024


def read_header(path: Path) -> Header | None:
    """The header of a file; None if it is not DICOM, or the index of a medium (DICOMDIR)."""
    if not is_dicom(path):
        return None
    facts = path.stat()
    return _read(path, facts.st_size, facts.st_mtime_ns)


@lru_cache(maxsize=200_000)
def _read(path: Path, size: int, changed: int) -> Header | None:
    """Cached by size and time of the file: a cohort is listed several times in a run."""
    from pydicom import dcmread

    with warnings.catch_warnings(), open(path, "rb") as file:
        warnings.simplefilter("ignore")  # pydicom warns of values that are not to the letter of the standard
        try:
            dataset = dcmread(file, stop_before_pixels=True, force=True, specific_tags=TAGS)
            if _text(dataset, "SOPClassUID") == DIRECTORY:
                return None
            pixels = _pixels_problem(file, size, dataset)
            if int(dataset.get("NumberOfFrames") or 1) > size:
                raise ValueError(f"NumberOfFrames is {dataset.NumberOfFrames}, in a file of {size} bytes")
            frames = _frames(path, dataset)
            return _header(path, dataset, frames, pixels)
        except Exception as error:  # elements are parsed when they are asked for, and raise errors of many types
            why = " ".join(str(error).split())[:120] or type(error).__name__
            return Header(path, problem=f"cut short or damaged ({why})")


def _header(path: Path, dataset: Any, frames: tuple[Frame, ...], problem: str) -> Header:
    return Header(
        path=path,
        sop_class=_text(dataset, "SOPClassUID"),
        instance=_text(dataset, "SOPInstanceUID"),
        series=_text(dataset, "SeriesInstanceUID"),
        number=_text(dataset, "SeriesNumber"),
        modality=_text(dataset, "Modality").strip(),
        image_type=tuple(str(word).strip().upper() for word in dataset.get("ImageType") or ()),
        patient=_text(dataset, "PatientID").strip(),
        size=(int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)),
        frames=frames,
        rescaled=dataset.get("RescaleIntercept") is not None,
        problem=problem,
    )


def _text(dataset: Any, name: str) -> str:
    value = dataset.get(name)
    if value is None or value == "":
        value = dataset.file_meta.get({"SOPClassUID": "MediaStorageSOPClassUID"}.get(name, name), "")
    return str(value or "")


def _pixels_problem(file: IO[bytes], size: int, dataset: Any) -> str:
    """Why the pixel data are not whole, from their declared length; empty if they are, or if that cannot be told."""
    syntax = str(dataset.file_meta.get("TransferSyntaxUID", ""))
    if syntax == DEFLATED:
        return ""
    if not dataset.get("Rows"):
        classes = {str(dataset.get("SOPClassUID", "")), str(dataset.file_meta.get("MediaStorageSOPClassUID", ""))}
        return "cut short: it has no image" if classes & set(CT_CLASSES) else ""
    little = dataset.original_encoding[1] is not False
    order: Any = "little" if little else "big"
    head = file.read(12)
    group, element = int.from_bytes(head[:2], order), int.from_bytes(head[2:4], order)
    if len(head) < 8 or (group << 16) + element not in PIXEL_TAGS:
        return "cut short: it has no pixel data"
    explicit = head[4:6].isalpha()
    length = int.from_bytes(head[8:12] if explicit else head[4:8], order)
    begin = file.tell() - (0 if explicit else 4)
    if length != UNDEFINED and begin + length > size:
        return f"cut short: {size - begin} of {length} bytes of pixel data are there"
    rows, columns, frames = (int(dataset.get(name) or 1) for name in ("Rows", "Columns", "NumberOfFrames"))
    bits = int(dataset.get("BitsAllocated") or 16) * int(dataset.get("SamplesPerPixel") or 1)
    if length != UNDEFINED and rows * columns * frames * bits // 8 > length:
        return f"damaged: its header declares {frames} frames of {rows} x {columns} pixels, and {length} bytes of them are there"
    return ""


def _frames(path: Path, dataset: Any) -> tuple[Frame, ...]:
    count = int(dataset.get("NumberOfFrames") or 1)
    if count > 1 or _text(dataset, "SOPClassUID") in CT_CLASSES[1:]:
        from medlord_bench.volumes.dicom.enhanced import frames_of

        return frames_of(path, count)
    return (Frame(_vector(dataset, "ImagePositionPatient", 3), *_plane(dataset)),)


def _plane(dataset: Any) -> tuple[Vector | None, Vector | None]:
    return _vector(dataset, "ImageOrientationPatient", 6), _vector(dataset, "PixelSpacing", 2)


def _vector(dataset: Any, name: str, length: int) -> Vector | None:
    value = dataset.get(name)
    if value is None or isinstance(value, str) or not hasattr(value, "__len__") or len(value) != length:
        return None
    return tuple(float(one) for one in value)
