"""HA-GAN's presets and variants, as data; each departure from the authors is noted at the preset.

MedLoRD's paper states of its HA-GAN (section 2.2): volumes are resized, and training and hyperparameters are the
authors'. It does not state the size; the authors use 128 and 256.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# The authors' network and hyperparameters for 256 cubed. Departures, all of them in favour of the model: volumes are
# drawn in a new order each epoch; a slab begins with a feature (theirs may be up to three voxels off); the
# low-resolution real volume is averaged, not every fourth voxel; the exported generator is the average of the latest
# thousand steps. The window is the protocol's (theirs is -1024..600 HU), and blank slices are not removed.
FITTED: Mapping[str, Any] = {
    "net": {"size": 256, "channels": 512, "latent": 1024, "norm_num_groups": 8},
    "training": {"batch": 4, "micro_batch": 4, "steps": 80_000, "lr": 1e-4, "lr_d": 4e-4, "ema_decay": 0.999},
}

# The whole model in minutes on two cores, for grids of about 64 voxels a side. Departures: a cube of 64 voxels, an
# eighth of the channels, few steps, a shorter average, and learning rates twice as high.
TINY: Mapping[str, Any] = {
    "net": {"size": 64, "channels": 64, "latent": 128, "norm_num_groups": 2},
    "training": {
        "batch": 4,
        "micro_batch": 4,
        "steps": 1000,
        "lr": 2e-4,
        "lr_d": 8e-4,
        "ema_decay": 0.99,
        "validate_every": 250,
        "checkpoint_every": 250,
    },
}

# Seconds: for the contract check and for tests. Learns nothing useful.
SMOKE: Mapping[str, Any] = {
    "net": {"size": 32, "channels": 32, "latent": 16, "norm_num_groups": 1},
    "training": {
        "batch": 2,
        "micro_batch": 1,
        "steps": 6,
        "lr": 1e-3,
        "lr_d": 1e-3,
        "ema_decay": 0.5,
        "validate_every": 3,
        "checkpoint_every": 2,
    },
}

PRESETS: Mapping[str, Mapping[str, Any]] = {"24gb": FITTED, "tiny": TINY, "smoke": SMOKE}

# untrained: the initial weights, a baseline that any training must exceed. 128: the authors' smaller network.
# as-published: the latest weights instead of their average, as the authors save them.
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "128": {"net": {"size": 128}},
    "as-published": {"training": {"ema_decay": 0.0}},
    "untrained": {"training": {"steps": 0}},
}
