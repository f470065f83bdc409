"""Cached hashes: a file is hashed again when it may have changed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from medlord_bench.volumes import fingerprints
from medlord_bench.volumes.fingerprints import Found, fingerprint


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MEDLORD_BENCH_CACHE", str(tmp_path / "cache.json"))


def sha_of(path: Path) -> str:
    (case,) = fingerprint([Found("a", "a", path)], {})
    return case.sha256


def test_a_file_replaced_at_equal_size_and_time_has_another_hash(tmp_path: Path) -> None:
    path, other = tmp_path / "a.nii", tmp_path / "b.nii"
    path.write_bytes(b"first")
    os.utime(path, (1e9, 1e9))
    first = sha_of(path)
    other.write_bytes(b"other")
    os.utime(other, (1e9, 1e9))
    other.replace(path)
    assert path.stat().st_size == 5 and path.stat().st_mtime == 1e9
    assert sha_of(path) != first


def test_a_file_changed_in_place_at_equal_size_and_time_has_another_hash(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    path.write_bytes(b"first")
    os.utime(path, (1e9, 1e9))
    first = sha_of(path)
    time.sleep(0.02)  # a change time has the resolution of the kernel's clock
    path.write_bytes(b"other")
    os.utime(path, (1e9, 1e9))
    assert sha_of(path) != first


def test_a_file_that_did_not_change_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.nii"
    path.write_bytes(b"first")
    first = sha_of(path)
    monkeypatch.setattr(fingerprints, "file_sha256", lambda path: "never")
    assert sha_of(path) == first


def test_a_damaged_cache_costs_time_only(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    path.write_bytes(b"first")
    first = sha_of(path)
    for content in ("[]", "{", '{"x": 1}', f'{{"{path}": [1, 2, "z"]}}'):
        (tmp_path / "cache.json").write_text(content)
        assert sha_of(path) == first
