"""Weights instead of training: of an earlier run, or the authors' checkpoints.

Their files contain no configuration: architecture and size are inferred from the tensors. They do not contain the HU
range of [-1, 1] either, so their preprocessing's default is assumed, logged and written to `model.json` ("assumed").
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import torch

from medlord_bench.contracts import Run, Stage
from medlord_bench.errors import MissingError, UserError
from medlord_bench.nn.checkpoints import load_strict, stored_models
from medlord_bench.nn.intensity import Window
from medlord_bench.util.hashing import file_sha256

from .configs import HAGANConfig, NetConfig, Part
from .convert import FILES, convert
from .networks import COARSEST_VOXELS, Generator, LatentEncoder, SlabEncoder
from .weights import KIND, load_gan, save_gan

UPSTREAM_WINDOW: Window = (-1024, 600)  # the thresholds of the authors' preprocess.py


def adopt(config: HAGANConfig, stage: Stage, source: Path, out: Path, run: Run) -> Path:
    """The weights in `source`; see `contracts.Generator.adopt`.

    source: ours, or a folder of the authors' ``G_iter*.pth``, with ``E_iter*.pth`` and ``Sub_E_iter*.pth`` for
    reconstructions, or their ``G_iter*.pth`` alone.
    """
    found = stored_models(source, stage.name, KIND)
    if len(found) > 1:
        raise UserError(f"--weights {source}: {len(found)} weights for the stage {stage.name}; keep only one")
    folder = out / "adopted"
    shutil.rmtree(folder, ignore_errors=True)
    if found:
        load_gan(found[0], "cpu")  # unusable weights are an error now
        shutil.copytree(found[0], folder)
        return folder
    return _convert(config.net, _theirs(source), folder, run)


def _theirs(source: Path) -> dict[Part, Path]:
    """The authors' files of the latest iteration. Raises `MissingError` if the generator's is missing."""
    if source.is_file():
        return {"generator": source}
    found: dict[Part, Path] = {}
    for part, name in FILES.items():
        files = [path for path in source.glob("*.pth") if re.fullmatch(rf"{name}(_iter\d+)?\.pth", path.name)]
        if files:
            found[part] = max(files, key=_iteration)
    if "generator" not in found:
        raise MissingError(
            f"--weights {source}: nothing for HA-GAN; expected a run's weights folder, or the authors' G_iter*.pth "
            "(with E_iter*.pth and Sub_E_iter*.pth for reconstructions)"
        )
    missing = [f"{FILES[part]}_iter*.pth" for part in FILES if part not in found]
    if len(missing) == 1:
        raise MissingError(
            f"--weights {source}: {missing[0]} is missing; reconstructions need both encoders, or give G alone"
        )
    if len({_iteration(path) for path in found.values()}) > 1:
        names = ", ".join(path.name for path in found.values())
        raise UserError(f"--weights {source}: the networks are of different iterations ({names}); keep those of one")
    return found


def _iteration(path: Path) -> int:
    number = re.search(r"(\d+)\.pth$", path.name)
    return int(number.group(1)) if number else -1


def _convert(configured: NetConfig, files: dict[Part, Path], folder: Path, run: Run) -> Path:
    parts = {part: convert(path, part) for part, path in files.items()}
    net = _architecture(configured, parts, files)
    networks = {"generator": Generator, "slab_encoder": SlabEncoder, "latent_encoder": LatentEncoder}
    for part, tensors in parts.items():
        load_strict(networks[part](net), tensors, str(files[part]))
    assumed = {"hu_window": list(UPSTREAM_WINDOW), "size": net.size, "norm_num_groups": net.norm_num_groups}
    origin = {part: {"file": path.name, "sha256": file_sha256(path)} for part, path in files.items()}
    save_gan(folder, net, UPSTREAM_WINDOW, parts, {"converted_from": origin, "assumed": assumed})
    told = "; ".join(f"{name} {value}" for name, value in assumed.items())
    names = ", ".join(str(path) for path in files.values())
    run.log.warning("gan: converted from %s; assumed, since no file states it: %s", names, told)
    return folder


def _architecture(
    configured: NetConfig, parts: dict[Part, dict[str, torch.Tensor]], files: dict[Part, Path]
) -> NetConfig:
    """Widths from the shapes. The size follows from the halvings of `LatentEncoder`; without it, the configured one is
    used."""
    project = parts["generator"].get("trunk.project.weight")
    if project is None or project.ndim != 2:
        raise UserError(f"{files['generator']}: no tensor 'fc1.weight'; give the authors' generator, G_iter*.pth")
    update = {"channels": project.shape[0] // COARSEST_VOXELS**3, "latent": project.shape[1]}
    if "latent_encoder" in parts:
        halvings = sum(name.endswith(".0.weight") for name in parts["latent_encoder"])
        update["size"] = 4 * COARSEST_VOXELS << halvings
    try:
        return NetConfig.model_validate(configured.model_dump() | update)
    except ValueError as error:
        raise UserError(
            f"{files['generator']}: not an architecture of HA-GAN's ({str(error).splitlines()[2].strip()})"
        ) from None
