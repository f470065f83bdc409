"""Adoption of weights instead of training: of an earlier run, or checkpoints written by the authors' code.

Facts that the authors' files do not contain are assumed. They are printed in the log and written to `model.json`
(field "assumed"). A correction in that file takes effect when its folder is adopted again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medlord_bench.contracts import Cohort, Run, Stage
from medlord_bench.errors import MissingError, UserError
from medlord_bench.nn.adoption import (
    adopt_latents,
    authors_files,
    describe,
    description,
    only_one,
    read_latent_facts,
    vqgan_config,
)
from medlord_bench.nn.checkpoints import stored_models
from medlord_bench.nn.diffusion.schedules import CosineSchedule
from medlord_bench.nn.intensity import Window
from medlord_bench.nn.vqgan.network import VQGAN
from medlord_bench.nn.vqgan.training import load_autoencoder, save_autoencoder
from medlord_bench.util.hashing import file_sha256

from .conditioning import load_controlnet, save_controlnet
from .configs import MedLoRDConfig, UNetConfig
from .controlnet import build_controlnet
from .convert import Converted, Kind, Unstored, convert_upstream
from .diffusion import Diffusion, load_diffusion, save_diffusion
from .unet import build_unet

LOADERS: Mapping[str, Callable[[Path, str], object]] = {
    "autoencoder": load_autoencoder,
    "diffusion": load_diffusion,
    "controlnet": load_controlnet,
}
# Stage -> the authors' name for it. The name of an authors' file must contain it; "ldm_controlnet.pth" is a ControlNet.
UPSTREAM: Mapping[str, Kind] = {"controlnet": "controlnet", "autoencoder": "vqgan", "diffusion": "ldm"}
# The authors' `condition_keys`, in the order of the mask channels, under the bench's names.
UPSTREAM_REGIONS = ("aorta", "left_atrium", "right_atrium", "lv_myocardium", "left_ventricle", "right_ventricle")
UPSTREAM_WINDOW: Window = (-1000, 1000)  # the authors' transforms and samplers; the paper uses -1000..2000 for CCTA


@dataclass(frozen=True)
class Job:
    """The inputs for adopting one stage; see `contracts.Generator.adopt`.

    window: the HU range that the authors' autoencoder maps to [-1, 1]. averaged: read the authors' averaged weights.
    """

    config: MedLoRDConfig
    stage: str
    data: Cohort
    inputs: Mapping[str, Path]
    folder: Path
    run: Run
    window: Window
    averaged: bool = True


def adopt(
    config: MedLoRDConfig,
    stage: Stage,
    source: Path,
    data: Cohort,
    inputs: Mapping[str, Path],
    out: Path,
    run: Run,
) -> Path:
    """Adopt the weights of one stage from `source`; see `contracts.Generator.adopt`.

    source: a checkpoint of the authors' code or a folder of them (``*vqgan*.pth``, ``*ldm*.pth``,
    ``*controlnet*.pth``); or weights of the bench: a run's `weights` folder, a folder with ``<stage>/model.json``, or
    the folder of one stage's `model.json`. If `source` contains a ControlNet of the authors, the raw weights of the
    U-Net are read, because the authors train the ControlNet against them; otherwise the averaged weights.
    """
    if stage.name == "latents":
        return adopt_latents(config.latents, find_weights(source, "diffusion"), data, inputs, out, run)
    path = find_weights(source, stage.name)
    window = UPSTREAM_WINDOW if config.pretrained is None else config.pretrained.hu_window
    averaged = stage.name != "diffusion" or not authors_files(source, "controlnet", UPSTREAM)
    job = Job(config, stage.name, data, inputs, out / "adopted", run, window, averaged)
    shutil.rmtree(job.folder, ignore_errors=True)
    return _convert(job, path) if path.is_file() else _copy(job, path)


def adopt_pretrained(
    config: MedLoRDConfig, stage: Stage, data: Cohort, inputs: Mapping[str, Path], out: Path, run: Run
) -> Path:
    """Adopt the stage's published weights from the offline folder or the hub (exit code 3 if not available)."""
    from medlord_bench.nn.pretrained import WeightsFile, find

    published = config.pretrained
    assert published is not None
    files = {"autoencoder": published.autoencoder, "diffusion": published.diffusion}
    if stage.name not in files:
        raise MissingError(
            f"{published.repository}: no weights are published for the stage {stage.name}; "
            "omit the condition with --no-conditional"
        )
    found = find(WeightsFile(repo=published.repository, file=files[stage.name]), run.weights_dir, run.offline)
    run.log.info("weights: %s (%s)", found.path, "locked" if found.locked else "hash recorded now")
    return _convert(Job(config, stage.name, data, inputs, out / "adopted", run, published.hu_window), found.path)


# ------------------------------------------------------------------------------------------------ finding the weights
def find_weights(source: Path, stage: str) -> Path:
    """The weights of a stage at the path of `--weights`: a folder with `model.json`, or a file of the authors.

    Raises `MissingError` if there are none, and `UserError` if there are several.
    """
    hint = "; or omit the condition with --no-conditional" if stage == "controlnet" else ""
    expected = (
        f"a folder with {stage}/model.json, a run's weights folder, or the authors' *{UPSTREAM[stage]}*.pth{hint}"
    )
    found = [*stored_models(source, stage, f"medlord.{stage}"), *authors_files(source, stage, UPSTREAM)]
    return only_one(found, source, stage, expected)


# --------------------------------------------------------------------------------------------------------- our weights
def _copy(job: Job, source: Path) -> Path:
    """Copy weights of the bench. They are loaded first, so that unusable weights are reported now."""
    LOADERS[job.stage](source, "cpu")
    described = description(source)
    if job.stage == "diffusion":
        _check_channels(UNetConfig.model_validate(described["net"]), job.inputs["latents"], source)
    if job.stage == "controlnet":
        _check_control(UNetConfig.model_validate(described["unet"]), described["downsampling"], job.inputs, source)
    shutil.copytree(source, job.folder)
    if job.stage == "diffusion" and described.get("latent_scale") is None:
        facts = read_latent_facts(job.inputs["latents"])
        describe(job.folder, {"latent_scale": facts.scale, "latent_scale_is": facts.origin})
    return job.folder


# -------------------------------------------------------------------------------------------------- the authors' files
def _convert(job: Job, path: Path) -> Path:
    """Convert a checkpoint of the authors' code to the bench's format."""
    make = {"autoencoder": _convert_autoencoder, "diffusion": _convert_diffusion, "controlnet": _convert_controlnet}
    converted, assumed, facts = make[job.stage](job, path)
    source = {"file": path.name, "sha256": file_sha256(path), "part": converted.source}
    describe(job.folder, {"converted_from": source, "assumed": assumed, **facts})
    listed = "; ".join(f"{name} {value}" for name, value in assumed.items())
    job.run.log.warning(
        "%s: converted from %s (%s); assumed, not stored in the file: %s", job.stage, path, converted.source, listed
    )
    return job.folder


Outcome = tuple[Converted, dict[str, Any], dict[str, Any]]  # the conversion, the assumed facts, further facts


def _convert_autoencoder(job: Job, path: Path) -> Outcome:
    converted = convert_upstream(path, "vqgan")
    net = VQGAN(converted.config)
    net.load_state_dict(converted.tensors, strict=True)
    save_autoencoder(job.folder, net, job.window, {})
    return converted, {"hu_window": list(job.window)}, {}


def _convert_diffusion(job: Job, path: Path) -> Outcome:
    configured = job.config.diffusion
    converted = convert_upstream(path, "ldm", Unstored(like=configured.net), job.averaged)
    net: UNetConfig = converted.config
    facts = read_latent_facts(job.inputs["latents"])
    _check_channels(net, job.inputs["latents"], path)
    model = Diffusion(build_unet(net, "meta"), CosineSchedule(configured.timesteps), None, facts.scale)
    save_diffusion(job.folder, model, converted.tensors)
    if not job.averaged:
        job.run.log.warning("diffusion: reads the raw weights, on which the authors train their ControlNet")
    return converted, {"timesteps": configured.timesteps, **_heads(net)}, {"latent_scale_is": facts.origin}


def _convert_controlnet(job: Job, path: Path) -> Outcome:
    wanted = job.data.protocol.condition_regions
    if set(wanted) != set(UPSTREAM_REGIONS):
        raise UserError(
            f"{path}: the authors' ControlNet is conditioned on {', '.join(UPSTREAM_REGIONS)}, but the protocol "
            f"{job.data.protocol.name} on {', '.join(wanted) or 'no region'}; use a data set with those regions, or "
            "remove this file and use --no-conditional"
        )
    unet = UNetConfig.model_validate(description(job.inputs["diffusion"])["net"])
    factor = vqgan_config(job.inputs["autoencoder"]).factor
    known = Unstored(unet.num_head_channels, unet.norm_num_groups, downsampling=factor)
    converted = convert_upstream(path, "controlnet", known)
    described = converted.config
    if described.masks != len(UPSTREAM_REGIONS):
        raise UserError(
            f"{path}: reads {described.masks} masks, expected {len(UPSTREAM_REGIONS)}, one per region of the authors; "
            "use another checkpoint"
        )
    _check_control(described.unet, factor, job.inputs, path)
    net = build_controlnet(described.net, described.unet, described.masks, factor, "meta")
    # Masks are built in the order of the stored regions: with the authors' order the weights need no permutation.
    save_controlnet(job.folder, net, described.unet, UPSTREAM_REGIONS, factor, converted.tensors)
    return converted, {"regions": list(UPSTREAM_REGIONS), **_heads(unet)}, {}


def _heads(net: UNetConfig) -> dict[str, Any]:
    return {"num_head_channels": list(net.num_head_channels), "norm_num_groups": net.norm_num_groups}


# --------------------------------------------------------------------------------------------------- parts that fit
def _check_channels(net: UNetConfig, latents: Path, where: Path) -> None:
    channels = read_latent_facts(latents).channels
    if net.latent_channels != channels:
        raise UserError(
            f"{where}: the U-Net expects latents of {net.latent_channels} channels, the autoencoder's have {channels}; "
            "give a pair that was trained together"
        )


def _check_control(unet: UNetConfig, downsampling: int, inputs: Mapping[str, Path], where: Path) -> None:
    """A ControlNet must match the levels of its U-Net and the downsampling factor of its autoencoder."""
    own, factor = (
        UNetConfig.model_validate(description(inputs["diffusion"])["net"]),
        vqgan_config(inputs["autoencoder"]).factor,
    )
    for name in ("latent_channels", "channels", "num_res_blocks", "attention_levels"):
        if getattr(unet, name) != getattr(own, name):
            raise UserError(
                f"{where}: the ControlNet expects a U-Net with {name} {getattr(unet, name)}, the U-Net has "
                f"{getattr(own, name)}; give a pair that was trained together"
            )
    if downsampling != factor:
        raise UserError(
            f"{where}: the ControlNet expects latents at 1/{downsampling}, the autoencoder's are at 1/{factor}; "
            "give a pair that was trained together"
        )
