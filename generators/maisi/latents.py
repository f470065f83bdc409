"""MAISI's latents: the encoder's means, stored with the voxel size of each case.

NV-Generate instead stores one noisy sample per case, so that every epoch sees the same noise as if it were anatomy
(users measured more than a quarter of the latents' variance), and computes the scale from the first batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from medlord_bench.contracts import Cohort, Run, Shape, Volume
from medlord_bench.nn.diffusion import latents
from medlord_bench.nn.optimiser import autocast
from medlord_bench.volumes.native_grid import to_native

from .autoencoder import Autoencoder, load_autoencoder, to_unit
from .configs import LatentsConfig, TilingConfig
from .spacing import Spacing, case_spacing
from .tiles import blended

SPACING = "spacing"  # in a case's file: its voxel size; in the facts: the training cases' median


class SpacedLatents(latents.Latents, Protocol):
    """The encoded cohort.

    spacing_of_a_sample: median voxel size of the training cases in mm, for samples of a protocol without spacing.
    """

    spacing_of_a_sample: Spacing

    def spacing(self, case_id: str) -> torch.Tensor:
        """The voxel size of a case in mm, float32 (3,) on the CPU."""
        ...


def encode_cohort(
    config: LatentsConfig, data: Cohort, shape: Shape, inputs: Mapping[str, Path], out: Path, run: Run
) -> Path:
    """`latents.encode_cohort` with the trained autoencoder. shape: MAISI's grid.

    The file of each case contains its latent float32 (C, x, y, z) and its spacing (3,) in mm on MAISI's grid.
    """
    net, window = load_autoencoder(inputs["autoencoder"], run.device, config.precision)

    def of_case(case_id: str) -> Mapping[str, NDArray[np.float32]]:
        volume = Volume(np.asarray(data.hu(case_id)), data.protocol.grid.affine())
        image = to_unit(to_native(volume, shape, window, "resize").hu, window)[None, None]  # (1, 1, X, Y, Z)
        latent = encode(net, image, config, run.device)[0].numpy()
        return {latents.LATENT: latent, SPACING: np.array(case_spacing(data, case_id, shape), dtype=np.float32)}

    def describe(folder: Path) -> Mapping[str, Any]:
        spacings = [latents.case_arrays(folder, case_id)[SPACING] for case_id in data.ids("train")]
        return {"channels": net.config.latent_channels, SPACING: np.median(spacings, axis=0).tolist()}

    return latents.encode_cohort(of_case, data, out, run, config.scale, describe)


def encode(net: Autoencoder, image: torch.Tensor, config: TilingConfig, device: str) -> torch.Tensor:
    """Image (1, 1, X, Y, Z) in [0, 1] -> mean latents float32 (1, C, x, y, z) on the CPU."""
    with autocast(config.precision, device):
        return blended(
            lambda tile: net.encode(tile)[0], image, config.tile, config.overlap, net.config.factor, 1, device
        )


def decode(net: Autoencoder, latent: torch.Tensor, config: TilingConfig, device: str) -> torch.Tensor:
    """Unscaled latent (1, C, x, y, z) -> image float32 (1, 1, X, Y, Z), about [0, 1], on the CPU."""
    with autocast(config.precision, device):
        return blended(net.decode, latent, config.tile, config.overlap, 1, net.config.factor, device)


class StoredLatents(latents.StoredLatents):
    """`SpacedLatents` over the published folder."""

    def __init__(self, folder: Path, data: Cohort) -> None:
        super().__init__(folder, data)
        x, y, z = self.facts[SPACING]
        self.spacing_of_a_sample: Spacing = (x, y, z)
        self.known: dict[str, torch.Tensor] = {}  # cache: otherwise each item reads the case's file twice

    def spacing(self, case_id: str) -> torch.Tensor:
        if case_id not in self.known:
            self.known[case_id] = torch.from_numpy(latents.case_arrays(self.folder, case_id)[SPACING])
        return self.known[case_id]
