"""Latents of a VQ-GAN for diffusion: encoding of a cohort, and decoding through codebook and decoder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from medlord_bench.contracts import Cohort, Precision, Run, Shape
from medlord_bench.nn.diffusion import latents
from medlord_bench.nn.intensity import scale_hu
from medlord_bench.nn.optimiser import autocast
from medlord_bench.nn.vqgan.config import LatentsConfig
from medlord_bench.nn.vqgan.network import VQGAN
from medlord_bench.nn.vqgan.training import hu_window, load_autoencoder


def encode_cohort(config: LatentsConfig, data: Cohort, inputs: Mapping[str, Path], out: Path, run: Run) -> Path:
    """`latents.encode_cohort` with the trained VQ-GAN. Each case's file contains its latent, float32 (d, x, y, z)."""
    net = load_autoencoder(inputs["autoencoder"], run.device)
    window = hu_window(inputs["autoencoder"])

    def of_case(case_id: str) -> Mapping[str, NDArray[np.float32]]:
        image = scale_hu(np.asarray(data.hu(case_id)), window)[None, None]  # (1, 1, X, Y, Z)
        return {latents.LATENT: encode(net, image, config, run.device)[0].numpy()}

    return latents.encode_cohort(of_case, data, out, run, config.scale, lambda folder: {"quantised": config.quantised})


@torch.no_grad()
def encode(net: VQGAN, image: torch.Tensor, config: LatentsConfig, device: str) -> torch.Tensor:
    """Image (1, 1, X, Y, Z) in [-1, 1] -> latents float32 (1, d, x, y, z) on the CPU."""
    with autocast(config.precision, device):
        z = net.encode(image if config.tile else image.to(device), tile=config.tile)
        if config.quantised:
            z = net.quantise(z).codes
    return z.float().cpu()


@torch.no_grad()
def decode(net: VQGAN, z: torch.Tensor, precision: Precision, tile: Shape | None) -> torch.Tensor:
    """Unscaled latent (1, d, x, y, z) -> image (1, 1, X, Y, Z), about [-1, 1].

    The latent is quantised to its nearest codes first, because the decoder is trained on codes only. This also applies
    if diffusion models latents before quantisation.
    """
    with autocast(precision, str(z.device)):
        return net.decode(net.quantise(z.float()).codes, tile=tile).float()
