"""What a plugin needs of pretrained weights, said before it needs them: for `fetch weights`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from pydantic import Field

from medlord_bench.contracts.values import FrozenConfig

LICENCE_UNKNOWN = "not stated: read the page at its address"


class NeededWeights(FrozenConfig):
    """One file, or one archive, of pretrained weights.

    path: below the weights folder; of an archive, the folder that it unpacks to. sha256: whole, or its first digits, as
    far as it is known. by_hand: why a program may not fetch it and what to do; empty if it may, once the licence is
    accepted. repo, revision: of a file on the Hugging Face hub. unpacks: whether `address` is a zip archive.
    """

    path: str
    address: str
    licence: str = LICENCE_UNKNOWN
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{4,64}$")
    by_hand: str = ""
    repo: str = ""
    revision: str = ""
    unpacks: bool = False


@runtime_checkable
class HasWeights(Protocol):
    """A plugin whose configuration reads pretrained weights that do not come with an installed package."""

    def needed_weights(self) -> Sequence[NeededWeights]: ...
