"""Values of plain MetaImage and NRRD files, read without ITK, which inflates and copies them more often than needed.

A file whose header has a line that may change the values, and that this module does not read, is left to ITK.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medlord_bench.volumes.formats import data_file
from medlord_bench.volumes.streams import read_deflated, text_header

Order = Literal["<", ">"]
YES = ("true", "1")
# MetaImage's lines that change how values are read, besides those that `_meta` understands; all others are notes.
META_UNREAD = {
    *("headersize", "elementnumberofchannels", "elementtointensityfunctionslope", "elementtointensityfunctionoffset"),
}
# NRRD's lines that say where the voxels are in space, or that `_nrrd` understands.
NRRD = {
    *(
        "type",
        "dimension",
        "space",
        "space dimension",
        "sizes",
        "space directions",
        "space origin",
        "space units",
        "spacings",
    ),
    *(
        "kinds",
        "centers",
        "centerings",
        "labels",
        "units",
        "thicknesses",
        "content",
        "measurement frame",
        "endian",
        "encoding",
    ),
    *("data file", "datafile"),
}


def read_direct(path: Path, kind: str, shape: Sequence[int]) -> NDArray[Any] | None:
    """The values of a file, x fastest, in an array (X, Y, Z); None if ITK must read it.

    kind: NumPy's name of the voxels' type; shape: of the volume, both as ITK reads the header. Raises `UserError` if compressed
    values are damaged.
    """
    header, end = text_header(path)
    said = _lines(header)
    place = data_file(path)
    outside = said.get("elementdatafile", "local").lower() != "local" or bool({"data file", "datafile"} & said.keys())
    if (place is None) == outside:  # a list of files, or one that only ITK finds
        return None
    storage = _nrrd(said) if header.startswith(b"NRRD") else _meta(said)
    if storage is None:
        return None
    order, packed = storage
    dtype, start = np.dtype(kind).newbyteorder(order), 0 if place is not None else end
    count = int(np.prod(shape, dtype=np.int64))
    if packed:
        content = read_deflated(place or path, start, count * dtype.itemsize)
        if len(content) < count * dtype.itemsize:
            return None  # ITK says what is wrong
        values = np.frombuffer(content, dtype)
    else:
        values = np.fromfile(place or path, dtype, count, offset=start)
        if len(values) < count:
            return None
    return values.reshape(shape, order="F")


def _lines(header: bytes) -> dict[str, str]:
    """Key, in lower case, to value; comments and NRRD's own keys (`:=`) are left out."""
    found = {}
    for line in header.decode("latin-1").splitlines():
        if line.startswith(("#", "NRRD000")) or not line.strip() or ":=" in line:
            continue
        separator = ":" if header.startswith(b"NRRD") else "="
        key, _, value = line.partition(separator)
        found[key.strip().lower()] = value.strip()
    return found


def _meta(said: dict[str, str]) -> tuple[Order, bool] | None:
    """Byte order and whether the values are compressed; None for a header with lines that are not read."""
    if said.keys() & META_UNREAD or said.get("binarydata", "true").lower() not in YES:
        return None
    big = {said[key].lower() in YES for key in ("binarydatabyteordermsb", "elementbyteordermsb") if key in said}
    if len(big) > 1:
        return None
    return ">" if True in big else "<", said.get("compresseddata", "false").lower() in YES


def _nrrd(said: dict[str, str]) -> tuple[Order, bool] | None:
    """As `_meta`."""
    encoding, endian = said.get("encoding", "").lower(), said.get("endian", "little").lower()
    if said.keys() - NRRD or encoding not in ("raw", "gzip", "gz") or endian not in ("little", "big"):
        return None
    return "<" if endian == "little" else ">", encoding != "raw"
