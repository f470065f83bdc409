"""The denoising 3D U-Net: MONAI's blocks with selectable attention kernel and checkpointing per level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.networks.nets.diffusion_model_unet import DiffusionModelUNet, get_timestep_embedding
from torch import nn

from medlord_bench.contracts import Shape
from medlord_bench.errors import UserError
from medlord_bench.nn.attention import resolve, set_kernel
from medlord_bench.nn.diffusion.control import Residuals
from medlord_bench.nn.recompute import run_checkpointed

from .configs import UNETS, UNetConfig

__all__ = ["UNETS", "UNet", "UNetConfig", "build_unet", "check_latent_shape", "config_from_state"]


class UNet(DiffusionModelUNet):  # type: ignore[misc]
    """Maps noisy latents and timesteps to velocities. Parameters and their names are MONAI's."""

    def __init__(self, config: UNetConfig) -> None:
        # include_fc=False: the authors' attention has an output projection but never applies it.
        super().__init__(
            spatial_dims=3,
            in_channels=config.latent_channels,
            out_channels=config.latent_channels,
            num_res_blocks=config.num_res_blocks,
            channels=config.channels,
            attention_levels=config.attention_levels,
            num_head_channels=config.num_head_channels,
            norm_num_groups=config.norm_num_groups,
            include_fc=False,
            use_combined_linear=False,
        )
        self.config = config
        if config.final_act == "none":
            self.out[1] = nn.Identity()

    def forward(self, x: torch.Tensor, timesteps: torch.Tensor, residuals: Residuals | None = None) -> torch.Tensor:
        """x: latents (N, d, x, y, z); timesteps: int (N,). Returns the velocity, (N, d, x, y, z).

        residuals: of a ControlNet: one tensor to add to each skip connection, and one for the middle block's output.
        """
        embedded = self.time_embed(get_timestep_embedding(timesteps, self.block_out_channels[0]).to(x.dtype))
        h = self.conv_in(x)
        skips = [h]
        for block in self.down_blocks:
            h, states = self._level(block, h, embedded)
            skips.extend(states)
        h = self._level(self.middle_block, h, embedded)
        if residuals is not None:
            skips = [skip + extra for skip, extra in zip(skips, residuals[0], strict=True)]
            h = h + residuals[1]
        for block in self.up_blocks:
            first = len(skips) - len(block.resnets)
            h = self._level(block, h, skips[first:], embedded)
            skips = skips[:first]
        return self.out(h)

    def _level(self, block: nn.Module, *inputs: Any) -> Any:
        if self.config.checkpointing and torch.is_grad_enabled():
            return run_checkpointed(block, *inputs)
        return block(*inputs)


def build_unet(config: UNetConfig, device: str | torch.device = "cpu") -> UNet:
    """A U-Net with initial weights on `device`. `config.attention` selects the attention kernel for that device.

    Raises `MissingError` if that kernel is not available.
    """
    kernel = resolve(config.attention, device)
    net = UNet(config)
    set_kernel(net, kernel)
    return net.to(device)


def check_latent_shape(config: UNetConfig, shape: Shape) -> None:
    """Raise `UserError` if latents of `shape` (x, y, z) do not fit the levels of the U-Net."""
    if any(side % config.divisor for side in shape):
        raise UserError(
            f"net.channels: {len(config.channels)} levels need latent sides that are multiples of {config.divisor}, "
            f"the latents are {shape}; use fewer levels or another grid"
        )


def config_from_state(
    state: Mapping[str, torch.Tensor],
    head_channels: int | Sequence[int],
    norm_num_groups: int = 32,
    final_act: str = "none",
) -> UNetConfig:
    """The architecture of a `UNet` state dict.

    The tensors do not determine heads, norm groups and the last activation; the caller provides them. head_channels: of
    each level, or one number for all levels with attention.
    Raises KeyError if a tensor that determines the architecture is missing.
    """
    levels = len({name.split(".")[1] for name in state if name.startswith("down_blocks.")})
    resnets = {name.split(".")[3] for name in state if name.startswith("down_blocks.0.resnets.")}
    attends = tuple(any(name.startswith(f"down_blocks.{i}.attentions.") for name in state) for i in range(levels))
    uses_heads = [*attends[:-1], True]
    per_level = [head_channels] * levels if isinstance(head_channels, int) else head_channels
    return UNetConfig(
        latent_channels=state["conv_in.conv.weight"].shape[1],
        channels=tuple(state[f"down_blocks.{i}.resnets.0.conv1.conv.weight"].shape[0] for i in range(levels)),
        num_res_blocks=len(resnets),
        attention_levels=attends,
        num_head_channels=tuple(heads if uses else 0 for heads, uses in zip(per_level, uses_heads, strict=True)),
        norm_num_groups=norm_num_groups,
        final_act=final_act,
    )
