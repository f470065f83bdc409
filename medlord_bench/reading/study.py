"""The folder of a study: `sealed/` (the key), `packs/READER`, `returns/`, `analysis/`, and the protocol."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medlord_bench.errors import UserError

from .key import FILE, SEALED_FILE, is_key
from .pack import MANIFEST

PROTOCOL, PACKS, NOTES = "protocol.yaml", "packs", "leak_check.txt"


@dataclass(frozen=True)
class Study:
    """root: the folder of the coordinator."""

    root: Path

    @property
    def protocol(self) -> Path:
        return self.root / PROTOCOL

    @property
    def sealed(self) -> Path:
        return self.root / "sealed"

    @property
    def key(self) -> Path:
        """The key, plain or encrypted, whichever there is."""
        plain, encrypted = self.sealed / FILE, self.sealed / SEALED_FILE
        return encrypted if encrypted.exists() and not plain.exists() else plain

    @property
    def packs(self) -> Path:
        return self.root / PACKS

    def pack(self, reader: str) -> Path:
        return self.packs / reader

    @property
    def returns(self) -> Path:
        return self.root / "returns"

    @property
    def analysis(self) -> Path:
        return self.root / "analysis"


def no_pack_above(folder: Path) -> None:
    """Raise `UserError` if a folder is inside a pack, which a reader gets."""
    pack = next((one for one in folder.resolve().parents if (one / MANIFEST).exists()), None)
    if pack is not None:
        raise UserError(f"{folder}: is inside the pack {pack}, which a reader gets; give a folder outside it")


def no_key_below(folder: Path) -> None:
    """Raise `UserError` if a folder that a reader gets contains a key."""
    found = next((path for path in sorted(folder.rglob("*")) if is_key(path)), None)
    if found is not None:
        raise UserError(f"{found}: the pack contains a key; remove it: a reader with the key is not blinded")
