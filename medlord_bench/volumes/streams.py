"""Compressed streams in image files: read to their end, where the checksum is. Libraries stop before it, or ignore it."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

from medlord_bench.errors import UserError
from medlord_bench.volumes.formats import data_file

CHUNK = 2**20
DEFLATE_RATIO = 1032  # deflate packs no more bytes into one (RFC 1951: 258 bytes in 2 bits)
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
    from isal import igzip, isal_zlib  # two to three times as fast as zlib

    try:
        with igzip.open(path) as stream:  # type: ignore[no-untyped-call]
            content: bytes = stream.read(size)
            while stream.read(CHUNK):
                pass
    except isal_zlib.error as error:  # type: ignore[misc]  # its stubs call it an instance
        raise zlib.error(str(error)) from None
    return content


def check_packed(path: Path) -> None:
    """Raise `UserError` if a MetaImage or NRRD file has compressed values and their checksum is wrong."""
    header, end = text_header(path)
    if re.search(DEFLATED, header.lower()):
        data = data_file(path)
        read_deflated(path if data is None else data, end if data is None else 0, 0)


def read_deflated(place: Path, start: int, size: int) -> bytes:
    """The first `size` bytes of a stream of zlib or gzip that begins at byte `start` of a file; all of it is read, so that its
    checksum is tested. Raises `UserError` for a damaged stream."""
    from isal import igzip_lib, isal_zlib

    with open(place, "rb") as file:
        file.seek(start)
        packed = file.read()
    kind = igzip_lib.DECOMP_GZIP if packed.startswith(GZIP) else igzip_lib.DECOMP_ZLIB
    stream = igzip_lib.IgzipDecompressor(flag=kind)
    try:
        content: bytes = stream.decompress(packed, max(size, 1))
        while not stream.eof and not stream.needs_input:
            stream.decompress(b"", CHUNK)
    except isal_zlib.error as error:  # type: ignore[misc]  # its stubs call it an instance
        raise UserError(f"{place}: its compressed values are damaged ({error}); copy the file again") from None
    if not stream.eof:
        raise UserError(f"{place}: incomplete image: its compressed values end too early; copy the file again")
    return content


def check_text_header(path: Path) -> None:
    """Raise `UserError` for a header of MetaImage or NRRD at which ITK's libraries end the process.

    MetaIO has room for ten axes and trusts NDims. NrrdIO has 512 letters for its messages, which quote the field; values of the
    user (`name:=value`) and comments may be long.
    """
    header, _ = text_header(path)
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


def text_header(path: Path) -> tuple[bytes, int]:
    """The text header of a MetaImage or NRRD file, and the byte where it ends."""
    with open(path, "rb") as file:
        start = file.read(HEADER)
    if start.startswith(b"NRRD"):
        ends = [start.find(blank) + len(blank) for blank in (b"\n\n", b"\r\n\r\n") if blank in start]
        end = min(ends, default=len(start))
        return start[:end], end
    at = start.find(b"ElementDataFile")
    end = start.find(b"\n", at) + 1 if at >= 0 else len(start)
    return start[:end], end or len(start)
