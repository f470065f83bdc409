"""Configuration of HA-GAN. Does not import torch, so that listing plugins stays fast."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from medlord_bench.contracts import BUDGET, FrozenConfig, Precision, Shape
from medlord_bench.nn.stage_config import BatchConfig, CandidatesConfig

Positive = Annotated[int, Field(gt=0)]
STAGE = "gan"  # its one training stage
Part = Literal["generator", "slab_encoder", "latent_encoder"]  # the exported networks
MIN_CUBE_VOXELS = 32  # below, the high-resolution sub-volume has fewer than four slices


class NetConfig(FrozenConfig):
    """The architecture, for any cube of 4 * 2**n voxels per side; the authors use 128 and 256.

    channels: at the coarsest level, 4 voxels per side; determines every other width (authors: 512).
    latent: dimensions of the random vector of a volume.
    """

    size: int = 256
    channels: Positive = 512
    latent: Positive = 1024
    norm_num_groups: Positive = 8

    @model_validator(mode="after")
    def _shapes_fit(self) -> NetConfig:
        if self.size < MIN_CUBE_VOXELS or self.size & (self.size - 1):
            near = min((MIN_CUBE_VOXELS << n for n in range(6)), key=lambda side: abs(side - self.size))
            raise ValueError(
                f"size {self.size}: expected a power of two, at least {MIN_CUBE_VOXELS}; the nearest is {near}"
            )
        if self.channels % 32 or (self.channels // 32) % self.norm_num_groups:
            raise ValueError(
                f"channels {self.channels}: expected a multiple of 32 * norm_num_groups = {32 * self.norm_num_groups}"
            )
        return self

    @property
    def shape(self) -> Shape:
        """The shape of the cube, the same for every order of axes."""
        return self.size, self.size, self.size

    @property
    def thickness(self) -> int:
        """Slices of a high-resolution sub-volume: an eighth of the cube."""
        return self.size // 8

    @property
    def coarse(self) -> int:
        """Voxels per side of the features shared by both branches, and of the low-resolution volume."""
        return self.size // 4


class TrainingConfig(BatchConfig, CandidatesConfig):
    """How the networks are trained. Defaults: the authors' `train.py`, except `ema_decay` (they do not average
    weights).

    batch: volumes of a step, in parts of `micro_batch`: the same result except for rounding and the power iteration of
    the spectral norm, which runs once per part.
    lr, lr_d: of generator and encoders, and of the discriminator.
    ema_decay: of the averaged generator, which is exported; 0: the latest weights.
    selection: a GAN's losses say nothing about its samples, so there is no "best".
    """

    micro_batch: Positive = 4
    steps: Annotated[int, Field(ge=0), BUDGET] = 80_000
    lr: Annotated[float, Field(gt=0)] = 1e-4
    lr_d: Annotated[float, Field(gt=0)] = 4e-4
    betas: tuple[float, float] = (0.0, 0.999)
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    precision: Precision = "fp32"
    validate_every: Positive = 1_000
    checkpoint_every: Positive = 500
    selection: Literal["last", "fid"] = "last"
    candidate_every: Positive = 10_000


class SamplingConfig(FrozenConfig):
    """Sampling of volumes."""

    precision: Precision = "fp32"


class HAGANConfig(FrozenConfig):
    """The whole model. `presets.py` lists the departures of each preset from the paper."""

    net: NetConfig = NetConfig()
    training: TrainingConfig = TrainingConfig()
    sampling: SamplingConfig = SamplingConfig()
