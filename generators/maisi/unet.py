"""MAISI's denoising U-Net and its ControlNet.

The networks and their parameter names are MONAI's. This module adds selectable attention kernels, recomputation of
activations per level, and the preparation of the conditions.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from monai.apps.generation.maisi.networks.controlnet_maisi import ControlNetMaisi
from monai.apps.generation.maisi.networks.diffusion_model_unet_maisi import DiffusionModelUNetMaisi
from torch import Tensor, nn

from medlord_bench.contracts import AttentionBackend
from medlord_bench.nn.attention import resolve, set_kernel
from medlord_bench.nn.diffusion.control import Residuals
from medlord_bench.nn.recompute import run_checkpointed

from .configs import REGIONS, DiffusionConfig, Levels, Schedule, UNetConfig

MODALITIES, CT = 128, 1  # number of classes of NV-Generate's rectified flow, and the class of CT
BITS = 8
CONDITION_SCALE = 100.0  # factor on spacing in mm and on one-hot regions before they enter the networks

Net = TypeVar("Net", bound=nn.Module)


def _common(net: UNetConfig, schedule: Schedule, latent_channels: int) -> dict[str, Any]:
    """Arguments shared by U-Net and ControlNet. NV-Generate has one architecture for each of the two schedules."""
    is_flow = schedule == "rflow"
    return {
        "spatial_dims": 3,
        "in_channels": latent_channels,
        "num_channels": net.channels,
        "attention_levels": net.attention_levels,
        "num_head_channels": net.num_head_channels,
        "num_res_blocks": net.num_res_blocks,
        "norm_num_groups": net.norm_num_groups,
        "num_class_embeds": MODALITIES if is_flow else None,
        "resblock_updown": is_flow,
        "include_fc": is_flow,
    }


class UNet(DiffusionModelUNetMaisi):  # type: ignore[misc]
    """Maps noisy latents, times and voxel sizes to the schedule's prediction target."""

    def __init__(self, config: DiffusionConfig, latent_channels: int) -> None:
        regions = config.schedule == "ddpm"
        super().__init__(
            **_common(config.net, config.schedule, latent_channels),
            out_channels=latent_channels,
            include_spacing_input=True,
            include_top_region_index_input=regions,
            include_bottom_region_index_input=regions,
        )
        self.config = config

    def forward(self, x: Tensor, times: Tensor, spacing: Tensor, residuals: Residuals | None = None) -> Tensor:
        """x: latents (N, C, x, y, z); times (N,); spacing: (N, 3) in mm. Returns a tensor shaped as x.

        residuals: of a ControlNet: one tensor to add to each skip connection, and one for the middle block's output.
        The last skip connection with its residual is also the middle block's input, as in MONAI's in-place addition.
        """
        embedded = self._embed(x, times, spacing)
        h = self.conv_in(x)
        skips = [h]
        for block in self.down_blocks:
            h, states = self._level(block, h, embedded)
            skips.extend(states)
        if residuals is not None:
            skips = [skip + extra for skip, extra in zip(skips, residuals[0], strict=True)]
            h = skips[-1]
        h = self._level(self.middle_block, h, embedded)
        if residuals is not None:
            h = h + residuals[1]
        for block in self.up_blocks:
            first = len(skips) - len(block.resnets)
            h = self._level(block, h, skips[first:], embedded)
            skips = skips[:first]
        out: Tensor = self.out(h)
        return out

    def _embed(self, x: Tensor, times: Tensor, spacing: Tensor) -> Tensor:
        embedded = self._get_time_and_class_embedding(x, times, modality(self, x))
        top, bottom = (self._region(name, x) for name in (self.config.top_region, self.config.bottom_region))
        out: Tensor = self._get_input_embeddings(embedded, top, bottom, spacing * CONDITION_SCALE)
        return out

    def _region(self, name: str, x: Tensor) -> Tensor:
        one_hot = torch.zeros(len(x), len(REGIONS), device=x.device)
        one_hot[:, REGIONS.index(name)] = CONDITION_SCALE
        return one_hot

    def _level(self, block: nn.Module, *inputs: Any) -> Any:
        if self.config.net.checkpointing and torch.is_grad_enabled():
            return run_checkpointed(block, *inputs)
        return block(*inputs)


def modality(net: Any, x: Tensor) -> Tensor | None:
    """The class of CT for each item of `x`, int64 (N,); None if the network has no classes."""
    if net.num_class_embeds is None:
        return None
    return torch.full((len(x),), CT, dtype=torch.long, device=x.device)


class ControlNet(ControlNetMaisi):  # type: ignore[misc]
    """Maps label bits, noisy latents and times to the residuals that `UNet` adds."""

    def __init__(self, config: DiffusionConfig, embedding_channels: Levels, latent_channels: int) -> None:
        super().__init__(
            **_common(config.net, config.schedule, latent_channels),
            conditioning_embedding_in_channels=BITS,
            conditioning_embedding_num_channels=embedding_channels,
        )
        self.num_class_embeds = MODALITIES if config.schedule == "rflow" else None
        self.config = config

    def embed(self, planes: Tensor) -> Tensor:
        """Bit planes, float (N, 8, X, Y, Z) -> embedding (N, c, x, y, z). Sampling computes it once for all steps."""
        if torch.is_grad_enabled():  # full-resolution activations need too much memory to keep
            return run_checkpointed(self.controlnet_cond_embedding, planes)
        out: Tensor = self.controlnet_cond_embedding(planes)
        return out

    def forward(self, x: Tensor, times: Tensor, embedded_labels: Tensor) -> Residuals:
        """x: latents (N, C, x, y, z); times (N,); embedded_labels: from `embed`, (N, c, x, y, z)."""
        embedded = self._prepare_time_and_class_embedding(x, times, modality(self, x))
        h = self.conv_in(x) + embedded_labels
        skips = [h]
        for block in self.down_blocks:
            h, states = self._level(block, h, embedded)
            skips.extend(states)
        h = self._level(self.middle_block, h, embedded)
        projected = [conv(skip) for conv, skip in zip(self.controlnet_down_blocks, skips, strict=True)]
        return projected, self.controlnet_mid_block(h)

    def _level(self, block: nn.Module, *inputs: Any) -> Any:
        if self.config.net.checkpointing and torch.is_grad_enabled():
            return run_checkpointed(block, *inputs)
        return block(*inputs)


def build_unet(config: DiffusionConfig, latent_channels: int, device: str | torch.device) -> UNet:
    """A U-Net with initial weights on `device`, with the attention kernel that the configuration selects there."""
    return _placed(UNet(config, latent_channels), config.net.attention, device)


def build_controlnet(
    config: DiffusionConfig, embedding_channels: Levels, latent_channels: int, device: str | torch.device
) -> ControlNet:
    """A ControlNet with initial weights for the U-Net of `config`."""
    return _placed(ControlNet(config, embedding_channels, latent_channels), config.net.attention, device)


def _placed(net: Net, attention: AttentionBackend, device: str | torch.device) -> Net:
    set_kernel(net, resolve(attention, device))
    return net.to(device)


@torch.no_grad()
def copy_encoder(source: UNet, target: ControlNet) -> int:
    """Copy the U-Net's encoder to the ControlNet, as NV-Generate does: every tensor of the same name and shape.

    Time projections differ in width, since only the U-Net reads the spacing. Returns the number of copied tensors.
    """
    theirs, count = source.state_dict(), 0
    for name, value in target.state_dict().items():
        if name in theirs and theirs[name].shape == value.shape:
            value.copy_(theirs[name])
            count += 1
    return count


def bit_planes(labels: Tensor) -> Tensor:
    """Label maps, uint8 (N, X, Y, Z) -> float (N, 8, X, Y, Z): plane b is bit b of the label, the lowest first."""
    bits = torch.tensor([1 << bit for bit in range(BITS)], dtype=torch.uint8, device=labels.device)
    # (N, 1, X, Y, Z) & (1, 8, 1, 1, 1) -> (N, 8, X, Y, Z)
    return (labels[:, None] & bits.view(1, BITS, 1, 1, 1)).ne(0).float()
