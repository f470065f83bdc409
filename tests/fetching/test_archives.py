"""Archives that are what they say, and those that are not: traversal, links, bombs, cut short."""

from __future__ import annotations

import errno
import io
import stat
import zipfile
from pathlib import Path
from typing import Any

import pytest

from medlord_bench.errors import UserError
from medlord_bench.fetching import archives
from medlord_bench.fetching.http import FetchError
from tests.fetching.zips import zip_of

ALL = r"(?P<path>(?P<case>[^/]+)/.+|meta\.csv)"


def unpack(content: bytes, folder: Path, pattern: str = ALL) -> None:
    with archives.opened(io.BytesIO(content), "a.zip") as archive:
        found = archives.members(archive, "a.zip", pattern)
        archives.unpack(archive, "a.zip", found, folder, lambda: None)


def test_members_are_written_below_the_folder(tmp_path: Path) -> None:
    unpack(zip_of({"s1/ct.nii.gz": b"one", "meta.csv": b"two", "notes.txt": b"three"}), tmp_path)
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()) == [
        "meta.csv",
        "s1/ct.nii.gz",
    ]
    assert (tmp_path / "s1/ct.nii.gz").read_bytes() == b"one"


@pytest.mark.parametrize(
    "name", ["../out", "s1/../../out", "/etc/out", "s1/..", "C:/out", "s1\\..\\..\\out", "\\\\host\\out"]
)
def test_a_member_outside_the_folder_refuses_the_archive(name: str, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="would lie outside the folder; nothing was unpacked"):
        unpack(zip_of({"s1/good": b"x", name: b"y"}), tmp_path / "data")
    assert list(tmp_path.rglob("*")) == []


def test_a_link_refuses_the_archive(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        info = zipfile.ZipInfo("s1/link")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc")
    with pytest.raises(FetchError, match="is a link"):
        unpack(stream.getvalue(), tmp_path)


def test_a_folder_that_is_a_link_out_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "s1").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="leads out of"):
        unpack(zip_of({"s1/ct": b"x"}), tmp_path / "data")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_bomb_is_refused_by_what_it_declares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "ALLOWED_BYTES", 2**20)
    with pytest.raises(FetchError, match="refused as a zip bomb"):
        unpack(zip_of({"s1/zeros": bytes(2**23)}), tmp_path)
    unpack(zip_of({"s1/zeros": bytes(2**23)}, zipfile.ZIP_STORED), tmp_path)


def test_a_member_that_holds_more_than_it_declares_is_refused(tmp_path: Path) -> None:
    """A bomb that lies about its size: the checksum is of what is there."""
    content = bytearray(zip_of({"s1/zeros": bytes(100_000)}))
    for signature, at in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        start = content.index(signature)
        content[start + at : start + at + 4] = (1000).to_bytes(4, "little")
    with pytest.raises(FetchError, match="not a whole zip archive"):
        unpack(bytes(content), tmp_path)
    assert list(tmp_path.rglob("zeros")) == []


@pytest.mark.parametrize("cut", [10, 200, 1000])
def test_an_archive_that_is_cut_short_is_refused(cut: int, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="not a whole zip archive"):
        unpack(zip_of({"s1/ct": bytes(range(256)) * 40})[:-cut], tmp_path)


def test_a_damaged_member_is_not_kept(tmp_path: Path) -> None:
    content = bytearray(zip_of({"s1/ct": bytes(range(256)) * 40}, zipfile.ZIP_STORED))
    content[200] ^= 1
    with pytest.raises(FetchError, match=r"a\.zip: not a whole zip archive \(Bad CRC-32"):
        unpack(bytes(content), tmp_path)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_a_disk_that_fills_keeps_the_members_that_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {f"s{n}/ct": bytes([n]) * 1000 for n in range(3)}
    write = archives._write

    def full(archive: zipfile.ZipFile, one: archives.Member, temporary: Path, *more: Any) -> None:
        write(archive, one, temporary, *more)
        if one.case == "s1":
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(archives, "_write", full)
    with pytest.raises(UserError, match="s1/ct: the disk is full; free disk space and give the same command"):
        unpack(zip_of(files), tmp_path)
    assert [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()] == ["s0/ct"]
    monkeypatch.undo()
    unpack(zip_of(files), tmp_path)
    assert (tmp_path / "s2/ct").read_bytes() == files["s2/ct"]


def test_a_name_twice_is_refused(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with pytest.warns(UserWarning), zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("s1/ct", "a")
        archive.writestr("s1/ct", "b")
    with pytest.raises(FetchError, match="is there twice"):
        unpack(stream.getvalue(), tmp_path)


def test_an_archive_of_something_else_is_named(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="has no file named as"):
        unpack(zip_of({"readme": b""}), tmp_path)
