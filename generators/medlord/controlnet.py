"""The ControlNet: a narrow version of the U-Net's encoder. It reads masks and adds to the U-Net's skip connections."""

from __future__ import annotations

import math
from typing import Any

import torch
from monai.networks.blocks import Convolution
from monai.networks.nets.diffusion_model_unet import get_down_block, get_mid_block, get_timestep_embedding
from torch import nn
from torch.nn import functional

from medlord_bench.errors import UserError
from medlord_bench.nn.attention import resolve, set_kernel
from medlord_bench.nn.diffusion.control import Residuals
from medlord_bench.nn.recompute import run_checkpointed

from .configs import ControlUNetConfig, UNetConfig

__all__ = ["ControlNet", "ControlUNetConfig", "build_controlnet", "control_channels"]


def control_channels(ratio: float, unet: UNetConfig, norm_num_groups: int) -> tuple[int, ...]:
    """The ControlNet's channels: ratio * c for each level of the U-Net.

    Raises `UserError` with the nearest valid ratio if a product is not a whole number of norm groups and of attention
    heads.
    """
    if not _divides(ratio, unet, norm_num_groups):
        unit = norm_num_groups / math.gcd(*unet.channels)  # ratios that keep groups whole are multiples of this
        valid = [r for m in range(1, int(1 / unit) + 1) if _divides(r := m * unit, unet, norm_num_groups)]
        if not valid:
            advice = f"no ratio up to 1 is valid; use fewer than {norm_num_groups} norm groups"
        else:
            advice = f"the nearest valid ratio is {min(valid, key=lambda r: abs(r - ratio)):g}"
        raise UserError(
            f"controlnet ratio {ratio:g}: {ratio:g} * {unet.channels} must be multiples of {norm_num_groups} "
            f"norm groups and of the attention heads' channels; {advice}"
        )
    return tuple(round(ratio * channels) for channels in unet.channels)


def _divides(ratio: float, unet: UNetConfig, groups: int) -> bool:
    for level, channels in enumerate(unet.channels):
        unit = math.lcm(groups, unet.num_head_channels[level]) if unet.attends(level) else groups
        share = ratio * channels / unit
        if share < 0.5 or abs(share - round(share)) > 1e-9:
            return False
    return True


def _conv(inputs: int, outputs: int, stride: int = 1) -> Convolution:
    return Convolution(3, inputs, outputs, strides=stride, kernel_size=3, padding=1, conv_only=True)


def _zero_conv(inputs: int, outputs: int, kernel: int) -> nn.Conv3d:
    """A convolution with zero initial weights, so that training starts from the unchanged U-Net (Zhang et al. 2023)."""
    conv = nn.Conv3d(inputs, outputs, kernel, padding=kernel // 2)
    for parameter in conv.parameters():
        nn.init.zeros_(parameter)
    return conv


class MaskEmbedding(nn.Module):
    """Strided convolutions: one-hot masks (N, K, X, Y, Z) -> (N, c, x, y, z) at the latents' resolution."""

    def __init__(self, masks: int, out_channels: int, channels: tuple[int, ...], initial_stride: int) -> None:
        super().__init__()
        self.conv_in = _conv(masks, channels[0], initial_stride)
        self.blocks = nn.ModuleList()
        for fine, coarse in zip(channels, channels[1:], strict=False):
            self.blocks.extend([_conv(fine, fine), _conv(fine, coarse, 2)])
        self.conv_out = _zero_conv(channels[-1], out_channels, 3)

    def forward(self, masks: torch.Tensor) -> torch.Tensor:
        h = functional.silu(self.conv_in(masks))
        for block in self.blocks:
            h = functional.silu(block(h))
        return self.conv_out(h)


class ControlNet(nn.Module):
    """Maps masks, noisy latents and timesteps to the residuals that `UNet` adds."""

    def __init__(self, config: ControlUNetConfig, unet: UNetConfig, masks: int) -> None:
        super().__init__()
        self.config, self.checkpointing = config, unet.checkpointing
        narrow = control_channels(config.ratio, unet, config.norm_num_groups)
        time_channels = 4 * narrow[0]
        self.conv_in = _conv(unet.latent_channels, narrow[0])
        self.time_embed = nn.Sequential(
            nn.Linear(narrow[0], time_channels), nn.SiLU(), nn.Linear(time_channels, time_channels)
        )
        self.controlnet_cond_embedding = MaskEmbedding(
            masks, narrow[0], config.embedding_channels, config.initial_stride
        )
        self.down_blocks = nn.ModuleList()
        self.controlnet_down_blocks = nn.ModuleList([_zero_conv(narrow[0], unet.channels[0], 1)])
        for level, channels in enumerate(narrow):
            before = narrow[max(level - 1, 0)]
            self.down_blocks.append(_down_block(config, unet, level, before, channels, time_channels))
            is_last = level == len(narrow) - 1
            for _ in range(unet.num_res_blocks + (not is_last)):  # one per residual block, and one for the downsampling
                self.controlnet_down_blocks.append(_zero_conv(channels, unet.channels[level], 1))
        self.middle_block = _mid_block(config, unet, narrow[-1], time_channels)
        self.controlnet_mid_block = _zero_conv(narrow[-1], unet.channels[-1], 1)

    def embed(self, masks: torch.Tensor) -> torch.Tensor:
        """Masks, float (N, K, X, Y, Z) -> embedding (N, c, x, y, z). Sampling computes it once for all steps."""
        return self.controlnet_cond_embedding(masks)

    def forward(self, x: torch.Tensor, timesteps: torch.Tensor, embedded_masks: torch.Tensor) -> Residuals:
        """x: latents (N, d, x, y, z); timesteps: int (N,); embedded_masks: from `embed`, (N, c, x, y, z)."""
        first = self.time_embed[0].in_features
        time = self.time_embed(get_timestep_embedding(timesteps, first).to(x.dtype))
        h = self.conv_in(x) + embedded_masks
        skips = [h]
        for block in self.down_blocks:
            h, states = self._level(block, h, time)
            skips.extend(states)
        h = self._level(self.middle_block, h, time)
        projected = [conv(skip) for conv, skip in zip(self.controlnet_down_blocks, skips, strict=True)]
        return projected, self.controlnet_mid_block(h)

    def _level(self, block: nn.Module, *inputs: Any) -> Any:
        if self.checkpointing and torch.is_grad_enabled():
            return run_checkpointed(block, *inputs)
        return block(*inputs)


def _down_block(
    config: ControlUNetConfig, unet: UNetConfig, level: int, inputs: int, outputs: int, time_channels: int
) -> nn.Module:
    attends = unet.attention_levels[level]
    return get_down_block(
        spatial_dims=3,
        in_channels=inputs,
        out_channels=outputs,
        temb_channels=time_channels,
        num_res_blocks=unet.num_res_blocks,
        norm_num_groups=config.norm_num_groups,
        norm_eps=1e-6,
        add_downsample=level < len(unet.channels) - 1,
        resblock_updown=False,
        with_attn=attends and not config.with_conditioning,
        with_cross_attn=attends and config.with_conditioning,
        num_head_channels=unet.num_head_channels[level],
        transformer_num_layers=1,
        cross_attention_dim=None,  # without text or class the "cross" attention attends to its own input
        include_fc=config.with_conditioning,  # the authors' plain attention does not apply its output projection
    )


def _mid_block(config: ControlUNetConfig, unet: UNetConfig, channels: int, time_channels: int) -> nn.Module:
    return get_mid_block(
        spatial_dims=3,
        in_channels=channels,
        temb_channels=time_channels,
        norm_num_groups=config.norm_num_groups,
        norm_eps=1e-6,
        with_conditioning=config.with_conditioning,
        num_head_channels=unet.num_head_channels[-1],
        transformer_num_layers=1,
        cross_attention_dim=None,
        include_fc=config.with_conditioning,
    )


def build_controlnet(
    config: ControlUNetConfig, unet: UNetConfig, masks: int, downsampling: int, device: str | torch.device = "cpu"
) -> ControlNet:
    """A ControlNet with initial weights for `unet` on `device`, conditioned on `masks` regions.

    downsampling: the autoencoder's factor, e.g. 4 or 8. Raises `UserError` if the mask embedding does not end at the
    latents' resolution, or if the ratio does not fit the norm groups.
    """
    if config.downsampling != downsampling:
        raise UserError(
            f"controlnet initial_stride {config.initial_stride} with embedding_channels {config.embedding_channels} "
            f"reduces masks to 1/{config.downsampling}, the latents are at 1/{downsampling}; {_advice(downsampling)}"
        )
    net = ControlNet(config, unet, masks)
    set_kernel(net, resolve(unet.attention, device))
    return net.to(device)


def _advice(downsampling: int) -> str:
    entries = round(math.log2(downsampling))
    if 2**entries != downsampling or entries < 1:
        return "the autoencoder's factor must be a power of two"
    return f"use {entries} embedding_channels with initial_stride 2, or {entries + 1} with initial_stride 1"
