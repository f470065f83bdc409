"""The files of a pack, also of a hostile one: bounded reading, no link followed, no path left.

A part is a file, or a member of a gzip or zip file in it, cut into what describes the picture (head) and the picture itself
(voxels), because a short name occurs in millions of voxels by chance.
"""

from __future__ import annotations

import gzip
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast

from medlord_bench.util.hashing import file_sha256

CHUNK = 2**20
HEAD = 2**22  # bytes in which the head of an image must end
EXPANDED = 2**32  # bytes that are read of one compressed file
RATIO = 500  # of a compressed member to its size; medical images reach 20, an empty one 200
FILES, MEMBERS = 500_000, 10_000
IMAGES = (".nii", ".mha", ".i16", ".dcm", ".png")
VOLUMES = (".nii", ".nii.gz", ".mha", ".i16")  # a case in one file


@dataclass(frozen=True, order=True)
class Leak:
    """file: relative to the pack; a member of an archive after `!`."""

    file: str
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"


@dataclass(frozen=True)
class Part:
    """A stretch of bytes of a file. voxels: whether it is the picture."""

    name: str
    content: bytes
    voxels: bool


def files_of(folder: Path) -> tuple[list[Path], list[Leak]]:
    """Regular files in order of their paths, and what must not be in a pack: links, pipes, devices, too many files."""
    found, leaks, waiting = [], [], [folder]
    while waiting:
        for path in sorted(waiting.pop().iterdir()):
            name = path.relative_to(folder).as_posix()
            if path.is_symlink():
                leaks.append(Leak(name, "is a link; expected a file"))
            elif path.is_dir():
                waiting.append(path)
            elif not path.is_file():
                leaks.append(Leak(name, "is neither a file nor a folder"))
            else:
                found.append(path)
            if len(found) > FILES:
                return found, [*leaks, Leak(name, f"one of more than {FILES:,} files; the others are not checked")]
    return sorted(found), leaks


def equal_files(folder: Path, cases: Mapping[str, Sequence[Path]], known: Mapping[str, str]) -> list[Leak]:
    """Volumes of two cases with equal bytes: the same volume twice, or a hidden repeat that shows itself.

    known: relative path -> sha256, where it is known. Slices and pictures are left out, since empty ones are equal.
    """
    sizes: dict[int, list[Path]] = {}
    for path in sorted(path for paths in cases.values() for path in paths if path.name.lower().endswith(VOLUMES)):
        sizes.setdefault(path.stat().st_size, []).append(path)
    leaks, seen = [], dict[str, str]()
    for path in (path for paths in sizes.values() if len(paths) > 1 for path in paths):
        name = path.relative_to(folder).as_posix()
        other = seen.setdefault(known.get(name) or file_sha256(path), name)
        if other != name:
            leaks.append(Leak(name, f"the same bytes as {other}"))
    return leaks


def compressed_sizes(cases: Mapping[str, Sequence[Path]]) -> list[str]:
    """A note if compressed files of the cases have different sizes; none otherwise."""
    found = {path.stat().st_size for paths in cases.values() for path in paths if path.suffix.lower() == ".gz"}
    if len(found) < 2:
        return []
    return [
        f"compressed files have {len(found)} sizes, {min(found):,} to {max(found):,} bytes: noise and sharpness decide the size, "
        "and so does the source; store volumes uncompressed"
    ]


def parts_of(path: Path, name: str) -> Iterator[Part | Leak]:
    """All content of a file, gzip and zip unpacked. Names and header fields of archives are parts too."""
    with open(path, "rb") as file:
        magic = file.read(4)
        file.seek(0)
        if magic[:2] == b"\x1f\x8b":
            yield Part(f"{name}!gzip header", gzip_header(file.read(CHUNK)), False)
            file.seek(0)
            with gzip.GzipFile(fileobj=file) as inner:
                yield from _expanded(cast(IO[bytes], inner), name, PurePosixPath(name).stem, path.stat().st_size)
        elif magic == b"PK\x03\x04":
            yield from _zip(path, name)
        else:
            yield from _cut(file, name, name)


def gzip_header(content: bytes) -> bytes:
    """The header of a gzip file with its optional name and comment (RFC 1952)."""
    flags, end = content[3] if len(content) > 3 else 0, 10
    if flags & 4 and len(content) > 12:
        end += 2 + struct.unpack_from("<H", content, 10)[0]
    for flag in (8, 16):
        if flags & flag:
            at = content.find(b"\0", end)
            end = len(content) if at < 0 else at + 1
    return content[:end]


def _zip(path: Path, name: str) -> Iterator[Part | Leak]:
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        yield Leak(name, f"not a usable zip file ({error})")
        return
    with archive:
        members = archive.infolist()
        yield Part(f"{name}!comment", archive.comment, False)
        if len(members) > MEMBERS:
            yield Leak(name, f"{len(members):,} members, expected at most {MEMBERS:,}; the others are not checked")
        for member in members[:MEMBERS]:
            inner = f"{name}!{member.filename}"
            yield Part(inner, member.filename.encode() + b"\0" + member.extra + b"\0" + member.comment, False)
            place = PurePosixPath(member.filename.replace("\\", "/"))
            if place.is_absolute() or ".." in place.parts or ":" in place.parts[:1]:
                yield Leak(inner, "its path leaves the pack")
            elif member.flag_bits & 1:
                yield Leak(inner, "is encrypted and cannot be checked")
            elif not member.is_dir():
                try:
                    with archive.open(member) as stream:
                        yield from _expanded(stream, inner, member.filename, member.compress_size)
                except (zipfile.BadZipFile, NotImplementedError, OSError, zlib.error) as error:
                    yield Leak(inner, f"cannot be unpacked ({error})")


def _expanded(stream: IO[bytes], name: str, kind: str, packed: int) -> Iterator[Part | Leak]:
    """Compressed content, up to a limit."""
    limit = min(EXPANDED, max(RATIO * packed, CHUNK))
    try:
        if PurePosixPath(kind).suffix.lower() in (".zip", ".gz"):
            yield Leak(name, "an archive in an archive, which is not checked")
        yield from _cut(_Limited(stream, limit), name, kind)
    except _Bomb:
        yield Leak(name, f"expands to more than {limit / 1e6:,.0f} MB; the rest is not checked")
    except (OSError, EOFError, zlib.error) as error:
        yield Leak(name, f"cannot be unpacked ({error})")


class _Bomb(Exception):
    pass


class _Limited:
    """A stream that may be read up to a limit."""

    def __init__(self, stream: IO[bytes], limit: int) -> None:
        self.stream, self.left = stream, limit

    def read(self, size: int) -> bytes:
        content = self.stream.read(size)
        self.left -= len(content)
        if self.left < 0:
            raise _Bomb
        return content


def _cut(stream: IO[bytes] | _Limited, name: str, kind: str) -> Iterator[Part]:
    head = stream.read(HEAD)
    start = voxel_start(head, kind)
    if PurePosixPath(kind).suffix.lower() == ".png":
        yield from _png(head, name, stream)
        return
    yield Part(name, head[:start], False)
    rest = head[start:]
    if len(rest) % 2:  # every stretch begins with a whole voxel
        rest += stream.read(1)
    while rest or (rest := stream.read(CHUNK)):
        yield Part(name, rest, start < len(head))
        rest = b""


def voxel_start(head: bytes, kind: str) -> int:
    """Where the voxels of an image begin; the end of `head` if it is not an image."""
    if kind.lower().endswith(".i16"):
        return 0
    if head[344:347] == b"n+1" and len(head) >= 352:
        order = "<" if struct.unpack_from("<i", head)[0] == 348 else ">"
        offset = struct.unpack_from(f"{order}f", head, 108)[0]
        return int(offset) if 352 <= offset <= len(head) else len(head)
    if head[128:132] == b"DICM":
        at = head.find(b"\xe0\x7f\x10\x00", 132)
        return len(head) if at < 0 else at
    if head[:10] == b"ObjectType":
        at = head.find(b"\n", head.find(b"ElementDataFile"))
        return len(head) if at < 0 else at + 1
    return len(head)


def _png(head: bytes, name: str, stream: IO[bytes] | _Limited) -> Iterator[Part]:
    """The chunks of a PNG but its pixels."""
    content = head
    while more := stream.read(CHUNK):
        content += more
    at = 8
    yield Part(name, content[:at], False)
    while at + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        if kind != b"IDAT":
            yield Part(name, content[at : at + 12 + length], False)
        at += 12 + length
    yield Part(name, content[at:], False)
