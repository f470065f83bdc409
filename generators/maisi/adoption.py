"""Adoption of weights instead of training: of an earlier run, or checkpoints in the layout of NV-Generate-CT.

`model.json` records the origin of converted weights, their licence, and the facts that their file does not contain.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medlord_bench.contracts import Cohort, Run, Stage
from medlord_bench.errors import MissingError, UserError
from medlord_bench.nn.adoption import only_one
from medlord_bench.nn.checkpoints import load_model, load_strict, read_torch, stored_models
from medlord_bench.nn.diffusion.latents import FACTS, latent_facts
from medlord_bench.nn.pretrained import WeightsFile, find
from medlord_bench.util.files import write_json
from medlord_bench.util.hashing import file_sha256

from .autoencoder import Autoencoder, load_autoencoder, save_autoencoder
from .configs import FOUNDATION_LICENCE, Foundation, MAISIConfig
from .control import load_controlnet, save_controlnet
from .diffusion import ARCHITECTURE, load_diffusion, save_diffusion
from .latents import SPACING, encode_cohort
from .spacing import case_spacing
from .unet import ControlNet, UNet

Tensors = Mapping[str, torch.Tensor]
Loader = Callable[[Path], object]

LOADERS: Mapping[str, Loader] = {
    "autoencoder": lambda folder: load_autoencoder(folder, "cpu", "fp32"),
    "diffusion": lambda folder: load_diffusion(folder, "cpu"),
    "controlnet": lambda folder: load_controlnet(folder, "cpu"),
}
# Stage -> the first part of the names of NV-Generate's files.
UPSTREAM: Mapping[str, str] = {"autoencoder": "autoencoder", "diffusion": "diff_unet", "controlnet": "controlnet"}
# The bench's regions that NV-Generate's ControlNet knows -> their numbers in its table of labels.
UPSTREAM_LABELS: Mapping[str, int] = {
    "liver": 1,
    "spleen": 3,
    "aorta": 6,
    "inferior_vena_cava": 7,
    "esophagus": 11,
    "stomach": 12,
    "lung_upper_lobe_left": 28,
    "lung_lower_lobe_left": 29,
    "lung_upper_lobe_right": 30,
    "lung_middle_lobe_right": 31,
    "lung_lower_lobe_right": 32,
    "trachea": 57,
    "heart": 115,
    "pulmonary_vein": 119,
    "spinal_cord": 121,
    "sternum": 122,
    "superior_vena_cava": 125,
}


@dataclass(frozen=True)
class Job:
    """The inputs for adopting one stage; see `contracts.Generator.adopt`."""

    config: MAISIConfig
    stage: str
    data: Cohort
    inputs: Mapping[str, Path]
    folder: Path


def adopt(
    config: MAISIConfig, stage: Stage, source: Path, data: Cohort, inputs: Mapping[str, Path], out: Path, run: Run
) -> Path:
    """Adopt the weights of one stage from `source`; see `contracts.Generator.adopt`.

    source: weights of the bench (a run's `weights` folder, a folder with ``<stage>/model.json``, or the folder of one
    stage's `model.json`); or NV-Generate's ``autoencoder*.pt``, ``diff_unet*.pt`` and ``controlnet*.pt``: a folder that
    contains them, directly or in `models/`, or one such file.
    """
    if stage.name == "latents":
        return _latents(config, source, data, inputs, out, run)
    path = find_weights(source, stage.name)
    job = Job(config, stage.name, data, inputs, out / "adopted")
    shutil.rmtree(job.folder, ignore_errors=True)
    if path.is_dir():
        return _copy(job, path)
    return _convert(job, path, {}, run)


def adopt_foundation(config: MAISIConfig, published: Foundation, out: Path, run: Run) -> Path:
    """Adopt the published autoencoder from the offline folder or the hub. Raises `MissingError` if not available."""
    spec = WeightsFile(repo=published.repository, file=published.file, sha256=published.sha256)
    found = find(spec, run.weights_dir, run.offline)
    folder = out / "adopted"
    shutil.rmtree(folder, ignore_errors=True)
    facts = {"repository": published.repository, "locked": found.locked}
    return _publish_autoencoder(config, folder, found.path, facts, run)


# ------------------------------------------------------------------------------------------------ finding the weights
def find_weights(source: Path, stage: str) -> Path:
    """The weights of a stage at the path of `--weights`: a folder with `model.json`, or a file of NV-Generate.

    Raises `MissingError` if there are none, and `UserError` if there are several.
    """
    hint = "; or omit the condition with --no-conditional" if stage == "controlnet" else ""
    expected = f"a folder with {stage}/model.json, a run's weights folder, or NV-Generate's {UPSTREAM[stage]}*.pt{hint}"
    found = [*stored_models(source, stage, f"maisi.{stage}"), *_theirs(source, stage)]
    return only_one(found, source, stage, expected)


def _theirs(source: Path, stage: str) -> list[Path]:
    if source.is_file():
        return [source] if source.name.startswith(UPSTREAM[stage]) else []
    pattern = f"{UPSTREAM[stage]}*.pt"
    return [*sorted(source.glob(pattern)), *sorted((source / "models").glob(pattern))]


# ---------------------------------------------------------------------------------------------------- the latent scale
def _latents(config: MAISIConfig, source: Path, data: Cohort, inputs: Mapping[str, Path], out: Path, run: Run) -> Path:
    """Write `latents.json` only if the U-Net has a scale, since no stage is trained; otherwise encode the cohort."""
    shape = config.native(data.protocol.grid.shape)
    try:
        diffusion = find_weights(source, "diffusion")
    except MissingError:
        return encode_cohort(config.latents, data, shape, inputs, out, run)
    described, _ = load_model(inputs["autoencoder"], "maisi.autoencoder")
    scale = load_diffusion(diffusion, "cpu").latent_scale if diffusion.is_dir() else _checkpoint(diffusion)[1]
    spacings = [case_spacing(data, case_id, shape) for case_id in data.ids("train")]
    facts = {"scale": scale, "measured": False, "channels": described["net"]["latent_channels"]}
    folder = out / "latents"
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / FACTS, facts | {SPACING: np.median(spacings, axis=0).tolist()})
    return folder


# --------------------------------------------------------------------------------------------------------- our weights
def _copy(job: Job, source: Path) -> Path:
    """Copy weights of the bench. They are loaded first, so that unusable weights are reported now."""
    LOADERS[job.stage](source)
    described, _ = load_model(source, f"maisi.{job.stage}")
    if job.stage == "diffusion":
        channels = latent_facts(job.inputs["latents"])["channels"]
        if described["latent_channels"] != channels:
            raise UserError(
                f"{source}: the U-Net expects latents of {described['latent_channels']} channels, the autoencoder's "
                f"have {channels}; give a pair that was trained together"
            )
    if job.stage == "controlnet":
        own, _ = load_model(job.inputs["diffusion"], "maisi.diffusion")
        for name in ARCHITECTURE:
            if described[name] != own[name]:
                raise UserError(
                    f"{source}: the ControlNet expects a U-Net with {name} {described[name]}, the U-Net has "
                    f"{own[name]}; give a pair that was trained together"
                )
    shutil.copytree(source, job.folder)
    return job.folder


# ------------------------------------------------------------------------------------------------- NV-Generate's files
def _convert(job: Job, path: Path, facts: Mapping[str, Any], run: Run) -> Path:
    """Convert a checkpoint of NV-Generate's layout to the bench's format."""
    if job.stage == "autoencoder":
        return _publish_autoencoder(job.config, job.folder, path, facts, run)
    if job.stage == "diffusion":
        _convert_diffusion(job, path)
    else:
        _convert_controlnet(job, path)
    _record(job.folder, path, facts, run)
    return job.folder


def _publish_autoencoder(config: MAISIConfig, folder: Path, path: Path, facts: Mapping[str, Any], run: Run) -> Path:
    tensors = _tensors(read_torch(path), path, None)
    net = Autoencoder(config.autoencoder.net)
    load_strict(net, tensors, str(path))
    save_autoencoder(folder, config.autoencoder.net, net.state_dict(), config.hu_window, {})
    _record(folder, path, facts, run)
    return folder


def _convert_diffusion(job: Job, path: Path) -> None:
    tensors, scale, timesteps = _checkpoint(path)
    config = job.config.diffusion
    found = "rflow" if "class_embedding.weight" in tensors else "ddpm"
    if found != config.schedule:
        raise UserError(
            f"{path}: the U-Net has the schedule {found!r}, but generator.diffusion.schedule is {config.schedule!r}; "
            f"use --set generator.diffusion.schedule={found}"
        )
    config = config.model_copy(update={"timesteps": timesteps})
    channels = job.config.autoencoder.net.latent_channels
    net = UNet(config, channels)
    load_strict(net, tensors, f"{path}: unet_state_dict")
    spacing = latent_facts(job.inputs["latents"])[SPACING]
    save_diffusion(job.folder, config, tensors, scale, (spacing[0], spacing[1], spacing[2]))


def _convert_controlnet(job: Job, path: Path) -> None:
    regions = job.data.protocol.condition_regions
    unknown = [region for region in regions if region not in UPSTREAM_LABELS]
    if unknown or not regions:
        raise UserError(
            f"{path}: NV-Generate's ControlNet has no label for {', '.join(unknown) or 'no region'}, on which the "
            f"protocol {job.data.protocol.name} conditions; train one, or omit the condition with --no-conditional"
        )
    checkpoint = read_torch(path)
    tensors = _tensors(checkpoint, path, "controlnet_state_dict")
    diffusion = load_diffusion(job.inputs["diffusion"], "cpu").unet
    embedding = job.config.controlnet.embedding_channels
    net = ControlNet(diffusion.config, embedding, diffusion.in_channels)
    load_strict(net, tensors, f"{path}: controlnet_state_dict")
    numbers = {region: UPSTREAM_LABELS[region] for region in regions}
    save_controlnet(job.folder, diffusion.config, embedding, numbers, tensors)


def _checkpoint(path: Path) -> tuple[Tensors, float, int]:
    """Tensors, latent scale and T of a U-Net's file. Raises `UserError` with the name of an invalid field."""
    found = read_torch(path)
    tensors = _tensors(found, path, "unet_state_dict")
    try:
        scale, timesteps = float(found["scale_factor"]), int(found["num_train_timesteps"])
    except KeyError as error:
        raise UserError(f"{path}: no field {error}; give a U-Net checkpoint as NV-Generate saves it") from None
    except (TypeError, ValueError, RuntimeError):
        raise UserError(f"{path}: field scale_factor or num_train_timesteps: expected one number each") from None
    if not math.isfinite(scale) or scale <= 0 or timesteps < 2:
        raise UserError(
            f"{path}: field scale_factor is {scale} and num_train_timesteps {timesteps}; expected a positive number "
            "and at least 2"
        )
    return tensors, scale, timesteps


def _tensors(found: Any, path: Path, field: str | None) -> Tensors:
    """The state dict in `field` of a checkpoint; if `field` is None, the checkpoint itself."""
    if field is not None:
        if not isinstance(found, Mapping) or field not in found:
            raise UserError(f"{path}: no field {field!r}; give a checkpoint as NV-Generate saves it")
        found = found[field]
    if not isinstance(found, Mapping) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        where = "the file" if field is None else f"field {field!r}"
        raise UserError(f"{path}: {where} is not a state dict; expected tensors by name")
    return {str(name): value.float() if value.is_floating_point() else value for name, value in found.items()}


def _record(folder: Path, path: Path, facts: Mapping[str, Any], run: Run) -> None:
    """Write the origin of converted weights and their licence to `model.json` and to the log."""
    description = folder / "model.json"
    found = json.loads(description.read_text())
    origin = {"file": path.name, "sha256": file_sha256(path), **facts}
    write_json(
        description, found | {"config": found["config"] | {"converted_from": origin, "licence": FOUNDATION_LICENCE}}
    )
    run.log.warning("weights: %s (sha256 %s). %s", path, origin["sha256"], FOUNDATION_LICENCE)
