"""Weights instead of training: ours from an earlier run, or the authors' checkpoints, published or one's own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from medlord_bench.contracts import Cohort, Run, Stage
from medlord_bench.errors import MissingError, UserError
from medlord_bench.nn.intensity import Window
from medlord_bench.nn.vqgan import VQGAN

from .autoencoder import load_autoencoder, save_autoencoder
from .conditioning import load_controlnet
from .configs import MedLoRDConfig
from .convert import convert_upstream
from .diffusion import Diffusion, load_diffusion, save_diffusion
from .latents import StoredLatents, encode_cohort
from .schedule import CosineSchedule
from .unet import build_unet

LOADERS: Mapping[str, Callable[[Path, str], object]] = {
    "autoencoder": load_autoencoder,
    "diffusion": load_diffusion,
    "controlnet": load_controlnet,
}
UPSTREAM = {"autoencoder": "*vqgan*.pth", "diffusion": "*ldm*.pth"}


def adopt(
    config: MedLoRDConfig,
    stage: Stage,
    source: Path,
    data: Cohort,
    inputs: Mapping[str, Path],
    out: Path,
    run: Run,
) -> Path:
    """One stage's weights from `source`; see `contracts.Generator.adopt`.

    Looked for in this order: ``source/<stage>/model.json`` or ``source/*_<stage>/weights/model.json`` (a run's
    `weights` folder), ``source/model.json`` for the autoencoder, and the authors' ``*vqgan*.pth`` and ``*ldm*.pth``.
    """
    if stage.name == "latents":
        return encode_cohort(config.latents, data, inputs, out, run)
    places = [source / stage.name, *sorted(source.glob(f"*_{stage.name}/weights"))]
    ours = next((place for place in places if (place / "model.json").exists()), None)
    if ours is not None:
        return _copy(stage.name, ours, inputs, out)
    theirs = (
        []
        if stage.name not in UPSTREAM
        else [source]
        if source.is_file()
        else sorted(source.glob(UPSTREAM[stage.name]))
    )
    if len(theirs) > 1:
        raise UserError(f"--weights {source}: {len(theirs)} files match {UPSTREAM[stage.name]}; leave one")
    if not theirs:
        expected = f"{stage.name}/model.json" + (f" or {UPSTREAM[stage.name]}" if stage.name in UPSTREAM else "")
        hint = "; leave the condition out with --no-conditional" if stage.name == "controlnet" else ""
        raise MissingError(f"--weights {source}: nothing for the stage {stage.name}; expected {expected}{hint}")
    return _convert(config, stage.name, theirs[0], data.protocol.grid.hu_window, data, inputs, out)


def adopt_pretrained(
    config: MedLoRDConfig, stage: Stage, data: Cohort, inputs: Mapping[str, Path], out: Path, run: Run
) -> Path:
    """The stage's published weights, from the offline folder or the hub (exit 3 where they cannot be had)."""
    from medlord_bench.weights import WeightsFile, find

    published = config.pretrained
    assert published is not None
    files = {"autoencoder": published.autoencoder, "diffusion": published.diffusion}
    if stage.name not in files:
        raise MissingError(
            f"{published.repository}: no weights are published for the stage {stage.name}; "
            "leave the condition out with --no-conditional"
        )
    found = find(WeightsFile(repo=published.repository, file=files[stage.name]), run.weights_dir, run.offline)
    run.log.info("weights: %s (%s)", found.path, "locked" if found.locked else "hash recorded now")
    return _convert(config, stage.name, found.path, published.hu_window, data, inputs, out)


def _copy(name: str, source: Path, inputs: Mapping[str, Path], out: Path) -> Path:
    """Our own weights: loaded once, so that what cannot be used is an error now, then copied."""
    LOADERS[name](source, "cpu")
    if name == "diffusion":
        _check_scale(source, inputs["latents"])
    folder = out / "adopted"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder)
    return folder


def _check_scale(source: Path, latents: Path) -> None:
    """Weights that do not know their latent scale take the one measured on this cohort."""
    if json.loads((source / "model.json").read_text())["config"]["latent_scale"] is None:
        raise UserError(f"{source / 'model.json'}: latent_scale is null; give it there ({latents} has this cohort's)")


def _convert(
    config: MedLoRDConfig,
    name: str,
    path: Path,
    window: Window,
    data: Cohort,
    inputs: Mapping[str, Path],
    out: Path,
) -> Path:
    """The authors' checkpoint as ours. T and the latent scale are not in it: T is the config's, stated as assumed."""
    folder = out / "adopted"
    if name == "autoencoder":
        converted = convert_upstream(path, "vqgan")
        net = VQGAN(converted.config)
        net.load_state_dict(converted.tensors, strict=True)
        save_autoencoder(folder, net, window, {"converted_from": path.name, "tensors": converted.source})
        return folder
    converted = convert_upstream(path, "ldm")
    scale = StoredLatents(inputs["latents"], data).scale
    schedule = CosineSchedule(config.diffusion.timesteps)
    save_diffusion(folder, Diffusion(build_unet(converted.config), schedule, None, scale), converted.tensors)
    return folder
