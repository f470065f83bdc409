"""MAISI's presets and variants. Each preset lists its departures from the paper.

The paper states (section 3.1, A.1): MAISI is trained with the procedures and hyperparameters of its repository, on
volumes downsampled to 512x512x128, and latents are decoded in patches; from scratch (ST) and with the foundation
autoencoder (PT); iterations from the repository if reported, else 750,000. Everything else is taken from the
configuration files of NV-Generate-CT.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FULL_NET: Mapping[str, Any] = {"channels": (64, 128, 256), "num_res_blocks": 2, "norm_num_groups": 32}
FULL_UNET: Mapping[str, Any] = {
    "channels": (64, 128, 256, 512),
    "num_res_blocks": 2,
    "attention_levels": (False, False, True, True),
    "num_head_channels": (0, 0, 32, 32),
    "norm_num_groups": 32,
}

# Departures from the paper: a rectified flow (the paper does not say which of the two schedules; the repository now
# recommends this one); latents are means; the scale is measured over all training cases; checkpoints are selected by
# validation loss, whereas the paper selected by FID on its test split and by visual inspection; no augmentation.
# Iterations: the repository's 1000 epochs (U-Net, batch 2) and 100 epochs (ControlNet) of 120 cases; 250,000 for the
# autoencoder, as for MedLoRD, since the repository reports none. The window of 80x80x32 latent voxels is the larger of
# the repository's two; it covers the whole depth.
PAPER: Mapping[str, Any] = {
    "grid": (512, 512, 128),
    "autoencoder": {
        "net": FULL_NET,
        "patch": (128, 128, 128),
        "batch": 1,
        "micro_batch": 1,
        "steps": 250_000,
    },
    "latents": {"tile": (80, 80, 32), "precision": "fp16"},
    "diffusion": {"net": FULL_UNET, "batch": 2, "micro_batch": 2, "steps": 60_000, "lr_decay_steps": 60_000},
    "controlnet": {"batch": 1, "steps": 12_000, "lr_decay_steps": 12_000},
    "sampling": {"tile": (80, 80, 32), "precision": "fp16"},
}

# The same model and effective batch with micro-batches of one, recomputed activations and split convolutions. Every
# stage fits a GPU of 24 GB by the rule of `medlord-bench memory` (predicted; not yet run on one). Results differ by
# rounding only.
FITTED: Mapping[str, Any] = {
    **PAPER,
    "autoencoder": {**PAPER["autoencoder"], "net": {**FULL_NET, "num_splits": 4, "checkpointing": True}},
    "diffusion": {**PAPER["diffusion"], "net": {**FULL_UNET, "checkpointing": True}, "micro_batch": 1},
}

# MedLoRD's grid, which the paper could not fit into memory; no volume is resampled. Otherwise as `24gb`.
FITTED_FULL: Mapping[str, Any] = {**FITTED, "grid": (512, 512, 256)}

# The whole model in minutes on two cores, for grids of about 64 voxels per side. Departures: few channels, small
# patches, minutes of training, higher learning rates, averaged weights, float32, and an autoencoder without a
# discriminator, as in MedLoRD's `tiny`, and without a perceptual loss (which would require a download of its backbone).
# The flow's times are shifted towards noise as far as on the full grid, because a small volume shows as much anatomy.
TINY_NET: Mapping[str, Any] = {"channels": (8, 16, 32), "num_res_blocks": 1, "norm_num_groups": 4}
TINY_UNET: Mapping[str, Any] = {
    "channels": (16, 32, 64),
    "num_res_blocks": 1,
    "attention_levels": (False, False, True),
    "num_head_channels": (0, 0, 32),
    "norm_num_groups": 16,
}
TINY: Mapping[str, Any] = {
    "autoencoder": {
        "net": TINY_NET,
        "patch": (24, 24, 24),
        "batch": 2,
        "micro_batch": 2,
        "steps": 1000,
        "lr": 1e-3,
        "warmup": 0,
        "perceptual": 0.0,
        "adversarial": 0.0,
        "precision": "fp32",
        "validate_every": 250,
        "checkpoint_every": 250,
    },
    "latents": {"precision": "fp32"},
    "diffusion": {
        "net": TINY_UNET,
        "reference_voxels": 256,
        "batch": 2,
        "steps": 2000,
        "lr": 2e-3,
        "lr_decay_steps": 2100,
        "ema_decay": 0.995,
        "clip": 1.0,
        "precision": "fp32",
        "validate_every": 500,
        "checkpoint_every": 250,
    },
    "controlnet": {
        "batch": 2,
        "steps": 300,
        "lr": 1e-3,
        "lr_decay_steps": 400,
        "ema_decay": 0.99,
        "clip": 1.0,
        "precision": "fp32",
        "validate_every": 100,
        "checkpoint_every": 100,
    },
    "sampling": {"precision": "fp32"},
}

SMOKE_UNET: Mapping[str, Any] = {
    "channels": (16, 16),
    "num_res_blocks": 1,
    "attention_levels": (False, True),
    "num_head_channels": (0, 16),
    "norm_num_groups": 8,
}
# Runs in seconds, for the contract check and tests. Its samples are not meaningful.
SMOKE: Mapping[str, Any] = {
    **TINY,
    "autoencoder": {
        **TINY["autoencoder"],
        "net": {**TINY_NET, "channels": (4, 4, 8)},
        "patch": (16, 16, 16),
        "adversarial": 0.005,
        "discriminator_channels": 8,
        "discriminator_layers": 1,
        "batch": 2,
        "micro_batch": 1,
        "steps": 6,
        "validation_patches": 2,
        "validate_every": 3,
        "checkpoint_every": 2,
    },
    "diffusion": {
        **TINY["diffusion"],
        "net": SMOKE_UNET,
        "batch": 2,
        "steps": 6,
        "validate_every": 3,
        "checkpoint_every": 2,
    },
    "controlnet": {**TINY["controlnet"], "steps": 4, "validate_every": 2, "checkpoint_every": 2},
    "sampling": {"precision": "fp32", "steps": 3},
}

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "paper": PAPER,
    "24gb": FITTED,
    "24gb-full": FITTED_FULL,
    "tiny": TINY,
    "smoke": SMOKE,
}

# scratch: the paper's MAISI-ST; all stages are trained. foundation: the paper's MAISI-PT, on top of any preset: the
# published autoencoder of full size replaces a trained one. ddpm: the other noise schedule and its U-Net.
# untrained: the initial weights, as a contestant that every training must surpass.
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "scratch": {},
    "foundation": {"foundation": {}, "autoencoder": {"net": FULL_NET, "steps": 0}},
    "ddpm": {"diffusion": {"schedule": "ddpm"}},
    "untrained": {"autoencoder": {"steps": 0}, "diffusion": {"steps": 0}, "controlnet": {"steps": 0}},
}
