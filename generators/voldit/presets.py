"""VolDiT's presets and variants. Each preset lists its departures from the authors' code.

The code (github.com/Cardio-AI/voldit) states: a VQ-GAN with latents of 1/8 of the sides and a codebook of 4,096 x 8;
transformers of four sizes with patches of 2 and 4; T = 300, cosine, v-prediction, smooth L1, AdamW, learning rates that
decay by 0.999 an epoch, averaged weights; 1,000 epochs of the transformer in batches of 2 on each of two GPUs, 500 of
the adapter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medlord_bench.nn.vqgan.config import PRESETS as VQGANS
from medlord_bench.nn.vqgan.config import SMOKE as SMOKE_VQGAN
from medlord_bench.nn.vqgan.config import TINY as TINY_VQGAN

from .configs import SIZES

DS8 = {**VQGANS["ds8"].model_dump(mode="json"), "codes": 4096}
EPOCH = 200  # steps: 800 cases, about the training split of LUNA16, in batches of 4

# L/2 at 512x512x256 on a GPU of 24 GB (predicted; not yet run on one): micro-batches of one that add up to the authors'
# batch, recomputed activations, tiled encoding and decoding. Departures: the VQ-GAN is trained on patches of 128 cubed,
# for MedLoRD's 250,000 steps and without gradient clipping; rarely used codes are restarted; steps and decay are those
# of `EPOCH`, whatever the size of the cohort; the micro-batch decides which units dropout drops; the autoencoder's HU
# window is the protocol's; encoding and sampling in float16 as the authors sample.
FITTED: Mapping[str, Any] = {
    "autoencoder": {
        "net": {**DS8, "restart_below": 0.05, "checkpointing": True},
        "patch": (128, 128, 128),
        "batch": 4,
        "micro_batch": 1,
        "steps": 250_000,
        "lr_g": 5e-5,
        "lr_d": 2e-5,
        "perceptual": 0.005,
        "adversarial": 0.005,
        "spectral": 0.0,
        "rotate": 0.2,
        "flip": 0.5,
    },
    "latents": {"quantised": True, "precision": "fp16", "tile": (256, 256, 128)},
    "diffusion": {
        "net": {**SIZES["l"], "patch": 2, "checkpointing": True},
        "batch": 4,
        "micro_batch": 1,
        "steps": 1000 * EPOCH,
        "lr": 1e-4,
        "lr_decay": 0.999 ** (1 / EPOCH),
    },
    "tgca": {"batch": 4, "micro_batch": 1, "steps": 500 * EPOCH, "lr_decay": 0.999 ** (1 / EPOCH)},
    "sampling": {"precision": "fp16", "tile": (256, 256, 128)},
}

# The whole model in minutes on two cores, for grids of about 64 voxels a side. Departures: latents of 1/4 of the sides
# before quantisation, an autoencoder as MedLoRD's `tiny` has (see `nn.vqgan.config`) but of 512 codes and by AdamW, whose
# latents this transformer learns better (docs/generators/voldit.md), a small transformer without dropout, minutes of
# training, factors of the adapter that start at 1 (at 0.1 it hardly acts after a few hundred steps), sampling
# in 50 of the 300 steps with fresh noise, higher learning rates along a cosine, and float32.
TINY: Mapping[str, Any] = {
    "autoencoder": {
        **TINY_VQGAN,
        "net": {**TINY_VQGAN["net"], "codes": 512},
        "steps": 2400,
        "optimiser": "adamw",
        "lr_g": 1.5e-3,
        "lr_cosine": 2400,
        "validate_every": 600,
        "checkpoint_every": 300,
    },
    "latents": {"quantised": False},
    "diffusion": {
        "net": {"patch": 2, "depth": 3, "hidden": 96, "heads": 4, "dropout": 0.0},
        "batch": 2,
        "steps": 3300,
        "lr": 3e-3,
        "lr_warmup": 100,
        "lr_cosine": 3300,
        "ema_decay": 0.99,
        "precision": "fp32",
        "validate_every": 825,
        "checkpoint_every": 400,
    },
    "tgca": {
        "net": {"channels": (8, 16, 32, 64), "scale": 1.0},
        "batch": 2,
        "steps": 300,
        "lr": 2e-3,
        "ema_decay": 0.98,
        "precision": "fp32",
        "validate_every": 100,
        "checkpoint_every": 100,
    },
    "sampling": {"steps": 50, "eta": 1.0},
}

# Runs in seconds, for the contract check and tests. Its samples are not meaningful.
SMOKE: Mapping[str, Any] = {
    "autoencoder": SMOKE_VQGAN,
    "diffusion": {
        **TINY["diffusion"],
        "net": {"patch": 2, "depth": 2, "hidden": 32, "heads": 2, "checkpointing": True},
        "timesteps": 10,
        "batch": 2,
        "micro_batch": 1,
        "steps": 6,
        "validate_every": 3,
        "checkpoint_every": 2,
    },
    "tgca": {**TINY["tgca"], "net": {"channels": (4, 8, 8, 8)}, "steps": 4, "validate_every": 2, "checkpoint_every": 2},
    "sampling": {"steps": 3},
}

PRESETS: Mapping[str, Mapping[str, Any]] = {"24gb": FITTED, "tiny": TINY, "smoke": SMOKE}


def _sized(size: str, patch: int) -> Mapping[str, Any]:
    return {"diffusion": {"net": {**SIZES[size], "patch": patch}}}


# xs2 ... l4: the authors' sizes and patches on top of a preset.
# untrained: the initial weights, as a contestant that every training must surpass.
# upstream-norm: the adapter as the authors' code computes it, see `TGCANetConfig`; all other stages are shared.
# released-luna: the authors' published weights for LUNA16. The names of the files are not part of their description:
# each pattern must match one file of the repository. [-1, 1] is -1000..1000 HU, as their sampler writes it; the latent
# scale is not in the files and is measured on the user's training latents unless generator.latents.scale is set.
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    **{f"{size}{patch}": _sized(size, patch) for size in SIZES for patch in (2, 4)},
    "untrained": {"autoencoder": {"steps": 0}, "diffusion": {"steps": 0}, "tgca": {"steps": 0}},
    "upstream-norm": {"tgca": {"net": {"control_norm": "upstream"}}},
    "released-luna": {
        "autoencoder": {"steps": 0},
        "latents": {"quantised": True},
        "diffusion": {"steps": 0, "timesteps": 300},
        "tgca": {"steps": 0},
        "pretrained": {
            "repository": "AICM-HD/voldit",
            "autoencoder": "*vqgan*.pth",
            "diffusion": "*dit*.pth",
            "hu_window": (-1000, 1000),
            "trained_on": ("luna16",),
            "licence": "Apache-2.0",
        },
    },
}
