"""Tables that people write: encodings, delimiters, byte order marks, line ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from medlord_bench.errors import UserError
from medlord_bench.util.text_tables import read_json, read_table, read_text

WANTED = [{"id": "Müller 1", "image": "a/b.nii"}, {"id": "c2", "image": "d.nii"}]
TEXT = "id,image\nMüller 1,a/b.nii\nc2,d.nii\n"


@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode(),
        b"\xef\xbb\xbf" + TEXT.encode(),
        TEXT.encode() + b"\xef\xbb\xbf",
        TEXT.replace(",", ";").encode(),
        TEXT.replace(",", "\t").encode(),
        TEXT.replace(",", " , ").encode(),
        TEXT.replace("\n", "\r\n").encode(),
        TEXT.replace("\n", "\r").encode(),
        TEXT.replace("id,image", "ID,Image").encode(),
        TEXT.replace("\nc2", "\n\n\nc2").encode(),
        TEXT.replace("a/b.nii", '"a/b.nii"').encode().rstrip(b"\n"),
    ],
    ids=[
        "plain",
        "bom",
        "bom at the end",
        "semicolons",
        "tabs",
        "spaces",
        "crlf",
        "cr",
        "capitals",
        "empty lines",
        "quotes",
    ],
)
def test_the_same_table_however_it_is_written(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    columns, rows = read_table(tmp_path / "t.csv")
    assert columns == ["id", "image"]
    assert [row for _, row in rows] == WANTED


@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        ("utf-16", "UTF-16"),
        ("utf-16-le", "UTF-16"),
        ("cp1252", "line 2: byte 0xfc is not UTF-8"),
        ("latin-1", "Windows-1252 or Latin-1"),
    ],
)
def test_another_encoding_is_named_in_one_line(tmp_path: Path, encoding: str, said: str) -> None:
    (tmp_path / "t.csv").write_bytes(TEXT.encode(encoding))
    with pytest.raises(UserError, match=said) as error:
        read_text(tmp_path / "t.csv")
    assert "t.csv" in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_json_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "l.json").write_bytes(b'\xef\xbb\xbf{"1": "aorta"}')
    assert read_json(tmp_path / "l.json") == {"1": "aorta"}


def test_rows_know_their_lines(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id\na\n\nb\n")
    assert [number for number, _ in read_table(tmp_path / "t.csv")[1]] == [2, 4]
