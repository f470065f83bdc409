"""The cohort's latents: encoded once, kept with the scale that brings them to unit deviation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from medlord_bench.contracts import Cohort, Precision, Run, Shape, Split
from medlord_bench.errors import MissingError, StepError, Stopped
from medlord_bench.nn.intensity import scale_hu
from medlord_bench.nn.training import autocast
from medlord_bench.nn.vqgan.network import VQGAN
from medlord_bench.nn.vqgan.training import hu_window, load_autoencoder
from medlord_bench.util.files import write_json
from medlord_bench.volumes.arrays import load_state, save_state

from .configs import LatentsConfig

SPLITS: tuple[Split, ...] = ("train", "val")


def encode_cohort(config: LatentsConfig, data: Cohort, inputs: Mapping[str, Path], out: Path, run: Run) -> Path:
    """Encode every training and validation case that is not encoded yet; then measure the scale on the training split.

    Returns the folder with one ``<case>.safetensors`` (d, x, y, z) float32 a case and `latents.json`.
    """
    folder = out / "latents"
    folder.mkdir(parents=True, exist_ok=True)
    todo = [(split, case_id) for split in SPLITS for case_id in data.ids(split)]
    net = load_autoencoder(inputs["autoencoder"], run.device)
    window = hu_window(inputs["autoencoder"])
    with run.progress.task("encode latents", len(todo)) as task:
        for _, case_id in todo:
            path = folder / f"{case_id}.safetensors"
            if not path.exists():
                image = scale_hu(np.asarray(data.hu(case_id)), window)[None, None]
                latent = encode(net, image, config, run.device)
                save_state(path, {"latent": latent[0].numpy()})
            task.advance()
            if run.stop():
                raise Stopped("encode latents: stopped, saved")
    scale = config.scale if config.scale is not None else measure_scale(folder, data)
    facts = {"scale": scale, "quantised": config.quantised, "measured": config.scale is None}
    write_json(folder / "latents.json", facts)
    return folder


@torch.no_grad()
def encode(net: VQGAN, image: torch.Tensor, config: LatentsConfig, device: str) -> torch.Tensor:
    """Latents float32 (1, d, x, y, z) on the CPU of an image (1, 1, X, Y, Z) in [-1, 1]."""
    with autocast(config.precision, device):
        z = net.encode(image if config.tile else image.to(device), tile=config.tile)
        if config.quantised:
            z = net.quantise(z).codes
    return z.float().cpu()


@torch.no_grad()
def decode(net: VQGAN, z: torch.Tensor, precision: Precision, tile: Shape | None) -> torch.Tensor:
    """Image (1, 1, X, Y, Z), about [-1, 1], of an unscaled latent (1, d, x, y, z).

    A latent is taken to its nearest codes first, since the decoder knows nothing else, also where diffusion worked
    on latents before quantisation.
    """
    with autocast(precision, str(z.device)):
        return net.decode(net.quantise(z.float()).codes, tile=tile).float()


def measure_scale(folder: Path, data: Cohort) -> float:
    """1 / standard deviation of all training latents (Rombach et al. 2022, appendix G), in float64.

    The paper's code takes one batch's; all cases make it independent of their order.
    """
    total = squares = 0.0
    count = 0
    for case_id in data.ids("train"):
        latent = load_state(folder / f"{case_id}.safetensors")["latent"].astype(np.float64)
        total, squares, count = total + latent.sum(), squares + (latent**2).sum(), count + latent.size
    deviation = (squares / count - (total / count) ** 2) ** 0.5
    if not np.isfinite(deviation) or deviation == 0:
        raise StepError(f"{folder}: latents deviate by {deviation}; the autoencoder did not learn: train it again")
    return float(1.0 / deviation)


class StoredLatents:
    """`latent_training.Latents` over the published folder."""

    def __init__(self, folder: Path, data: Cohort) -> None:
        self.folder, self.data = folder, data
        path = folder / "latents.json"
        if not path.exists():
            raise MissingError(f"{path}: not found; the latents are not complete: run the same command again")
        self.scale: float = json.loads(path.read_text())["scale"]

    def ids(self, split: Split) -> list[str]:
        return list(self.data.ids(split))

    def latent(self, case_id: str) -> torch.Tensor:
        return torch.from_numpy(load_state(self.folder / f"{case_id}.safetensors")["latent"]) * self.scale
