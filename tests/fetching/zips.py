"""Archives for tests: small ones in memory, and one of 2 GB that takes almost no space on the disk."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO


def zip_of(files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


class Sparse(io.BufferedWriter):
    """Skips zeros instead of writing them, so that they are holes of the file."""

    def write(self, content: bytes) -> int:  # type: ignore[override]
        if len(content) > 2**12 and bytes(content).count(0) == len(content):
            self.seek(len(content), io.SEEK_CUR)
            return len(content)
        return super().write(content)


def large_zip(path: Path, cases: int, each: int) -> None:
    """TotalSegmentator's layout: `meta.csv`, and for each case a stored `ct.nii.gz` of `each` bytes and two masks."""
    zeros = bytes(2**20)
    with open(path, "wb", buffering=0) as raw, Sparse(raw) as stream:  # type: ignore[type-var]
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:  # type: ignore[arg-type]
            archive.writestr("meta.csv", "image_id;split\n")
            for number in range(cases):
                name = f"s{number:04d}"
                with archive.open(f"{name}/ct.nii.gz", "w") as member:
                    member.write(name.encode())
                    for _ in range(each // 2**20):
                        member.write(zeros)
                for organ in ("heart", "aorta"):
                    archive.writestr(f"{name}/segmentations/{organ}.nii.gz", f"{name} {organ}")


def as_file(content: bytes) -> BinaryIO:
    return io.BytesIO(content)
