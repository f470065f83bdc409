"""MedLoRD's training stages. Each is a recipe for the bench's training loop."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from medlord_bench.contracts import Cohort, Run, Stage
from medlord_bench.nn.diffusion.latents import StoredLatents
from medlord_bench.nn.training import Horizon, fit
from medlord_bench.nn.vqgan.latents import encode_cohort
from medlord_bench.nn.vqgan.training import AutoencoderRecipe, load_autoencoder

from .conditioning import ControlNetRecipe
from .configs import MedLoRDConfig
from .diffusion import DiffusionRecipe, load_diffusion


def train(config: MedLoRDConfig, stage: Stage, data: Cohort, inputs: Mapping[str, Path], out: Path, run: Run) -> Path:
    """Train one stage in `out`; see `contracts.Generator.train`."""
    if stage.name == "latents":
        return encode_cohort(config.latents, data, inputs, out, run)
    if config.pretrained is not None:
        from .adoption import adopt_pretrained

        return adopt_pretrained(config, stage, data, inputs, out, run)
    if stage.name == "autoencoder":
        autoencoder = AutoencoderRecipe(config.autoencoder, data, run)
        return fit(autoencoder, Horizon.of(config.autoencoder, stage), out, run, stage.name)
    latents = StoredLatents(inputs["latents"], data)
    if stage.name == "diffusion":
        unconditional = DiffusionRecipe(config.diffusion, latents, run)
        return fit(unconditional, Horizon.of(config.diffusion, stage), out, run, stage.name)
    diffusion = load_diffusion(inputs["diffusion"], run.device)
    factor = load_autoencoder(inputs["autoencoder"], "cpu").factor
    conditional = ControlNetRecipe(config.controlnet, diffusion, latents, data, factor, run)
    return fit(conditional, Horizon.of(config.controlnet, stage), out, run, stage.name)
