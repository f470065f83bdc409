"""YAML within limits: what is read, and that all else ends in one line."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from medlord_bench.errors import UserError
from medlord_bench.util.documents import DEEPEST, LARGEST, parse_yaml, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12), ("-3", -3), ("1_000", 1000), ("0", 0), ("1.5", 1.5), ("-.5", -0.5), ("1.", 1.0), ("1e-4", 1e-4), ("1.5E3", 1500.0),
        (".inf", float("inf")), ("-.inf", float("-inf")), ("true", True), ("null", None), ("[1, a]", [1, "a"]), ("{a: {b: 2}}", {"a": {"b": 2}}),
        ("1:30", "1:30"), ("12:30:45", "12:30:45"), ("007", "007"), ("2026-11-29", "2026-11-29"), ("'5'", "5"), ("a: b", {"a": "b"}), ("", None),
    ],
)  # fmt: skip
def test_values(text: str, value: Any) -> None:
    found = parse_yaml(text, "t")
    assert found == value and type(found) is type(value)


def test_fifty_levels_are_read_and_one_more_is_refused() -> None:
    found = parse_yaml("[" * 50 + "]" * 50, "t")
    for _ in range(49):
        (found,) = found
    assert found == []
    with pytest.raises(UserError, match="more than 50 levels"):
        parse_yaml("[" * 51 + "]" * 51, "t")


LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)}, *{chr(97 + n)}]\n" for n in range(20)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (LAUGHS, r"t, line 2: not YAML: an alias \(\*\); write the value out"),
        ("[" * 3000, f"more than {DEEPEST} levels"),
        ("a: 1\nb: 2\na: 3", "t, line 3: not YAML: the field 'a' is given twice"),
        ("9" * 5000, "not YAML"),
        ("a: b: c", "line 1: not YAML"),
        ("a: \x00", "not YAML"),
        ("!!python/object/apply:os.system [true]", "could not determine a constructor"),
        ("- [1, 2", "line 1: not YAML"),
    ],
    ids=["laughs", "deep", "twice", "digits", "colons", "zero", "python", "open"],
)
def test_a_bad_document_is_one_line_at_once(text: str, words: str) -> None:
    start = time.monotonic()
    with pytest.raises(UserError, match=words) as error:
        parse_yaml(text, "t")
    assert "\n" not in str(error.value) and len(str(error.value)) < 400
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a: \xfc", r"f.yaml: not UTF-8 \(byte 3\); expected a run file: save it as UTF-8"),
        ("a: ü".encode("utf-16"), "not UTF-8"),
        (b"- a", "expected a run file with fields and values, got list"),
        (b"", "got NoneType"),
        (b"3: a", "field 3: expected a name"),
    ],
)
def test_a_bad_file_names_the_file_and_what_was_expected(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=words):
        read_yaml(path, "a run file")


def test_sizes_folders_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not found; expected a run file"):
        read_yaml(tmp_path / "none.yaml", "a run file")
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(UserError, match="is neither a file nor a folder; expected a run file"):
            read_yaml(place, "a run file")
    with pytest.raises(UserError, match="is a directory; expected a run file"):
        read_yaml(tmp_path, "a run file")
    (tmp_path / "large.yaml").write_bytes(b"a: " + b"x" * LARGEST)
    with pytest.raises(UserError, match="4,000,003 bytes, expected a run file of at most 4,000,000"):
        read_yaml(tmp_path / "large.yaml", "a run file")
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbfa: 1")
    assert read_yaml(tmp_path / "bom.yaml", "a run file") == {"a": 1}


def test_it_reads_what_pyyaml_writes() -> None:
    value = {"a": [1, 2.5, "x", "1:30", "007", True, None, {"b": "2026-01-01"}], "ü": "ä: b # c"}
    assert parse_yaml(yaml.safe_dump(value, allow_unicode=True), "t") == value
