"""Adoption of weights instead of training: of an earlier run, or checkpoints written by the authors' code.

Facts that the authors' files do not contain are assumed. They are printed in the log and written to `model.json`
(field "assumed").
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from medlord_bench.contracts import Cohort, Run, Shape, Stage
from medlord_bench.errors import MissingError, UserError
from medlord_bench.nn.adoption import (
    Checkpoint,
    State,
    adopt_latents,
    authors_files,
    describe,
    description,
    only_one,
    read_checkpoint,
    read_latent_facts,
    renamed,
    vqgan_config,
)
from medlord_bench.nn.checkpoints import stored_models
from medlord_bench.nn.diffusion.control import condition_regions
from medlord_bench.nn.diffusion.schedules import CosineSchedule
from medlord_bench.nn.intensity import Window
from medlord_bench.nn.vqgan.network import VQGAN, config_from_state
from medlord_bench.nn.vqgan.training import load_autoencoder, save_autoencoder
from medlord_bench.nn.vqgan.volumes import latent_shape
from medlord_bench.util.hashing import file_sha256

from .adapter import TGCA
from .conditioning import load_tgca, save_tgca
from .configs import DiTConfig, TGCANetConfig, VolDiTConfig
from .diffusion import Diffusion, load_diffusion, save_diffusion
from .transformer import DiT, positions
from .transformer import config_from_state as dit_from_state

LOADERS: Mapping[str, Callable[[Path, str], object]] = {
    "autoencoder": load_autoencoder,
    "diffusion": load_diffusion,
    "tgca": load_tgca,
}
# Stage -> the part of an authors' file name that says so. The transformer is last: every "voldit_..." contains "dit".
UPSTREAM: Mapping[str, str] = {"tgca": "tgca", "autoencoder": "vqgan", "diffusion": "dit"}
UPSTREAM_WINDOW: Window = (-1000, 1000)  # the authors' transforms and samplers
LABELS = "y_embedder.embedding_table.weight"  # of no classes: (0, hidden) in every checkpoint
POSITIONS = "pos_embed"  # computed by the authors in float32
BASE = "base_model."  # the frozen transformer inside an adapter's checkpoint
CLOSE = 1e-4  # of positions: they are sines and cosines, rounded differently


@dataclass(frozen=True)
class Job:
    """The inputs for adopting one stage; see `contracts.Generator.adopt`. window: HU that map to [-1, 1]."""

    config: VolDiTConfig
    stage: str
    data: Cohort
    inputs: Mapping[str, Path]
    folder: Path
    run: Run
    window: Window


def adopt(
    config: VolDiTConfig, stage: Stage, source: Path, data: Cohort, inputs: Mapping[str, Path], out: Path, run: Run
) -> Path:
    """Adopt the weights of one stage from `source`; see `contracts.Generator.adopt`.

    source: a checkpoint of the authors' code or a folder of them (``*vqgan*.pth``, ``*dit*.pth``, ``*tgca*.pth``); or
    weights of the bench: a run's `weights` folder, a folder with ``<stage>/model.json``, or the folder of one stage's
    `model.json`.
    """
    if stage.name == "latents":
        return adopt_latents(config.latents, find_weights(source, "diffusion"), data, inputs, out, run)
    path = find_weights(source, stage.name)
    window = UPSTREAM_WINDOW if config.pretrained is None else config.pretrained.hu_window
    job = Job(config, stage.name, data, inputs, out / "adopted", run, window)
    shutil.rmtree(job.folder, ignore_errors=True)
    return _convert(job, path) if path.is_file() else _copy(job, path)


def adopt_pretrained(
    config: VolDiTConfig, stage: Stage, data: Cohort, inputs: Mapping[str, Path], out: Path, run: Run
) -> Path:
    """Adopt the stage's published weights from the offline folder or the hub (exit code 3 if not available)."""
    from medlord_bench.nn.pretrained import find_matching

    published = config.pretrained
    assert published is not None
    patterns = {"autoencoder": published.autoencoder, "diffusion": published.diffusion}
    if stage.name not in patterns:
        raise MissingError(
            f"{published.repository}: no weights are published for the stage {stage.name}; "
            "omit the condition with --no-conditional"
        )
    found = find_matching(published.repository, patterns[stage.name], run.weights_dir, run.offline)
    lock = "locked" if found.locked else "hash recorded now"
    run.log.warning("weights: %s (%s); licence of %s: %s", found.path, lock, published.repository, published.licence)
    job = Job(config, stage.name, data, inputs, out / "adopted", run, published.hu_window)
    return _convert(job, found.path)


# ------------------------------------------------------------------------------------------------ finding the weights
def find_weights(source: Path, stage: str) -> Path:
    """The weights of a stage at the path of `--weights`: a folder with `model.json`, or a file of the authors.

    Raises `MissingError` if there are none, and `UserError` if there are several.
    """
    hint = "; or omit the condition with --no-conditional" if stage == "tgca" else ""
    expected = (
        f"a folder with {stage}/model.json, a run's weights folder, or the authors' *{UPSTREAM[stage]}*.pth{hint}"
    )
    found = [*stored_models(source, stage, f"voldit.{stage}"), *authors_files(source, stage, UPSTREAM)]
    return only_one(found, source, stage, expected)


# --------------------------------------------------------------------------------------------------------- our weights
def _copy(job: Job, source: Path) -> Path:
    """Copy weights of the bench. They are loaded first, so that unusable weights are reported now."""
    LOADERS[job.stage](source, "cpu")
    described = description(source)
    if job.stage == "diffusion":
        _check_channels(DiTConfig.model_validate(described["net"]), job, source)
    if job.stage == "tgca":
        _check_base(DiTConfig.model_validate(described["dit"]), tuple(described["latent_shape"]), job, source)
    shutil.copytree(source, job.folder)
    return job.folder


# -------------------------------------------------------------------------------------------------- the authors' files
def _convert(job: Job, path: Path) -> Path:
    """Convert a checkpoint of the authors' code to the bench's format."""
    make = {"autoencoder": _convert_autoencoder, "diffusion": _convert_diffusion, "tgca": _convert_tgca}[job.stage]
    found = read_checkpoint(path)
    try:
        assumed, facts = make(job, path, found)
    except KeyError as error:
        raise UserError(
            f"{path}: missing tensor {error}; give a {UPSTREAM[job.stage]} checkpoint of the authors' code"
        ) from None
    except (ValueError, IndexError) as error:  # a pydantic ValidationError is a ValueError
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise UserError(f"{path}: {reason}; no network of the authors has tensors of these shapes") from None
    part = f"{found.source}, with ema.shadow over it" if _has_average(job, found) else found.source
    describe(
        job.folder,
        {"converted_from": {"file": path.name, "sha256": file_sha256(path), "part": part}, "assumed": assumed, **facts},
    )
    listed = "; ".join(f"{name} {value}" for name, value in assumed.items())
    job.run.log.warning(
        "%s: converted from %s (%s); assumed, not stored in the file: %s", job.stage, path, part, listed
    )
    return job.folder


def _has_average(job: Job, found: Checkpoint) -> bool:
    return job.stage != "autoencoder" and found.shadow is not None


Outcome = tuple[dict[str, Any], dict[str, Any]]  # the assumed facts, further facts


def _convert_autoencoder(job: Job, path: Path, found: Checkpoint) -> Outcome:
    try:
        net = VQGAN(config_from_state(found.model))
    except UserError as error:
        raise UserError(f"{path}: {str(error).removeprefix('checkpoint: ')}") from None
    net.load_state_dict(renamed(found.model, net.state_dict(), str, path))
    save_autoencoder(job.folder, net, job.window, {})
    return {"hu_window": list(job.window)}, {}


def _convert_diffusion(job: Job, path: Path, found: Checkpoint) -> Outcome:
    facts, shape = read_latent_facts(job.inputs["latents"]), _shape_of(job)
    like = job.config.diffusion.net
    state = {**found.model, **(found.shadow or {})}
    hidden = state["x_embedder.proj.weight"].shape[0]
    read = dit_from_state(state, like.heads if like.hidden == hidden else None)
    config = read.model_copy(update={"dropout": like.dropout, "attention": like.attention})
    with torch.device("meta"):
        net = DiT(config, shape, "sdpa")
    _check_stored(state, net.grid, config, path)
    _check_channels(config, job, path)
    tensors = renamed(state, net.state_dict(), str, path, {LABELS, POSITIONS}.__contains__)
    save_diffusion(
        job.folder, Diffusion(net, CosineSchedule(job.config.diffusion.timesteps), shape, facts.scale), tensors
    )
    assumed = {"timesteps": job.config.diffusion.timesteps, "heads": config.heads}
    return assumed, {"latent_scale_is": facts.origin}


def _check_stored(state: State, grid: Shape, config: DiTConfig, path: Path) -> None:
    """The tensors that are not in the bench's network: positions equal to its own, and an empty class embedder."""
    expected = torch.from_numpy(positions(config.hidden, grid))[None]  # (1, T, C)
    stored = state[POSITIONS]
    if stored.shape != expected.shape:
        raise UserError(
            f"{path}: {stored.shape[1]} tokens of {stored.shape[2]} channels with patches of {config.patch}, this grid "
            f"has {expected.shape[1]} of {expected.shape[2]}; sample on the grid of its training"
        )
    if not torch.allclose(stored.double(), expected, rtol=0, atol=CLOSE):
        raise UserError(f"{path}: {POSITIONS} are not the sines and cosines of {grid} tokens; use another checkpoint")
    if tuple(state[LABELS].shape) != (0, config.hidden):
        raise UserError(
            f"{path}: {LABELS} is {tuple(state[LABELS].shape)}, expected (0, {config.hidden}): models with classes are "
            "not supported; use a model without classes"
        )


def _convert_tgca(job: Job, path: Path, found: Checkpoint) -> Outcome:
    regions = condition_regions(job.data)
    state = {**found.model, **(found.shadow or {})}
    first = state["condition_embedder.conv_in.conv.weight"]
    if first.shape[1] != len(regions):
        raise UserError(
            f"{path}: reads {first.shape[1]} mask channels, the protocol {job.data.protocol.name} has {len(regions)} "
            f"condition regions ({', '.join(regions)}); use as many regions as channels"
        )
    dit, shape = _base(job)
    channels = [first.shape[0]]
    while (name := f"condition_embedder.blocks.{2 * len(channels) - 1}.conv.weight") in state:
        channels.append(state[name].shape[0])
    net = TGCANetConfig(channels=tuple(channels), control_norm="upstream")
    with torch.device("meta"):
        tgca = TGCA(net, dit, len(regions), shape)
    tensors = renamed(state, tgca.state_dict(), str, path, lambda name: name.startswith(BASE))
    save_tgca(job.folder, tgca, dit, shape, regions, tensors)
    return {"regions": list(regions), "control_norm": "upstream"}, {}


# ------------------------------------------------------------------------------------------------------ parts that fit
def _shape_of(job: Job) -> Shape:
    """(x, y, z) of the latents on the protocol's grid."""
    return latent_shape(job.data.protocol.grid.shape, vqgan_config(job.inputs["autoencoder"]).factor)


def _base(job: Job) -> tuple[DiTConfig, Shape]:
    """The adopted transformer and its latent shape."""
    described = description(job.inputs["diffusion"])
    x, y, z = described["latent_shape"]
    return DiTConfig.model_validate(described["net"]), (x, y, z)


def _check_channels(net: DiTConfig, job: Job, where: Path) -> None:
    channels = read_latent_facts(job.inputs["latents"]).channels
    if net.latent_channels != channels:
        raise UserError(
            f"{where}: the transformer expects latents of {net.latent_channels} channels, the autoencoder's have "
            f"{channels}; give a pair that was trained together"
        )


def _check_base(dit: DiTConfig, shape: tuple[int, ...], job: Job, where: Path) -> None:
    """An adapter must match the size, patch and latents of its transformer."""
    own, own_shape = _base(job)
    pairs = [(name, getattr(dit, name), getattr(own, name)) for name in ("patch", "depth", "hidden")]
    for name, expected, found in (*pairs, ("latents", tuple(shape), own_shape)):
        if expected != found:
            raise UserError(
                f"{where}: the adapter expects a transformer with {name} {expected}, the transformer has {found}; "
                "give a pair that was trained together"
            )
