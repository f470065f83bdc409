"""MedLoRD's training stages, each a recipe in the bench's loop."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from medlord_bench.contracts import Cohort, Run, Stage
from medlord_bench.nn.training import Horizon, fit
from medlord_bench.nn.vqgan.config import AutoencoderConfig
from medlord_bench.nn.vqgan.training import AutoencoderRecipe, load_autoencoder

from .conditioning import ControlNetRecipe
from .configs import ControlNetConfig, DiffusionConfig, MedLoRDConfig
from .diffusion import DiffusionRecipe, load_diffusion
from .latents import StoredLatents, encode_cohort


def train(config: MedLoRDConfig, stage: Stage, data: Cohort, inputs: Mapping[str, Path], out: Path, run: Run) -> Path:
    """Train one stage in `out`; see `contracts.Generator.train`."""
    if stage.name == "latents":
        return encode_cohort(config.latents, data, inputs, out, run)
    if config.pretrained is not None:
        from .adoption import adopt_pretrained

        return adopt_pretrained(config, stage, data, inputs, out, run)
    if stage.name == "autoencoder":
        return fit(
            AutoencoderRecipe(config.autoencoder, data, run), _horizon(config.autoencoder, stage), out, run, stage.name
        )
    latents = StoredLatents(inputs["latents"], data)
    if stage.name == "diffusion":
        return fit(
            DiffusionRecipe(config.diffusion, latents, run),
            _horizon(config.diffusion, stage),
            out,
            run,
            stage.name,
        )
    diffusion = load_diffusion(inputs["diffusion"], run.device)
    factor = load_autoencoder(inputs["autoencoder"], "cpu").factor
    recipe = ControlNetRecipe(config.controlnet, diffusion, latents, data, factor, run)
    return fit(recipe, _horizon(config.controlnet, stage), out, run, stage.name)


def _horizon(config: AutoencoderConfig | DiffusionConfig | ControlNetConfig, stage: Stage) -> Horizon:
    """As far as the stage says. With its choice, what is published is not decided here."""
    selection = "last" if config.selection == "fid" else config.selection
    return Horizon(stage.steps or 0, config.validate_every, config.checkpoint_every, selection, stage.choice)
