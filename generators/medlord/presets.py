"""MedLoRD's presets and variants. Each preset lists its departures from the paper.

The paper states (sections 2, A.1): codebook 16,384 x 8; patches 128x128x128 (PCCTA) and 128x128x64 (LUNA) for
250,000 iterations; otherwise 750,000 iterations; cosine schedule with T = 300, L1 loss, AdamW; ControlNet of half the
channels, trained from scratch; no augmentation. Everything else (channels, learning rates, batch, EMA, loss weights)
is taken from the authors' configuration files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medlord_bench.nn.vqgan.config import PRESETS as VQGANS
from medlord_bench.nn.vqgan.config import SMOKE as SMOKE_VQGAN
from medlord_bench.nn.vqgan.config import TINY as TINY_VQGAN

from .configs import UNETS

DS4 = VQGANS["ds4"].model_dump(mode="json")
DS8 = VQGANS["ds8"].model_dump(mode="json")
UNET = dict(UNETS["medlord"])

# Departures from the paper: checkpoints are selected by validation loss, whereas the paper selected the epoch by FID on
# the test split and by visual inspection. The autoencoder is ds4 (the paper does not say which; the authors' code has
# ds4 and ds8). Rarely used codes are restarted from data: in a small network (512 codes, one seed) the codebook
# collapsed without restarts.
PAPER_PCCTA: Mapping[str, Any] = {
    "autoencoder": {
        "net": {**DS4, "restart_below": 0.05},
        "patch": (128, 128, 128),
        "batch": 2,
        "micro_batch": 2,
        "steps": 250_000,
    },
    "latents": {"precision": "fp16"},
    "diffusion": {"net": UNET, "batch": 4, "micro_batch": 4, "steps": 750_000, "timesteps": 300},
    "controlnet": {"batch": 1, "micro_batch": 1, "steps": 750_000},
    "sampling": {"precision": "fp16"},
}

# Departures: as above. The patch is the one of the paper for LUNA.
PAPER_LUNA: Mapping[str, Any] = {
    **PAPER_PCCTA,
    "autoencoder": {**PAPER_PCCTA["autoencoder"], "patch": (128, 128, 64)},
}

# The same model and effective batch with micro-batches of one and recomputed activations. Every stage fits a GPU of
# 24 GB by the rule of `medlord-bench memory` (predicted; not yet run on one). Results differ by rounding only. Encoding
# and decoding are tiled, with results equal to untiled.
FITTED: Mapping[str, Any] = {
    "autoencoder": {
        **PAPER_PCCTA["autoencoder"],
        "net": {**PAPER_PCCTA["autoencoder"]["net"], "checkpointing": True},
        "micro_batch": 1,
    },
    "latents": {"precision": "fp16", "tile": (256, 256, 128)},
    "diffusion": {**PAPER_PCCTA["diffusion"], "net": {**UNET, "checkpointing": True}, "micro_batch": 1},
    "controlnet": PAPER_PCCTA["controlnet"],
    "sampling": {"precision": "fp16", "tile": (256, 256, 128)},
}

# The authors' published weights for LUNA (VQ-GAN and U-Net; no ControlNet is published). They contain no configuration.
# The architecture is derived from the tensors' shapes. T = 300 is assumed: the repository has files for 300 and 1000.
# [-1, 1] is assumed to be -1000..1000 HU, as the authors' sampler writes it. The latent scale is measured on the user's
# training latents unless generator.latents.scale is set.
RELEASED_LUNA: Mapping[str, Any] = {
    "autoencoder": {"net": DS8, "steps": 0},
    "latents": {"precision": "fp16", "tile": (256, 256, 128)},
    "diffusion": {"net": UNET, "steps": 0, "timesteps": 300},
    "sampling": {"precision": "fp16", "tile": (256, 256, 128)},
    "pretrained": {
        "repository": "AICM-HD/medlord",
        "autoencoder": "vqgan_luna_ds8.pth",
        "diffusion": "ldm_luna_ds8.pth",
        "hu_window": (-1000, 1000),
        "trained_on": ("luna16",),
    },
}

# The three stages in minutes on two cores, for grids of about 64 voxels per side. Departures: those of the autoencoder (see
# `nn.vqgan.config`), few channels, minutes of training, Muon at higher learning rates along a cosine, stratified times,
# sampling in 50 of the 300 steps with fresh noise, and float32.
TINY: Mapping[str, Any] = {
    "autoencoder": TINY_VQGAN,
    "diffusion": {
        "net": dict(UNETS["tiny"]),
        "timesteps": 300,
        "batch": 2,
        "steps": 1500,
        "optimiser": "muon",
        "lr": 8e-3,
        "lr_warmup": 100,
        "lr_cosine": 1500,
        "times": "stratified",
        "ema_decay": 0.99,
        "precision": "fp32",
        "validate_every": 375,
        "checkpoint_every": 200,
    },
    "controlnet": {
        "net": {"norm_num_groups": 8, "embedding_channels": (8, 16), "initial_stride": 2, "with_conditioning": False},
        "batch": 2,
        "steps": 450,
        "optimiser": "muon",
        "lr": 4e-3,
        "lr_warmup": 20,
        "lr_cosine": 450,
        "times": "stratified",
        "ema_decay": 0.99,
        "precision": "fp32",
        "validate_every": 150,
        "checkpoint_every": 150,
    },
    "sampling": {"steps": 50, "eta": 1.0},
}

# Runs in seconds, for the contract check and tests. Its samples are not meaningful.
SMOKE: Mapping[str, Any] = {
    "autoencoder": SMOKE_VQGAN,
    "diffusion": {
        **TINY["diffusion"],
        "net": dict(UNETS["smoke"]),
        "timesteps": 10,
        "batch": 2,
        "steps": 6,
        "validate_every": 3,
        "checkpoint_every": 2,
    },
    "controlnet": {**TINY["controlnet"], "batch": 2, "steps": 4, "validate_every": 2, "checkpoint_every": 2},
    "sampling": {"steps": 3},
}

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "paper-pccta": PAPER_PCCTA,
    "paper-luna": PAPER_LUNA,
    "24gb": FITTED,
    "released-luna": RELEASED_LUNA,
    "tiny": TINY,
    "smoke": SMOKE,
}

# untrained: the initial weights, as a contestant that every training must surpass.
# ds8: the autoencoder of the authors' published LUNA weights, with latents 8 times smaller per side, on top of a
# preset of the whole model. The authors have no ControlNet configuration for it: a third entry of the mask embedding
# reduces masks to 1/8.
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "ds8": {
        "autoencoder": {"net": {"channels": DS8["channels"], "decay": DS8["decay"]}},
        "controlnet": {"net": {"embedding_channels": (32, 64, 128)}},
    },
    "untrained": {"autoencoder": {"steps": 0}, "diffusion": {"steps": 0}, "controlnet": {"steps": 0}},
}
