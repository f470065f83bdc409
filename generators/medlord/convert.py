"""Conversion of checkpoints of the authors' code (github.com/Cardio-AI/medlord) to the bench's configs and tensors.

The conversion is strict: the checkpoint must contain every tensor of the bench's network under its upstream name and
with its shape, and no other tensor. Upstream's checkpoints do not contain heads, norm groups, mask stride, T and latent
scale; the caller provides them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from pydantic import ValidationError
from torch import nn

from medlord_bench.errors import UserError
from medlord_bench.nn.adoption import State, read_checkpoint, renamed
from medlord_bench.nn.vqgan.network import VQGAN, VQGANConfig
from medlord_bench.nn.vqgan.network import config_from_state as vqgan_from_state

from .configs import ControlUNetConfig, UNetConfig
from .controlnet import build_controlnet
from .unet import build_unet
from .unet import config_from_state as unet_from_state

Kind = Literal["vqgan", "ldm", "controlnet"]

# The authors' attention blocks train this projection but never apply it. The bench's network does not have it.
UNUSED = re.compile(r"(attentions\.\d+|middle_block\.attention)\.proj_attn\.(weight|bias)")


@dataclass(frozen=True)
class Unstored:
    """Facts that neither the checkpoint nor the tensor shapes contain. Defaults: upstream's configuration files.

    head_channels: channels per attention head, one number or one per level; None: 64 for networks of three levels, else
    32.
    like: a U-Net whose heads and norm groups are used instead if its channels equal those of the file.
    mask_stride: first stride of a ControlNet's mask embedding. downsampling: the autoencoder's factor; if given, it
    determines the stride.
    """

    head_channels: int | tuple[int, ...] | None = None
    norm_num_groups: int = 32
    like: UNetConfig | None = None
    mask_stride: Literal[1, 2] = 2
    downsampling: int | None = None


class ControlDescription(NamedTuple):
    """The ControlNet, the U-Net it was trained for, and its number of masks."""

    net: ControlUNetConfig
    unet: UNetConfig
    masks: int


class Converted(NamedTuple):
    """config: `VQGANConfig`, `UNetConfig` or `ControlDescription`. source: the part of the file with the tensors."""

    config: Any
    tensors: dict[str, torch.Tensor]
    source: str


def convert_upstream(path: Path, kind: Kind, unstored: Unstored | None = None, averaged: bool = True) -> Converted:
    """Read an upstream checkpoint of `kind`.

    averaged: read the averaged weights if the file has them, as upstream does for sampling. Upstream trains and samples
    its ControlNets on the raw weights of the U-Net: convert a U-Net for a ControlNet with averaged=False.
    Raises `MissingError` if the file does not exist, and `UserError` with the first tensors that are missing,
    surplus or of the wrong shape.
    """
    state, source = _tensors(path, averaged and kind != "vqgan")
    describe, build, upstream_name = _LAYOUTS[kind]
    try:
        config = describe(state, unstored or Unstored())
    except UserError as error:
        raise UserError(f"{path}: {str(error).removeprefix('checkpoint: ')}") from None
    except KeyError as error:
        raise UserError(f"{path}: missing tensor {error}; give a {kind} checkpoint of the authors' code") from None
    except (ValueError, IndexError) as error:  # a pydantic ValidationError is a ValueError
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise UserError(f"{path}: {reason}; no {kind} network has tensors of these shapes") from None
    with torch.device("meta"):
        expected = build(config).state_dict()
    tensors = renamed(state, expected, upstream_name, path, lambda name: UNUSED.search(name) is not None)
    return Converted(config, tensors, source)


def _tensors(path: Path, averaged: bool) -> tuple[State, str]:
    """The tensors of a checkpoint and the field that contains them."""
    found = read_checkpoint(path)
    return (found.shadow, "ema.shadow") if averaged and found.shadow else (found.model, found.source)


# ------------------------------------------------------------------------------------------- layouts of the networks
def unet_upstream_name(name: str) -> str:
    """The upstream name of a tensor of `UNet`. Upstream omits the SiLU before the last convolution."""
    name = name.replace(".attn.to_", ".to_").replace(".upsampler.postconv.", ".upsampler.conv.")
    return re.sub(r"^out\.2\.", "out.1.", name)


def controlnet_upstream_name(name: str) -> str:
    """The upstream name of a tensor of `ControlNet`."""
    return name.replace(".attn.to_", ".to_").replace(".out_proj.", ".to_out.0.")


def _describe_vqgan(state: State, unstored: Unstored) -> VQGANConfig:
    return vqgan_from_state(state)


def _describe_unet(state: State, unstored: Unstored) -> UNetConfig:
    levels = len({name.split(".")[1] for name in state if name.startswith("down_blocks.")})
    channels = tuple(state[f"down_blocks.{i}.resnets.0.conv1.conv.weight"].shape[0] for i in range(levels))
    if (like := unstored.like) is not None and like.channels == channels:
        return unet_from_state(state, like.num_head_channels, like.norm_num_groups)
    return unet_from_state(state, unstored.head_channels or (64 if levels == 3 else 32), unstored.norm_num_groups)


def _describe_controlnet(state: State, unstored: Unstored) -> ControlDescription:
    # The encoder of a ControlNet is that of a narrow U-Net; its projections have the channels of the full U-Net.
    narrow = _describe_unet(state, unstored)
    step = narrow.num_res_blocks + 1
    wide = [state[f"controlnet_down_blocks.{1 + step * i}.weight"].shape[0] for i in range(len(narrow.channels))]
    first = state["controlnet_cond_embedding.conv_in.conv.weight"]
    embedding = [first.shape[0]]
    while (name := f"controlnet_cond_embedding.blocks.{2 * len(embedding) - 1}.conv.weight") in state:
        embedding.append(state[name].shape[0])
    net = ControlUNetConfig(
        ratio=narrow.channels[0] / wide[0],
        norm_num_groups=unstored.norm_num_groups,
        embedding_channels=tuple(embedding),
        initial_stride=_mask_stride(unstored, len(embedding)),
        with_conditioning="middle_block.attention.proj_in.conv.weight" in state,
    )
    unet = UNetConfig.model_validate({**narrow.model_dump(), "channels": tuple(wide)})
    return ControlDescription(net, unet, first.shape[1])


def _mask_stride(unstored: Unstored, entries: int) -> Literal[1, 2]:
    """The first stride of a mask embedding with `entries` entries. Each entry after the first halves the mask."""
    if unstored.downsampling is None:
        return unstored.mask_stride
    for stride in (1, 2):
        if stride * 2 ** (entries - 1) == unstored.downsampling:
            return 1 if stride == 1 else 2
    raise ValueError(
        f"a mask embedding of {entries} entries ends at 1/{2 ** (entries - 1)} or 1/{2**entries} of the mask, "
        f"the autoencoder's latents are at 1/{unstored.downsampling}"
    )


def _build_controlnet(described: ControlDescription) -> nn.Module:
    return build_controlnet(described.net, described.unet, described.masks, described.net.downsampling, "meta")


def _build_unet(config: UNetConfig) -> nn.Module:
    return build_unet(config, "meta")


_LAYOUTS: Mapping[Kind, tuple[Callable[..., Any], Callable[..., nn.Module], Callable[[str], str]]] = {
    "vqgan": (_describe_vqgan, VQGAN, str),
    "ldm": (_describe_unet, _build_unet, unet_upstream_name),
    "controlnet": (_describe_controlnet, _build_controlnet, controlnet_upstream_name),
}
