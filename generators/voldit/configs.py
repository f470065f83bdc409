"""Configuration of VolDiT's stages; the core defines the autoencoder's. Without torch, so plugins are listed fast."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from medlord_bench.contracts import AttentionBackend, FrozenConfig, Selection
from medlord_bench.nn.diffusion.config import (
    DenoiserConfig,
    OptimisationConfig,
    Positive,
    Pretrained,
    Probability,
    SamplingConfig,
)
from medlord_bench.nn.vqgan.config import AutoencoderConfig, LatentsConfig

ControlNorm = Literal["before_gate", "upstream"]


class DiTConfig(FrozenConfig):
    """The denoising transformer (the authors' `dit.py`).

    patch: latent voxels of a token along each axis. dropout: after attention's projection and inside the MLP; attention
    weights have none, as with the authors' xformers kernel. attention: see `medlord_bench.nn.attention.resolve`.
    checkpointing: recompute each block's activations in the backward pass; same result, less memory.
    """

    latent_channels: Positive = 8
    patch: Positive = 2
    depth: Positive = 24
    hidden: Positive = 1152
    heads: Positive = 16
    mlp_ratio: Annotated[float, Field(gt=0)] = 4.0
    dropout: Probability = 0.1
    attention: AttentionBackend = "auto"
    checkpointing: bool = False

    @model_validator(mode="after")
    def _heads_fit(self) -> DiTConfig:
        if self.hidden % self.heads:
            raise ValueError(f"heads = {self.heads} does not divide hidden = {self.hidden}; choose a divisor")
        return self


# The sizes of the authors' configuration files (configs/transformer); each exists with patches of 2 and 4.
SIZES: Mapping[str, Mapping[str, Any]] = {
    "xs": {"depth": 6, "hidden": 384, "heads": 6},
    "s": {"depth": 12, "hidden": 384, "heads": 6},
    "b": {"depth": 12, "hidden": 768, "heads": 12},
    "l": {"depth": 24, "hidden": 1152, "heads": 16},
}


class TGCANetConfig(FrozenConfig):
    """The timestep-gated control adapter (the authors' `tgca.py`).

    channels: of the mask embedding; each entry after the first halves the mask's sides. If it does not end on the grid
    of the tokens, its output is resampled to that grid.
    scale: initial factor of each block. control_norm: "before_gate" normalises the embedded masks, then multiplies them
    by gate and scale. "upstream" normalises last, which cancels both factors.
    """

    channels: Annotated[tuple[Positive, ...], Field(min_length=2)] = (8, 16, 32, 64, 128)
    scale: float = 0.1
    control_norm: ControlNorm = "before_gate"

    @property
    def downsampling(self) -> int:
        """The factor by which the mask embedding reduces each side of the mask."""
        return int(2 ** (len(self.channels) - 1))


class DiffusionConfig(DenoiserConfig):
    """The unconditional stage."""

    net: DiTConfig = DiTConfig()
    loss: Literal["l1", "huber"] = "huber"
    ema_decay: Probability = 0.9999


class TGCAConfig(OptimisationConfig):
    """The conditional stage: the adapter is trained, the transformer is frozen and in evaluation mode.

    condition_dropout, channel_dropout: probability that a training item has no mask at all, and that it lacks each
    single mask. Both are drawn for every item; the authors draw them once a batch.
    """

    net: TGCANetConfig = TGCANetConfig()
    lr: Annotated[float, Field(gt=0)] = 5e-5
    loss: Literal["l1", "huber"] = "huber"
    ema_decay: Probability = 0.9999
    selection: Selection = "best"
    condition_dropout: Probability = 0.1
    channel_dropout: Probability = 0.1


class Published(Pretrained):
    """Published weights. autoencoder, diffusion: patterns, each of which must match one file of the repository."""

    licence: str


class VolDiTConfig(FrozenConfig):
    """The whole model. `presets.py` lists the departures of each preset from the authors' code."""

    autoencoder: AutoencoderConfig = AutoencoderConfig()
    latents: LatentsConfig = LatentsConfig(quantised=True)
    diffusion: DiffusionConfig = DiffusionConfig()
    tgca: TGCAConfig = TGCAConfig()
    sampling: SamplingConfig = SamplingConfig()
    pretrained: Published | None = None
