"""CT-FM's encoder (Pai et al. 2025, arXiv 2501.09001): MONAI's SegResEncoder with 77,760,992 parameters."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from medlord_bench.errors import UserError
from medlord_bench.nn.checkpoints import load_strict

if TYPE_CHECKING:
    from torch import Tensor, nn

# As in the authors' training configuration, github.com/project-lighter/CT-FM, experiments/fm/backbones/segresenc.yaml.
LAYOUT: dict[str, Any] = {"spatial_dims": 3, "init_filters": 32, "in_channels": 1, "blocks_down": (1, 2, 2, 4, 4)}


def build() -> nn.Module:
    """The network of `LAYOUT` with random weights."""
    from monai.networks.nets.segresnet_ds import SegResEncoder

    encoder: nn.Module = SegResEncoder(**LAYOUT)
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


@torch.inference_mode()
def forward(encoder: nn.Module, grey: Tensor) -> Tensor:
    """(features,) of one volume (1, D, H, W): the average over the last level's activations, in float32 without TF32."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        last: Tensor = encoder(grey[None])[-1]
        return last.mean((2, 3, 4))[0].float().cpu()
