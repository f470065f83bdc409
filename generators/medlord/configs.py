"""Configuration of MedLoRD's stages; the core defines the autoencoder's. Without torch, so plugins are listed fast."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from medlord_bench.contracts import AttentionBackend, FrozenConfig, Selection
from medlord_bench.nn.diffusion.config import DenoiserConfig, OptimisationConfig, Pretrained, SamplingConfig
from medlord_bench.nn.vqgan.config import AutoencoderConfig, LatentsConfig

Positive = Annotated[int, Field(gt=0)]
Probability = Annotated[float, Field(ge=0, lt=1)]
Levels = Annotated[tuple[Positive, ...], Field(min_length=1)]


class UNetConfig(FrozenConfig):
    """The denoising 3D U-Net (paper, section 2.2). Each tuple has one entry per resolution level.

    num_head_channels: channels per attention head; 0 for a level without attention. The middle block always has
    attention with the heads of the last level, so the last entry must not be 0.
    attention: see `medlord_bench.nn.attention.resolve`.
    checkpointing: recompute each level's activations in the backward pass; same result, less memory.
    final_act: activation before the last convolution. "none" is the network that the authors train and publish; "silu"
    is MONAI's.
    """

    latent_channels: Positive = 8
    channels: Levels = (64, 128, 256, 512)
    num_res_blocks: Positive = 2
    attention_levels: tuple[bool, ...] = (False, False, True, True)
    num_head_channels: tuple[Annotated[int, Field(ge=0)], ...] = (0, 0, 32, 32)
    norm_num_groups: Positive = 32
    attention: AttentionBackend = "auto"
    checkpointing: bool = False
    final_act: Literal["none", "silu"] = "none"

    @model_validator(mode="after")
    def _levels_fit(self) -> UNetConfig:
        levels = len(self.channels)
        for name in ("attention_levels", "num_head_channels"):
            if len(getattr(self, name)) != levels:
                raise ValueError(f"{name} has {len(getattr(self, name))} entries, channels has {levels}: give as many")
        for level, channels in enumerate(self.channels):
            if channels % self.norm_num_groups:
                raise ValueError(f"channels[{level}] = {channels} is not a multiple of norm_num_groups")
            heads = self.num_head_channels[level]
            if self.attends(level) and (heads == 0 or channels % heads):
                raise ValueError(f"num_head_channels[{level}] = {heads} does not divide channels[{level}] = {channels}")
        return self

    def attends(self, level: int) -> bool:
        """Whether an attention block uses the heads of `level`."""
        return self.attention_levels[level] or level == len(self.channels) - 1

    @property
    def divisor(self) -> int:
        """The number of which each latent side must be a multiple."""
        return int(2 ** (len(self.channels) - 1))


# The networks of the authors' configuration files (medlord.yaml; medlord_3level_300.yaml), and small ones for CPUs.
UNETS: Mapping[str, Mapping[str, Any]] = {
    "medlord": {
        "channels": (64, 128, 256, 512),
        "num_res_blocks": 2,
        "attention_levels": (False, False, True, True),
        "num_head_channels": (0, 0, 32, 32),
    },
    "3level": {
        "channels": (128, 256, 512),
        "num_res_blocks": 3,
        "attention_levels": (False, False, True),
        "num_head_channels": (0, 0, 64),
    },
    "tiny": {
        "channels": (16, 32, 64),
        "num_res_blocks": 1,
        "attention_levels": (False, False, True),
        "num_head_channels": (0, 0, 32),
        "norm_num_groups": 16,
    },
    "smoke": {
        "channels": (32, 64),
        "num_res_blocks": 1,
        "attention_levels": (False, True),
        "num_head_channels": (0, 32),
        "norm_num_groups": 16,
    },
}


class ControlUNetConfig(FrozenConfig):
    """The ControlNet of a `UNetConfig` (paper, section 2.3): same levels, `ratio` times as many channels.

    embedding_channels, initial_stride: the mask embedding. Its first convolution divides the mask's sides by
    `initial_stride`, and each entry after the first halves them. The product must be the autoencoder's downsampling
    factor.
    with_conditioning: True: each attention block has two self-attentions and a feed-forward layer, as the authors'
    configuration yields. False: one self-attention, as in the U-Net.
    """

    ratio: Annotated[float, Field(gt=0, le=1)] = 0.5
    norm_num_groups: Positive = 32
    embedding_channels: Levels = (32, 64)
    initial_stride: Literal[1, 2] = 2
    with_conditioning: bool = True

    @property
    def downsampling(self) -> int:
        """The factor by which the mask embedding reduces each side of the mask."""
        return self.initial_stride * int(2 ** (len(self.embedding_channels) - 1))


class DiffusionConfig(DenoiserConfig):
    """The unconditional latent diffusion stage."""

    net: UNetConfig = UNetConfig()


class ControlNetConfig(OptimisationConfig):
    """The ControlNet stage. condition_dropout: probability that a training item has no condition."""

    selection: Selection = "best"
    net: ControlUNetConfig = ControlUNetConfig()
    batch: Positive = 1
    lr: Annotated[float, Field(gt=0)] = 7.5e-5
    condition_dropout: Probability = 0.1


class MedLoRDConfig(FrozenConfig):
    """The whole model. `presets.py` lists the departures of each preset from the paper."""

    autoencoder: AutoencoderConfig = AutoencoderConfig()
    latents: LatentsConfig = LatentsConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    controlnet: ControlNetConfig = ControlNetConfig()
    sampling: SamplingConfig = SamplingConfig()
    pretrained: Pretrained | None = None
