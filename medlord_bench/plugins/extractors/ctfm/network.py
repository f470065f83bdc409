"""CT-FM's encoder (Pai et al. 2025, arXiv 2501.09001): MONAI's SegResEncoder with 77.8 million parameters."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from medlord_bench.errors import UserError
from medlord_bench.nn.checkpoints import load_strict

if TYPE_CHECKING:
    from torch import Tensor, nn

FEATURES = 512  # channels of the last level
FACTOR = 16  # voxels of the input for one of the last level, along each axis


def build(**changes: Any) -> nn.Module:
    """The layout of the published configuration, with random weights. changes: for tests of a smaller network."""
    from monai.networks.nets.segresnet_ds import SegResEncoder

    layout = {"spatial_dims": 3, "init_filters": 32, "in_channels": 1, "blocks_down": (1, 2, 2, 4, 4)}
    encoder: nn.Module = SegResEncoder(**{**layout, **changes})
    return encoder


def load(path: Path) -> nn.Module:
    """The network with the weights of a published file, frozen. Raises `UserError` naming a file of another kind."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path}: unreadable ({error}); expected CT-FM's model.safetensors: fetch it again") from None
    encoder = build()
    load_strict(encoder, tensors, str(path))
    return encoder.eval().requires_grad_(False)


def forward(encoder: nn.Module, grey: Tensor) -> Tensor:
    """(512,) of one volume (1, Z, Y, X) in [0, 1]: the average over the last level's activations."""
    with torch.inference_mode():
        last: Tensor = encoder(grey[None])[-1]
        return last.mean((2, 3, 4))[0].cpu()
