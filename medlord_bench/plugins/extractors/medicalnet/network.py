"""MedicalNet's networks (Chen et al. 2019, arXiv 1904.00625): ResNets of 3D convolutions, stages 3 and 4 dilated."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from medlord_bench.errors import UserError
from medlord_bench.nn.checkpoints import read_torch
from medlord_bench.plugins.extractors.resnet3d import Layout, ResNet3D, build

if TYPE_CHECKING:
    from torch import Tensor

BLOCKS: dict[int, tuple[int, int, int, int]] = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
PREFIX = "module."  # of every name in the published files


def layout(depth: int) -> Layout:
    """The published layout: basic blocks up to depth 34; shortcuts without weights at 18 and 34."""
    return Layout(
        blocks=BLOCKS[depth],
        bottleneck=depth >= 50,
        channels=1,
        kernel=(7, 7, 7),
        stride=(2, 2, 2),
        strides=(1, 2, 1, 1),
        dilations=(1, 1, 2, 4),
        projects=depth not in (18, 34),
    )


def load(path: Path, depth: int) -> ResNet3D:
    """The network with the weights of a published file. Raises `MissingError` or `UserError` naming the file."""
    state = read_torch(path)
    inner = state.get("state_dict") if isinstance(state, Mapping) else None
    if not isinstance(inner, Mapping):
        raise UserError(f"{path}: no 'state_dict' in it; expected a file of MedicalNet: fetch it again")
    tensors: dict[str, Tensor] = {name.removeprefix(PREFIX): value for name, value in inner.items()}
    return build(layout(depth), tensors, str(path))
