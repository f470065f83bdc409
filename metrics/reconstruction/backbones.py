"""The location of LPIPS's backbones: torchvision's own files in the weights folder, never fetched by the bench."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Literal

from medlord_bench.contracts.weights import NeededWeights
from medlord_bench.errors import UserError
from medlord_bench.nn.pretrained import ENVIRONMENT, weights_folder
from medlord_bench.util.hashing import file_sha256

Net = Literal["alex", "vgg", "squeeze"]
FILES: dict[Net, str] = {  # torchvision's names; the digits are the first of the file's sha256
    "alex": "alexnet-owt-7be5be79.pth",
    "vgg": "vgg16-397923af.pth",
    "squeeze": "squeezenet1_1-b8a52dc0.pth",
}
LICENCE = "code: BSD-3 (torchvision); trained on ImageNet, whose images are for research"
SOURCE = "https://download.pytorch.org/models"


def path_of(net: Net) -> Path:
    """The path of a backbone's file, which may be missing."""
    return weights_folder() / FILES[net]


def needed(net: Net) -> NeededWeights:
    """A backbone as `fetch weights` lists it."""
    name = FILES[net]
    return NeededWeights(
        path=name, address=f"{SOURCE}/{name}", licence=LICENCE, sha256=Path(name).stem.rpartition("-")[2]
    )


def missing(net: Net) -> str:
    """The missing file, its path and its source, in one line."""
    return (
        f"no weights of the {net} backbone at {path_of(net)}: fetch {SOURCE}/{FILES[net]} and put it there, or name the "
        f"folder that contains it with --weights-dir or {ENVIRONMENT}"
    )


def sha256_of(net: Net) -> str | None:
    """The sha256 of a backbone's file, or None if there is no file. Raises `UserError` if it is damaged."""
    path = path_of(net)
    if not path.is_file():
        return None
    found = _sha256(path, path.stat().st_mtime_ns, path.stat().st_size)
    expected = path.stem.rpartition("-")[2]
    if not found.startswith(expected):
        raise UserError(
            f"{path}: sha256 begins with {found[:8]}, expected {expected} as in its name; the file is damaged or "
            f"a different one: fetch {SOURCE}/{path.name} again"
        )
    return found


@lru_cache
def _sha256(path: Path, modified: int, size: int) -> str:
    return file_sha256(path)
