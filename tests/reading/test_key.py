"""The key: its commitment, its file, and encryption."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from medlord_bench.errors import MissingError, UserError
from medlord_bench.reading.key import Entry, Key, SourceRecord, new_nonce, read_key, write_key


def key(**fields: object) -> Key:
    entries = (
        Entry(reader="R1", code="AAAAAA", source="real", item="a", sha256="0" * 64),
        Entry(reader="R1", code="BBBBBB", source="model", item="b", sha256="1" * 64),
    )
    sources = (SourceRecord(name="real", real=True, available=3, drawn=("a",)),)
    given = {"nonce": "0" * 64, "secret": "1" * 64, "protocol": "p", "rubric": "r", "sources": sources}
    return Key.model_validate({**given, "entries": entries, **fields})


def test_every_change_of_the_key_breaks_the_commitment() -> None:
    base = key()
    swapped = (base.entries[0].model_copy(update={"source": "model"}), *base.entries[1:])
    for other in (
        key(nonce="0" * 63 + "1"),
        key(secret="1" * 63 + "0"),
        key(entries=swapped),
        key(protocol="q"),
        key(rubric="s"),
    ):
        assert other.commitment() != base.commitment()
    assert key().commitment() == base.commitment() and new_nonce() != new_nonce()


def test_a_key_is_for_its_owner_alone_and_reads_back(tmp_path: Path) -> None:
    path = write_key(tmp_path / "sealed", key())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_key(path) == key()
    path.write_text(path.read_text().replace('"source": "real"', '"source": "fake"'))
    assert read_key(path).commitment() != key().commitment()
    path.write_text("{")
    with pytest.raises(UserError, match="the key is damaged"):
        read_key(path)
    with pytest.raises(MissingError, match="give it with --key"):
        read_key(tmp_path / "none")


def test_an_encrypted_key_opens_with_its_identity_alone(tmp_path: Path) -> None:
    pyrage = pytest.importorskip("pyrage")
    own, other = pyrage.x25519.Identity.generate(), pyrage.x25519.Identity.generate()
    path = write_key(tmp_path, key(), str(own.to_public()))
    assert path.name == "key.json.age" and b"AAAAAA" not in path.read_bytes()
    for name, identity in (("own", own), ("other", other)):
        (tmp_path / name).write_text(f"# created by age\n{identity}\n")
    assert read_key(path, tmp_path / "own") == key()
    with pytest.raises(UserError, match="does not open it"):
        read_key(path, tmp_path / "other")
    with pytest.raises(UserError, match="give it with --identity"):
        read_key(path)
    with pytest.raises(UserError, match="not an age recipient"):
        write_key(tmp_path, key(), "age1nonsense")
