"""The first bytes of image files: how many slices they declare. For listing thousands of files; no library is imported."""

from __future__ import annotations

import re
import struct
import zlib
from pathlib import Path

from medlord_bench.volumes.formats import NIFTI, suffix_of
from medlord_bench.volumes.streams import GZIP

LONGEST = 4096  # bytes of a text header that are looked at
SIZES = re.compile(rb"^\s*(?:DimSize\s*=|sizes\s*:)\s*([\d ]+)", re.IGNORECASE | re.MULTILINE)


def declared_shape(path: Path) -> tuple[int, ...]:
    """The sizes of a NIfTI, MetaImage or NRRD file along its axes; empty if the header does not show them."""
    start = _start(path)
    return _nifti(start) if suffix_of(path) in NIFTI else _text(start)


def declared_scaling(path: Path) -> tuple[float, float]:
    """Slope and intercept of a NIfTI file as they are stored; slope 0 or NaN means none, and so does an unreadable header."""
    start = _start(path)
    for order in "<>":
        for size, layout, at in ((348, "2f", 112), (540, "2d", 176)):
            if len(start) >= at + struct.calcsize(layout) and struct.unpack(f"{order}i", start[:4])[0] == size:
                slope, intercept = struct.unpack_from(f"{order}{layout}", start, at)
                return slope, intercept
    return 0.0, 0.0


def _start(path: Path) -> bytes:
    """The first bytes of a file, unpacked; none where it cannot be read."""
    try:
        with open(path, "rb") as file:
            start = file.read(LONGEST)
        return zlib.decompressobj(wbits=31).decompress(start, 352) if start[:2] == GZIP else start
    except (OSError, zlib.error):
        return b""


def has_one_slice(path: Path) -> bool:
    """Whether an image declares a single voxel along one of its first three axes, or has two axes."""
    shape = declared_shape(path)
    return bool(shape) and (len(shape) == 2 or min(shape[:3]) == 1) and not (len(shape) > 3 and shape[0] == 1)


def _nifti(start: bytes) -> tuple[int, ...]:
    for order in "<>":
        if len(start) >= 112 and struct.unpack(f"{order}i", start[:4])[0] == 348:
            sizes = struct.unpack(f"{order}8h", start[40:56])
        elif len(start) >= 112 and struct.unpack(f"{order}i", start[:4])[0] == 540:
            sizes = struct.unpack(f"{order}8q", start[16:80])
        else:
            continue
        return tuple(sizes[1 : 1 + sizes[0]]) if 2 <= sizes[0] <= 7 else ()
    return ()


def _text(start: bytes) -> tuple[int, ...]:
    found = SIZES.search(start)
    return tuple(int(word) for word in found[1].split()) if found else ()
