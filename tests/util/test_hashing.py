import hashlib
from pathlib import Path

import pytest

from medlord_bench.util.hashing import canonical, digest, file_sha256


def test_the_order_of_fields_does_not_change_a_key() -> None:
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 1.5})


def test_a_key_is_the_sha256_of_the_canonical_json() -> None:
    assert canonical({"b": 1, "a": "ü"}) == '{"a":"ü","b":1}'
    assert digest({}) == hashlib.sha256(b"{}").hexdigest()


def test_nan_cannot_enter_a_key() -> None:
    with pytest.raises(ValueError, match="JSON"):
        digest({"a": float("nan")})


def test_file_hashes_are_those_of_sha256sum(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100_000)
    assert file_sha256(path) == hashlib.sha256(b"x" * 100_000).hexdigest()
