"""Configuration of VQ-Trans; its autoencoder's is in the core. Does not import torch, so that listing plugins stays
fast."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from medlord_bench.contracts import BUDGET, AttentionBackend, FrozenConfig, NotInKey, Precision, Selection, Shape
from medlord_bench.nn.stage_config import BatchConfig, LearningRateConfig
from medlord_bench.nn.vqgan.config import AutoencoderConfig, VQGANConfig

Positive = Annotated[int, Field(gt=0)]

# The reference code's network (marksgraham/transformer-ood, src/trainers/vqvae.py: four levels, so 16 times), with the
# codebook of 2,048 of its README; the code has 256.
VQGAN_16X = VQGANConfig(
    channels=(128, 128, 128, 256), res_layers=3, codes=2048, dim=32, decay=0.99, restart_below=0.05, checkpointing=True
)


class TransformerNetConfig(FrozenConfig):
    """The decoder-only transformer; defaults are the reference code's.

    attention: see `medlord_bench.nn.attention.resolve`.
    checkpointing: recompute each block's activations in the backward pass; same result, less memory.
    """

    dim: Positive = 256
    depth: Positive = 22
    heads: Positive = 8
    attention: AttentionBackend = "auto"
    checkpointing: bool = False

    @model_validator(mode="after")
    def _heads_fit(self) -> TransformerNetConfig:
        if self.dim % self.heads:
            raise ValueError(f"dim = {self.dim} is not a multiple of heads = {self.heads}")
        return self


class TransformerConfig(BatchConfig, LearningRateConfig):
    """How the transformer is trained: mean cross-entropy of the next token, over whole sequences.

    ema_decay: of the averaged weights, which are validated, exported and sampled.
    loss_chunk: tokens whose logits are in memory at once; the same result except for rounding.
    """

    net: TransformerNetConfig = TransformerNetConfig()
    micro_batch: Positive = 4
    steps: Annotated[int, Field(ge=0), BUDGET] = 100_000
    lr: Annotated[float, Field(gt=0)] = 1e-4
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    clip: Annotated[float, Field(gt=0)] = 1.0
    precision: Precision = "fp16"
    loss_chunk: Positive = 2048
    validate_every: Positive = 1_000
    checkpoint_every: Positive = 1_000
    selection: Selection = "best"


class TokensConfig(FrozenConfig):
    """Encoding the cohort into code indices."""

    precision: Precision = "fp32"
    tile: Shape | None = Field(None, description="encode in boxes of this many voxels; same result, less memory")


class SamplingConfig(FrozenConfig):
    """Sampling of volumes.

    top_k, top_p: sample among the k most likely codes, and among the fewest with this total probability; None: all.
    tokens_precision: of the transformer. Rounding decides between two codes that are almost equally likely, and all
    following tokens then differ: in float32 a sequence of 12,544 tokens sometimes depends on its batch.
    precision, tile: of the autoencoder.
    """

    temperature: Annotated[float, Field(gt=0)] = 1.0
    top_k: Positive | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    tokens_precision: Literal["fp64", "fp32"] = "fp64"
    precision: Precision = "fp32"
    tile: Annotated[Shape | None, NotInKey("tiled decoding is equal to untiled")] = None


class VQTransConfig(FrozenConfig):
    """The whole model. `presets.py` lists the departures of each preset from the paper.

    grid: the model's own grid; None for the protocol's.
    fit: fit mode from the protocol's grid to the model's and back: "resize" keeps the field of view, "crop-pad" keeps
    the central voxels and fills the outside with air.
    """

    grid: Shape | None = None
    fit: Literal["resize", "crop-pad"] = "resize"
    autoencoder: AutoencoderConfig = AutoencoderConfig(
        net=VQGAN_16X,
        batch=4,
        micro_batch=4,
        lr_g=1e-4,
        lr_d=5e-4,
        perceptual=0.001,
        adversarial=0.01,
    )
    tokens: TokensConfig = TokensConfig()
    transformer: TransformerConfig = TransformerConfig()
    sampling: SamplingConfig = SamplingConfig()

    def native(self, shape: Shape) -> Shape:
        """The model's grid for the protocol's grid `shape`."""
        return self.grid or shape
