"""The cohort's latents: the encoder's means, kept with each case's voxel size and the scale to unit deviation.

NV-Generate stores one noisy draw per case, so that every epoch sees the same noise as if it were anatomy (users measured
more than a quarter of the latents' variance), and takes the scale from the first batch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medlord_bench.contracts import Cohort, Run, Shape, Split, Volume
from medlord_bench.errors import MissingError, StepError, Stopped
from medlord_bench.nn.training import autocast
from medlord_bench.util.files import write_json
from medlord_bench.volumes.arrays import load_state, save_state
from medlord_bench.volumes.native_grid import to_native

from .autoencoder import Autoencoder, load_autoencoder, to_unit
from .configs import LatentsConfig, TilingConfig
from .spacing import Spacing, case_spacing
from .tiles import blended

SPLITS: tuple[Split, ...] = ("train", "val")


def encode_cohort(
    config: LatentsConfig, data: Cohort, shape: Shape, inputs: Mapping[str, Path], out: Path, run: Run
) -> Path:
    """Encode every training and validation case that is not encoded yet; then measure the scale on the training split.

    Returns the folder with one ``<case>.safetensors`` a case: latent (C, x, y, z) float32 and spacing (3,) in mm; and
    `latents.json`.
    """
    folder = out / "latents"
    folder.mkdir(parents=True, exist_ok=True)
    todo = [case_id for split in SPLITS for case_id in data.ids(split)]
    net, window = load_autoencoder(inputs["autoencoder"], run.device, config.precision)
    with run.progress.task("encode latents", len(todo)) as task:
        for case_id in todo:
            path = folder / f"{case_id}.safetensors"
            if not path.exists():
                volume = Volume(np.asarray(data.hu(case_id)), data.protocol.grid.affine())
                image = to_unit(to_native(volume, shape, window, "resize").hu, window)[None, None]
                latent = encode(net, image, config, run.device)[0].numpy()
                spacing = np.array(case_spacing(data, case_id, shape), dtype=np.float32)
                save_state(path, {"latent": latent, "spacing": spacing})
            task.advance()
            if run.stop():
                raise Stopped("encode latents: stopped, saved")
    measured = config.scale is None
    scale = config.scale if config.scale is not None else measure_scale(folder, data)
    middle = np.median([_load(folder, case_id)["spacing"] for case_id in data.ids("train")], axis=0)
    write_json(
        folder / "latents.json",
        {"scale": scale, "measured": measured, "channels": net.config.latent_channels, "spacing": middle.tolist()},
    )
    return folder


def encode(net: Autoencoder, image: torch.Tensor, config: TilingConfig, device: str) -> torch.Tensor:
    """The mean latents, float32 (1, C, x, y, z) on the CPU, of an image (1, 1, X, Y, Z) in [0, 1]."""
    with autocast(config.precision, device):
        return blended(
            lambda tile: net.encode(tile)[0], image, config.tile, config.overlap, net.config.factor, 1, device
        )


def decode(net: Autoencoder, latent: torch.Tensor, config: TilingConfig, device: str) -> torch.Tensor:
    """The image, about [0, 1], float32 (1, 1, X, Y, Z) on the CPU, of an unscaled latent (1, C, x, y, z)."""
    with autocast(config.precision, device):
        return blended(net.decode, latent, config.tile, config.overlap, 1, net.config.factor, device)


def _load(folder: Path, case_id: str) -> Mapping[str, np.ndarray]:
    return load_state(folder / f"{case_id}.safetensors")


def measure_scale(folder: Path, data: Cohort) -> float:
    """1 / standard deviation of all training latents (Rombach et al. 2022, appendix G), in float64."""
    total = squares = 0.0
    count = 0
    for case_id in data.ids("train"):
        latent = _load(folder, case_id)["latent"].astype(np.float64)
        total, squares, count = total + latent.sum(), squares + (latent**2).sum(), count + latent.size
    deviation = max(squares / count - (total / count) ** 2, 0.0) ** 0.5
    if not np.isfinite(deviation) or deviation == 0:
        raise StepError(f"{folder}: latents deviate by {deviation}; the autoencoder did not learn: train it again")
    return float(1.0 / deviation)


class StoredLatents:
    """`latent_training.Latents` over the published folder."""

    def __init__(self, folder: Path, data: Cohort) -> None:
        self.folder, self.data = folder, data
        facts = latent_facts(folder)
        self.scale: float = facts["scale"]
        self.spacing_of_a_sample: Spacing = (facts["spacing"][0], facts["spacing"][1], facts["spacing"][2])

    def ids(self, split: Split) -> list[str]:
        return list(self.data.ids(split))

    def latent(self, case_id: str) -> tuple[torch.Tensor, torch.Tensor]:
        state = _load(self.folder, case_id)
        return torch.from_numpy(state["latent"]) * self.scale, torch.from_numpy(state["spacing"])


def latent_facts(folder: Path) -> dict[str, Any]:
    """`latents.json`: scale, whether it was measured, channels, and the training cases' median voxel size."""
    path = folder / "latents.json"
    if not path.exists():
        raise MissingError(f"{path}: not found; the latents are not complete: run the same command again")
    return dict(json.loads(path.read_text()))
