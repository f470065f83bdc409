"""Conversion of the authors' checkpoint layout to ours: a map of names only.

Their files are ``{"model": tensors, "optimizer": ...}`` of one network each, saved from `DataParallel` ("module.").
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from medlord_bench.errors import UserError
from medlord_bench.nn.checkpoints import read_torch

from .configs import Part

FILES: Mapping[Part, str] = {"generator": "G", "slab_encoder": "E", "latent_encoder": "Sub_E"}


def convert(path: Path, part: Part) -> dict[str, torch.Tensor]:
    """The tensors of one of the authors' files under our names. Raises `UserError` for an unknown name."""
    found = read_torch(path)
    tensors = found.get("model", found) if isinstance(found, dict) else None
    if not isinstance(tensors, dict) or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise UserError(f'{path}: expected {{"model": tensors}} or tensors by name, as saved by the authors')
    plain = {name.removeprefix("module."): value for name, value in tensors.items()}
    names = _NAMES[part](plain)
    unknown = [name for name in plain if name not in names]
    if unknown:
        raise UserError(f"{path}: tensor {unknown[0]!r} is not in HA-GAN's {FILES[part]}; give that network's file")
    return {names[name]: value for name, value in plain.items()}


def _renamed(plain: Mapping[str, torch.Tensor], layers: Mapping[str, str]) -> dict[str, str]:
    names = {}
    for name in plain:
        layer, _, kind = name.rpartition(".")
        if layer in layers and kind in ("weight", "bias"):
            names[name] = f"{layers[layer]}.{kind}"
    return names


def _generator(plain: Mapping[str, torch.Tensor]) -> dict[str, str]:
    layers = {"fc1": "trunk.project", "tp_conv6": "high.unit.0", "bn6": "high.unit.1", "tp_conv7": "high.image"}
    for i in range(5):
        layers |= {f"tp_conv{i + 1}": f"trunk.units.{i}.0", f"bn{i + 1}": f"trunk.units.{i}.1"}
    for i in range(2):
        layers |= {f"sub_G.tp_conv{i + 1}": f"low.units.{i}.0", f"sub_G.bn{i + 1}": f"low.units.{i}.1"}
    return _renamed(plain, layers | {"sub_G.tp_conv3": "low.image"})


def _slab_encoder(plain: Mapping[str, torch.Tensor]) -> dict[str, str]:
    layers: dict[str, str] = {}
    for i in range(3):
        layers |= {f"conv{i + 1}": f"units.{i}.0", f"bn{i + 1}": f"units.{i}.1"}
    return _renamed(plain, layers)


def _latent_encoder(plain: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Their network for 128 begins with the second layer."""
    first = 1 if "conv1.weight" in plain else 2
    layers = {"conv5": "vector"}
    for i in range(first, 5):
        layers |= {f"conv{i}": f"units.{i - first}.0", f"bn{i}": f"units.{i - first}.1"}
    return _renamed(plain, layers)


_NAMES = {"generator": _generator, "slab_encoder": _slab_encoder, "latent_encoder": _latent_encoder}
