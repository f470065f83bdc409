"""Whether anything but the picture, the code and random UIDs differs between the cases of a pack."""

from __future__ import annotations

import hashlib
import struct
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from .leak_files import HEAD, IMAGES, Leak, gzip_header, voxel_start

Fields = Mapping[str, str]
CODE = "CODE"  # what a case's code is replaced by before fields are compared


def cases_of(folder: Path, files: Sequence[Path], codes: Sequence[str] = ()) -> dict[str, list[Path]]:
    """Code -> files of the case, in order.

    codes: a file belongs to the case whose code is its stem or one of its folders. Without codes each image file is a case,
    each folder of DICOM files, and each first folder of pictures.
    """
    found: dict[str, list[Path]] = {code: [] for code in codes}
    for path in files:
        parts = path.relative_to(folder).parts
        stem = parts[-1].split(".")[0]
        code = next((part for part in (stem, *reversed(parts[:-1])) if part in found), "") if codes else ""
        if not codes and _is_image(path):
            series = path.suffix.lower() not in (".nii", ".gz", ".mha", ".mhd", ".i16") and len(parts) > 1
            code = stem if not series else parts[0] if path.suffix.lower() == ".png" else parts[-2]
            found.setdefault(code, [])
        if code:
            found[code].append(path)
    return {code: paths for code, paths in found.items() if paths}


def _is_image(path: Path) -> bool:
    name = path.name.lower().removesuffix(".gz")
    if name.endswith((*IMAGES, ".mhd")):
        return True
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"


def differing(folder: Path, cases: Mapping[str, Sequence[Path]], dates: bool = True) -> list[Leak]:
    """A leak for each field that differs between cases; it names a case whose value is the rarest.

    dates: whether modification times are compared.
    """
    roles: dict[str, dict[tuple[tuple[str, str], ...], list[str]]] = {}  # file of a case -> its fields -> files
    having: dict[str, set[str]] = {}
    for code, paths in cases.items():
        for number, path in enumerate(paths):
            name = path.relative_to(folder).as_posix()
            role = name.replace(code, CODE) if code in name else f"{path.suffix} {number}"
            fields = tuple(sorted(_fields(path, code, dates).items()))
            roles.setdefault(role, {}).setdefault(fields, []).append(name)
            having.setdefault(role, set()).add(code)
    leaks: dict[str, Leak] = {}
    for role, groups in roles.items():
        for field in sorted({field for fields in groups for field, _ in fields}) if len(groups) > 1 else ():
            values: dict[str, list[str]] = {}
            for fields, names in groups.items():
                values.setdefault(dict(fields).get(field, "absent"), []).extend(names)
            if len(values) > 1:
                leaks.setdefault(f"{Path(role).suffix} {field}", _difference(field, values))
        if len(having[role]) < len(cases):
            lacking = next(code for code in cases if code not in having[role])
            leaks.setdefault("files", Leak(lacking, f"has no {role}, which {len(having[role])} cases have"))
    return sorted(leaks.values())


def _difference(field: str, values: Mapping[str, Sequence[str]]) -> Leak:
    rare, *_, usual = sorted(values, key=lambda value: (len(values[value]), value))
    return Leak(
        min(values[rare]),
        f"{field} is {rare[:60]!r} in {len(values[rare])} cases, {usual[:60]!r} in {len(values[usual])}",
    )


def zip_leaks(path: Path, name: str) -> list[Leak]:
    """Dates, systems and order of the members of a zip file."""
    if not zipfile.is_zipfile(path):
        return []
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    leaks = []
    for field in ("date_time", "create_system", "create_version", "compress_type", "external_attr", "flag_bits"):
        values = {str(getattr(one, field)) for one in members if not one.is_dir()}
        if len(values) > 1:
            leaks.append(Leak(name, f"{field} differs between members: {', '.join(sorted(values)[:3])}"))
    names = [one.filename for one in members]
    if names != sorted(names):
        leaks.append(Leak(name, "members are not in the order of their names"))
    return leaks


def _fields(path: Path, code: str, dates: bool) -> dict[str, str]:
    """All that a file says besides its picture, its code replaced."""
    stat = path.stat()
    found = {"size": str(stat.st_size)}
    if dates:
        found["modification time"] = f"{datetime.fromtimestamp(int(stat.st_mtime), UTC):%Y-%m-%d %H:%M:%S} UTC"
    with open(path, "rb") as file:
        head = file.read(HEAD)
    if head[:2] == b"\x1f\x8b":
        found |= _gzip(head)
        head = _unpacked(path)
        found.pop("size")  # of a compressed file: the audit compares it with the source
    found |= {name: value.replace(code, CODE) for name, value in _image_fields(path, head)}
    return found


def _unpacked(path: Path) -> bytes:
    import gzip
    import zlib

    try:
        with gzip.open(path) as stream:
            return stream.read(HEAD)
    except (OSError, EOFError, zlib.error):
        return b""


def _gzip(head: bytes) -> dict[str, str]:
    header = gzip_header(head)
    if len(header) < 10:
        return {"gzip header": header.hex()}
    flags, time, extra, system = struct.unpack_from("<BIBB", header, 3)
    return {
        "gzip flags": str(flags),
        "gzip time": str(time),
        "gzip level": str(extra),
        "gzip system": str(system),
        "gzip name": header[10:].hex(),
    }


def _image_fields(path: Path, head: bytes) -> Iterator[tuple[str, str]]:
    if head[344:347] == b"n+1":
        yield from _nifti(head)
    elif head[128:132] == b"DICM":
        yield from _dicom(path, head)
    elif head[:10] == b"ObjectType":
        for line in head[: voxel_start(head, path.name)].decode("latin-1").splitlines():
            field, _, value = line.partition("=")
            yield f"MetaImage {field.strip()}", value.strip()
    elif head[:8] == b"\x89PNG\r\n\x1a\n":
        yield from _png(head)


def _nifti(head: bytes) -> Iterator[tuple[str, str]]:
    import nibabel as nib

    try:
        header = nib.Nifti1Header(head[:348], check=False)
    except Exception as error:  # a damaged header is a difference, whatever the library says of it
        yield "NIfTI header", f"{type(error).__name__} {head[:348].hex()}"
        return
    yield "NIfTI byte order", header.endianness
    for field in header.template_dtype.names:
        yield f"NIfTI {field}", np.asarray(header[field]).tobytes().hex() if field == "magic" else str(header[field])
    yield "NIfTI extensions", hashlib.sha256(head[348 : voxel_start(head, "")]).hexdigest()


def _png(head: bytes) -> Iterator[tuple[str, str]]:
    at, kinds = 8, []
    while at + 8 <= len(head):
        length, kind = struct.unpack_from(">I4s", head, at)
        kinds.append(kind.decode("latin-1"))
        if kind != b"IDAT":
            yield f"PNG {kinds[-1]}", head[at + 8 : at + 8 + length].hex()
        at += 12 + length
    yield "PNG chunks", " ".join(kinds)


def _dicom(path: Path, head: bytes) -> Iterator[tuple[str, str]]:
    from .dicom import require_pydicom

    pydicom = require_pydicom()
    yield "DICOM preamble", head[:128].hex()
    try:
        with warnings.catch_warnings(
            action="ignore"
        ):  # what pydicom finds odd differs between cases, or does not matter
            data = pydicom.dcmread(path, stop_before_pixels=True, defer_size=1024)
            found = [(_name(element), _value(element)) for element in (*data.file_meta, *data.iterall())]
        yield from found
    except Exception as error:  # hostile files raise many kinds; each is a difference to sound ones
        yield "DICOM", f"unreadable ({type(error).__name__})"


def _name(element: Any) -> str:
    return f"DICOM {element.tag} {element.keyword or 'private'}"


def _value(element: Any) -> str:
    """Of a random UID only its root and length, which must be equal."""
    value = str(element.value)
    if element.VR == "SQ":
        return f"{len(element.value)} items"
    if element.VR == "UI" and element.keyword not in ("SOPClassUID", "TransferSyntaxUID", "ImplementationClassUID"):
        if "MediaStorageSOPClassUID" in element.keyword:
            return value
        return f"{value.rpartition('.')[0]} and {len(value) - len(value.rpartition('.')[0])} characters"
    return value
