"""HA-GAN's weights on disk: the generator, and the encoders if there are any."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from medlord_bench.errors import UserError
from medlord_bench.nn.checkpoints import load_model, load_strict, save_model
from medlord_bench.nn.intensity import Window

from .configs import NetConfig, Part
from .networks import Generator, LatentEncoder, SlabEncoder

KIND = "hagan.gan"
Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True, eq=False)
class Trained:
    """The networks for sampling and reconstructing, frozen. encoders: None if a generator was adopted without them."""

    generator: Generator
    encoders: tuple[SlabEncoder, LatentEncoder] | None
    hu_window: Window


def save_gan(
    folder: Path, net: NetConfig, window: Window, parts: Mapping[Part, Tensors], facts: Mapping[str, Any]
) -> None:
    """Write the tensors of "generator" and, together, "slab_encoder" and "latent_encoder". facts: for the record."""
    tensors = {f"{part}.{name}": value for part, named in parts.items() for name, value in named.items()}
    described = {"net": net.model_dump(mode="json"), "hu_window": list(window), "parts": sorted(parts), **facts}
    save_model(folder, KIND, described, tensors)


def load_gan(folder: Path, device: str) -> Trained:
    """Load the file of `save_gan` on `device`. Raises `MissingError` or `UserError` naming the file."""
    described, tensors = load_model(folder, KIND)
    where = folder / "model.json"
    try:
        config = NetConfig.model_validate(described["net"])
        low, high = described["hu_window"]
        parts = set(described["parts"])
    except (KeyError, TypeError, ValueError, ValidationError):
        raise UserError(f"{where}: expected the fields net, hu_window and parts; restore it or train again") from None
    networks: dict[str, torch.nn.Module] = {"generator": Generator(config)}
    if parts != {"generator"}:
        networks |= {"slab_encoder": SlabEncoder(config), "latent_encoder": LatentEncoder(config)}
    load_strict(torch.nn.ModuleDict(networks), tensors, str(folder / "model.safetensors"))
    for network in networks.values():
        network.to(device).eval().requires_grad_(False)
    generator, slab, latent = (networks.get(name) for name in ("generator", "slab_encoder", "latent_encoder"))
    assert isinstance(generator, Generator)
    encoders = (slab, latent) if isinstance(slab, SlabEncoder) and isinstance(latent, LatentEncoder) else None
    return Trained(generator, encoders, (int(low), int(high)))
