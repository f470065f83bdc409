"""Compressed streams in image files: read to their end, where the checksum is. Libraries stop before it, or ignore it."""

from __future__ import annotations

import gzip
import re
import zlib
from pathlib import Path

from medlord_bench.errors import UserError
from medlord_bench.volumes.formats import data_file

CHUNK = 2**20
DEFLATE_RATIO = 1032  # deflate packs no more bytes into one (RFC 1951: 258 bytes in 2 bits)
EITHER = 47  # zlib's code for a stream with the header of zlib or gzip
HEADER = 65_536  # bytes in which a text header must end
DEFLATED = rb"compresseddata\s*=\s*true|encoding\s*:\s*gz"  # in a text header in lower case
LONGEST_FIELD = 400  # letters of a line in a NRRD header
GZIP = b"\x1f\x8b"


def is_gzip(path: Path) -> bool:
    """By its first bytes, whatever its name says."""
    with open(path, "rb") as file:
        return file.read(2) == GZIP


def read_gzip(path: Path, size: int) -> bytes:
    """The first `size` bytes of a gzip file; all of it is read, so that its checksum is tested.

    Raises `OSError`, `EOFError` or `zlib.error` for a damaged file, as `gzip` does.
    """
    with gzip.open(path) as stream:
        content = stream.read(size)
        while stream.read(CHUNK):
            pass
    return content


def check_packed(path: Path) -> None:
    """Raise `UserError` if a MetaImage or NRRD file has compressed values and their checksum is wrong."""
    with open(path, "rb") as file:
        start = file.read(HEADER)
    header, end = _header(start)
    if not re.search(DEFLATED, header.lower()):
        return
    data = data_file(path)
    place = path if data is None else data
    stream = zlib.decompressobj(wbits=EITHER)
    with open(place, "rb") as file:
        file.seek(end if data is None else 0)
        try:
            while not stream.eof and (chunk := file.read(CHUNK)):
                while chunk and not stream.eof:
                    stream.decompress(chunk, CHUNK)
                    chunk = stream.unconsumed_tail
        except zlib.error as error:
            raise UserError(f"{place}: its compressed values are damaged ({error}); copy the file again") from None
    if not stream.eof:
        raise UserError(f"{place}: incomplete image: its compressed values end too early; copy the file again")


def check_text_header(path: Path) -> None:
    """Raise `UserError` for a header of MetaImage or NRRD at which ITK's libraries end the process.

    MetaIO has room for ten axes and trusts NDims. NrrdIO has 512 letters for its messages, which quote the field; values of the
    user (`name:=value`) and comments may be long.
    """
    with open(path, "rb") as file:
        header = _header(file.read(HEADER))[0]
    if header.startswith(b"NRRD"):
        for number, line in enumerate(header.splitlines(), start=1):
            if len(line) > LONGEST_FIELD and not line.startswith(b"#") and b":=" not in line[:LONGEST_FIELD]:
                raise UserError(
                    f"{path}: line {number} of its header has {len(line)} letters; expected a field of at most {LONGEST_FIELD}: the header "
                    "is damaged, copy the file again"
                )
        return
    axes = re.findall(rb"NDims\s*=\s*([^\r\n]*)", header)
    if axes and (len(set(axes)) > 1 or not re.fullmatch(rb"[1-9]|10", axes[0].strip())):
        shown = ", ".join(repr(one.decode(errors="replace"))[:40] for one in axes[:2])
        raise UserError(
            f"{path}: field NDims: {shown}; expected the number of axes, 3: the header is damaged, copy the file again"
        )


def _header(start: bytes) -> tuple[bytes, int]:
    """The text header, and where it ends."""
    if start.startswith(b"NRRD"):
        ends = [start.find(blank) + len(blank) for blank in (b"\n\n", b"\r\n\r\n") if blank in start]
        end = min(ends, default=len(start))
        return start[:end], end
    at = start.find(b"ElementDataFile")
    end = start.find(b"\n", at) + 1 if at >= 0 else len(start)
    return start[:end], end or len(start)
