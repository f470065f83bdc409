"""Settings of latent diffusion on a VQ-GAN that several generators share. Without torch, so plugins are listed fast."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from medlord_bench.contracts import (
    BUDGET,
    AttentionBackend,
    FrozenConfig,
    HUWindow,
    NotInKey,
    Precision,
    Shape,
)
from medlord_bench.nn.stage_config import BatchConfig, CandidatesConfig, LearningRateConfig

Positive = Annotated[int, Field(gt=0)]
Probability = Annotated[float, Field(ge=0, lt=1)]

# "independent": each item of a batch has a time of its own. "stratified": one random number places a grid of `batch`
# evenly spaced times (Kingma et al. 2021, appendix I.1). The time of an item has the same distribution, but every batch
# covers all noise levels, so the gradient varies less from step to step.
Times = Literal["independent", "stratified"]


class OptimisationConfig(BatchConfig, LearningRateConfig):
    """Training of a diffusion stage.

    ema_decay: decay of the averaged weights, which are validated, exported and sampled.
    loss: "l1" (paper, section 2.2) or "huber" (the authors' code, beta 1), on the velocity.
    times: how the noise levels of a batch are drawn, see `Times`; the authors: "independent".
    """

    weight_decay: ClassVar[float] = 0.01  # AdamW's default

    steps: Annotated[int, Field(ge=0), BUDGET] = 750_000
    lr: Annotated[float, Field(gt=0)] = 1e-4
    ema_decay: Probability = 0.999
    clip: Annotated[float, Field(gt=0)] = 1.0
    precision: Precision = "fp16"
    loss: Literal["l1", "huber"] = "l1"
    times: Times = "independent"
    validate_every: Positive = 5_000
    checkpoint_every: Positive = 1_000


class DenoiserConfig(OptimisationConfig, CandidatesConfig):
    """The unconditional stage. timesteps: T of the cosine schedule (MedLoRD's paper: 300).

    selection: MedLoRD's paper (A.1) selected by FID on its test split.
    """

    timesteps: Annotated[int, Field(ge=2)] = 300


class SamplingConfig(FrozenConfig):
    """Sampling and reconstruction."""

    steps: int | None = Field(None, ge=1, description="None: all T by DDPM; fewer: DDIM")
    eta: float = Field(0.0, ge=0, le=1, description="fresh noise in fewer steps; 0: DDIM; 1: as much as DDPM's")
    precision: Precision = "fp32"
    attention: AttentionBackend | None = Field(None, description="None: as trained")
    tile: Annotated[Shape | None, NotInKey("tiled encoding and decoding are equal to untiled")] = Field(
        None, description="encode and decode in boxes of this many voxels; same result"
    )


class Pretrained(FrozenConfig):
    """Published weights instead of training. hu_window: the HU range that they map to [-1, 1]."""

    repository: str
    autoencoder: str
    diffusion: str
    hu_window: HUWindow
    trained_on: Annotated[tuple[str, ...], NotInKey("it names data sets for the reader of a table")] = Field(
        (), description="data sets that the weights were trained on"
    )
