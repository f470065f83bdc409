"""The cohort as sequences: the index of each latent voxel's code, in raster order, encoded once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medlord_bench.contracts import Cohort, Precision, Run, Shape, Split, Volume
from medlord_bench.errors import MissingError, Stopped, UserError
from medlord_bench.nn.intensity import scale_hu
from medlord_bench.nn.optimiser import autocast
from medlord_bench.nn.vqgan.network import VQGAN
from medlord_bench.nn.vqgan.training import hu_window, load_autoencoder
from medlord_bench.util.files import write_json
from medlord_bench.volumes.arrays import load_state, save_state
from medlord_bench.volumes.native_grid import to_native

from .configs import VQTransConfig

SPLITS: tuple[Split, ...] = ("train", "val")


@torch.no_grad()
def encode(net: VQGAN, image: Tensor, precision: Precision, tile: Shape | None, device: str) -> Tensor:
    """Code indices int64 (1, x, y, z) on the CPU of an image (1, 1, X, Y, Z) in [-1, 1]."""
    with autocast(precision, device):
        z = net.encode(image if tile else image.to(device), tile=tile)
        return net.quantise(z.to(device)).indices.cpu()


@torch.no_grad()
def decode(net: VQGAN, indices: Tensor, precision: Precision, tile: Shape | None, device: str) -> Tensor:
    """Image float32 (1, 1, X, Y, Z), about [-1, 1], of code indices (1, x, y, z)."""
    with autocast(precision, device):
        return net.decode(net.embed(indices.to(device)), tile=tile).float()


def token_shape(shape: Shape, factor: int) -> Shape:
    """The grid of codes of an image of `shape`. Raises `UserError` naming the nearest valid grid."""
    if any(side % factor for side in shape):
        near = tuple(factor * max(1, round(side / factor)) for side in shape)
        raise UserError(f"grid {shape}: the autoencoder downsamples {factor} times; the nearest valid grid is {near}")
    x, y, z = (side // factor for side in shape)
    return x, y, z


@dataclass(frozen=True)
class TokensFacts:
    """The content of `tokens.json`. codes: K. shape: of the grid of codes. grid, fit: see `VQTransConfig`."""

    codes: int
    shape: Shape
    grid: Shape
    fit: str

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "tokens.json", self.dump())

    def dump(self) -> dict[str, Any]:
        return {"codes": self.codes, "shape": list(self.shape), "grid": list(self.grid), "fit": self.fit}


def facts_of(config: VQTransConfig, autoencoder: VQGAN, data: Cohort) -> TokensFacts:
    """The format of a cohort's sequences, computed without them."""
    grid = config.native(data.protocol.grid.shape)
    return TokensFacts(autoencoder.config.codes, token_shape(grid, autoencoder.factor), grid, config.fit)


def read_facts(folder: Path) -> TokensFacts:
    path = folder / "tokens.json"
    if not path.exists():
        raise MissingError(f"{path}: not found; the tokens are not complete: run the same command again")
    found = json.loads(path.read_text())
    return TokensFacts(found["codes"], tuple(found["shape"]), tuple(found["grid"]), found["fit"])


def encode_cohort(config: VQTransConfig, data: Cohort, inputs: Mapping[str, Path], out: Path, run: Run) -> Path:
    """Encode all training and validation cases that are not encoded yet.

    Returns the folder with one ``<case>.safetensors`` (x, y, z) int32 per case and `tokens.json`.
    """
    folder = out / "tokens"
    folder.mkdir(parents=True, exist_ok=True)
    todo = [case_id for split in SPLITS for case_id in data.ids(split)]
    net, window = load_autoencoder(inputs["autoencoder"], run.device), hu_window(inputs["autoencoder"])
    facts, affine = facts_of(config, net, data), data.protocol.grid.affine()
    with run.progress.task("encode tokens", len(todo)) as task:
        for case_id in todo:
            path = folder / f"{case_id}.safetensors"
            if not path.exists():
                volume = to_native(Volume(np.asarray(data.hu(case_id)), affine), facts.grid, window, config.fit)
                image = scale_hu(volume.hu, window)[None, None]
                indices = encode(net, image, config.tokens.precision, config.tokens.tile, run.device)
                save_state(path, {"tokens": indices[0].numpy().astype(np.int32)})
                if run.stop():
                    raise Stopped("encode tokens: stopped, saved")
            task.advance()
    facts.write(folder)
    return folder


class StoredTokens:
    """The published folder, as sequences."""

    def __init__(self, folder: Path, data: Cohort) -> None:
        self.folder, self.data, self.facts = folder, data, read_facts(folder)

    def ids(self, split: Split) -> list[str]:
        return list(self.data.ids(split))

    def sequence(self, case_id: str) -> Tensor:
        """int64 (N,)"""
        return torch.from_numpy(load_state(self.folder / f"{case_id}.safetensors")["tokens"]).flatten().long()
