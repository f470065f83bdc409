"""VQ-Trans's presets and variants, as data; each departure from the paper is noted at the preset.

The paper states (section 2.2): a VQ-GAN with a downsampling factor of 16, so that a sequence has 12,544 tokens; a
transformer that predicts them one by one; fits 24 GB. 12,544 = 28 x 28 x 16 corresponds to a volume of 448x448x256;
512x512x256 would give 16,384. The paper does not state how volumes are fitted. All other settings are the reference
code's (marksgraham/transformer-ood, by the authors that the paper cites), or ours where its data differ in kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medlord_bench.nn.vqgan.config import SMOKE as SMOKE_VQGAN
from medlord_bench.nn.vqgan.config import TINY as TINY_VQGAN

from .configs import VQGAN_16X

# The paper's model: there is no other preset for it. Settings that the paper does not state: volumes are resized to
# 448x448x256 (`fit`) and samples back; patches of 128 cubed and their 250,000 steps are those that the paper gives for
# MedLoRD's VQ-GAN; 2,048 codes are the reference's README's, their 32 channels its code's; 100,000 steps of the
# transformer are ours, the best on the validation split is published. Departures from the reference: AdamW instead of
# Adam; averaged weights; a squeezenet instead of an alexnet in the perceptual loss, instance norm in the discriminator;
# no cold start of the codebook, and rarely used codes are moved onto data. Mixed precision and recomputed activations
# of the autoencoder are for memory. No tiles: with such a deep encoder each would read most of the volume.
FITTED: Mapping[str, Any] = {
    "grid": (448, 448, 256),
    "fit": "resize",
    "autoencoder": {
        "net": VQGAN_16X.model_dump(mode="json"),
        "patch": (128, 128, 128),
        "batch": 4,
        "micro_batch": 4,
        "steps": 250_000,
        "lr_g": 1e-4,
        "lr_d": 5e-4,
        "perceptual": 0.001,
        "adversarial": 0.01,
    },
    "tokens": {"precision": "fp16"},
    "transformer": {"net": {"dim": 256, "depth": 22, "heads": 8}, "batch": 4, "micro_batch": 4, "steps": 100_000},
    "sampling": {"precision": "fp16"},
}

# The whole model in minutes on two cores, for grids of about 64 voxels a side. Departures: the protocol's own grid,
# downsampled 8 times (16 would leave 48 tokens of a phantom), a codebook of 64 x 8 (more codes reconstruct better, but
# two dozen volumes are too few to learn their order: with 512 the samples are incoherent), few channels and no
# residual units (with them latents stay near zero in such a short training), a transformer of 4 blocks, sampling at
# temperature 0.7, small patches, minutes of training, higher learning rates that decay, float32, and an autoencoder
# trained by L1 alone, as in MedLoRD's `tiny` (the perceptual loss's backbone would have to be downloaded). A learning
# rate of 3e-3, or one of 1.5e-3 with residual units, made its codebook collapse.
TINY: Mapping[str, Any] = {
    "autoencoder": {
        **TINY_VQGAN,
        "net": {
            "channels": (16, 32, 64),
            "res_layers": 0,
            "codes": 64,
            "dim": 8,
            "commitment_cost": 0.1,
            "decay": 0.98,
            "restart_below": 0.05,
        },
        "steps": 4000,
        "optimiser": "adamw",
        "lr_g": 1e-3,
        "lr_cosine": 4000,
        "validate_every": 500,
        "checkpoint_every": 500,
    },
    "transformer": {
        "net": {"dim": 96, "depth": 4, "heads": 4},
        "batch": 4,
        "micro_batch": 4,
        "steps": 200,
        "lr": 1e-3,
        "lr_decay": 0.998,
        "ema_decay": 0.99,
        "precision": "fp32",
        "validate_every": 25,
        "checkpoint_every": 100,
    },
    "sampling": {"temperature": 0.7},
}

# Seconds: for the contract check and for tests. Learns nothing useful.
SMOKE: Mapping[str, Any] = {
    "autoencoder": {
        **SMOKE_VQGAN,
        "net": {**TINY["autoencoder"]["net"], "channels": (8, 8, 8), "codes": 32, "restart_below": 0.9},
    },
    "transformer": {
        **TINY["transformer"],
        "net": {"dim": 32, "depth": 2, "heads": 2},
        "batch": 2,
        "micro_batch": 1,
        "steps": 6,
        "validate_every": 3,
        "checkpoint_every": 2,
    },
}

PRESETS: Mapping[str, Mapping[str, Any]] = {"24gb": FITTED, "tiny": TINY, "smoke": SMOKE}

# untrained: the initial weights, a baseline that any training must exceed.
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "untrained": {"autoencoder": {"steps": 0}, "transformer": {"steps": 0}},
}
