"""Paths as one line of text."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from medlord_bench.util.paths import shown

ROOT = Path("/data")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a b.nii", "a b.nii"),
        ("Müller", "Müller"),
        ("a\nb", r"a\nb"),
        ("a\x1b[31m", r"a\x1b[31m"),
        (os.fsdecode(b"a\xff"), r"a\xff"),
    ],
)
def test_a_name_is_one_line_that_can_be_printed(name: str, text: str) -> None:
    assert shown(ROOT / name, ROOT) == text
    assert shown(ROOT / name) == f"/data/{text}"
    assert shown(ROOT / name, Path("/elsewhere")) == f"/data/{text}"
    text.encode()
