"""The key of a study: what every code stands for. It is kept apart from the packs, which contain its commitment.

The commitment is the SHA-256 of a nonce of 256 bits and the canonical key. It shows that the key was not changed after the
reading; the nonce prevents that somebody finds the key by trying all labellings.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import os
import secrets
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from medlord_bench.contracts import FrozenConfig
from medlord_bench.contracts.validation import validate
from medlord_bench.errors import MissingError, UserError
from medlord_bench.util.documents import parse_json
from medlord_bench.util.files import publish
from medlord_bench.util.hashing import canonical

AGE = b"age-encryption.org/"  # how a file that age encrypted begins
LARGEST = 2**28  # bytes of a file that is looked at
DOMAIN = b"medlord-bench/key/v1"
FILE, SEALED_FILE = "key.json", "key.json.age"
EXTRA = "pip install 'medlord-bench[reading]'"


class Entry(FrozenConfig):
    """One case of one reader. item, sha256: the source's file. repeat: 1 for a hidden repeat."""

    reader: str
    code: str
    source: str
    item: str
    sha256: str
    repeat: Literal[0, 1] = 0
    practice: bool = False


class SourceRecord(FrozenConfig):
    """available: volumes that the source has. failed: samples without a volume. drawn: those of the study."""

    name: str
    real: bool
    available: int
    failed: int = 0
    drawn: tuple[str, ...]


class Key(FrozenConfig):
    """nonce, secret: 64 hex digits each."""

    schema_version: Literal[1] = 1
    nonce: str = Field(pattern=r"[0-9a-f]{64}")
    secret: str = Field(pattern=r"[0-9a-f]{64}")
    protocol: str
    rubric: str
    sources: tuple[SourceRecord, ...]
    entries: tuple[Entry, ...]

    def commitment(self) -> str:
        """64 hex digits, printed in every pack and in the report."""
        text = self.model_dump(mode="json", exclude={"nonce"})
        return hashlib.sha256(DOMAIN + bytes.fromhex(self.nonce) + canonical(text).encode()).hexdigest()

    def of_reader(self, reader: str) -> dict[str, Entry]:
        """Code -> entry."""
        return {one.code: one for one in self.entries if one.reader == reader}


def new_nonce() -> str:
    return secrets.token_hex(32)


def write_key(folder: Path, key: Key, recipient: str = "") -> Path:
    """Write the key, readable by its owner alone; or encrypted to an age recipient, if one is given."""
    content = json.dumps(key.model_dump(mode="json"), indent=1, ensure_ascii=False).encode()
    path = folder / (SEALED_FILE if recipient else FILE)
    if recipient:
        content = _pyrage().encrypt(content, [_recipient(recipient)])

    def write(temporary: Path) -> None:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(content)

    publish(path, write)
    return path


def read_key(path: Path, identity: Path | None = None) -> Key:
    """Read a key. identity: file with the age identity that opens an encrypted one.

    Raises `UserError` naming a file that is damaged, or is opened by another identity, `MissingError` if there is none.
    """
    if not path.exists():
        raise MissingError(f"{path}: not found; expected the key of the study: give it with --key")
    content = path.read_bytes()
    if content.startswith(AGE):
        if identity is None:
            raise UserError(f"{path}: is encrypted; expected the custodian's identity: give it with --identity FILE")
        content = _opened(path, content, identity)
    try:
        data = parse_json(content)
    except ValueError:
        raise UserError(
            f"{path}: not JSON; the key is damaged: use the copy that was set aside at the export"
        ) from None
    return validate(Key, data, str(path))


def is_key(path: Path) -> bool:
    """Whether a file is a key, plain or encrypted, under any name: by its name, or by the fields of its content."""
    if path.name in (FILE, SEALED_FILE):
        return True
    if path.is_symlink() or not path.is_file() or path.stat().st_size > LARGEST:
        return False
    with open(path, "rb") as file:
        head = file.read(64)
        if head.startswith(AGE):
            return True
        if not head.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"{"):
            return False
        try:
            data = parse_json(head + file.read())
        except ValueError:
            return False
    return {"nonce", "secret", "entries"} <= set(data)


def _opened(path: Path, content: bytes, identity: Path) -> bytes:
    pyrage = _pyrage()
    lines = [line for line in identity.read_text().splitlines() if line.startswith("AGE-SECRET-KEY-")]
    if not lines:
        raise UserError(f"{identity}: has no age identity; expected a line AGE-SECRET-KEY-...")
    try:
        return bytes(pyrage.decrypt(content, [pyrage.x25519.Identity.from_str(line.strip()) for line in lines]))
    except pyrage.DecryptError:
        raise UserError(f"{path}: {identity} does not open it; give the identity of the recipient") from None


def check_recipient(text: str) -> None:
    """Raise `UserError` for a recipient that is none, `MissingError` without pyrage; before any work."""
    if text:
        _recipient(text)


def _recipient(text: str) -> Any:
    pyrage = _pyrage()
    try:
        return pyrage.x25519.Recipient.from_str(text)
    except pyrage.RecipientError:
        raise UserError(f"--recipient {text}: not an age recipient; expected age1...") from None


def _pyrage() -> Any:
    try:
        import pyrage
    except ModuleNotFoundError:
        raise MissingError(f"encrypted keys need the package pyrage, which is not installed: {EXTRA}") from None
    return pyrage
