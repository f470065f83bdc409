"""MAISI's training stages. Each is a recipe for the bench's training loop."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from medlord_bench.contracts import Cohort, Run, Stage
from medlord_bench.nn.training import Horizon, fit
from medlord_bench.volumes.native_grid import native_grid, on_native_grid

from .autoencoder import AutoencoderRecipe
from .configs import MAISIConfig
from .control import ControlNetRecipe
from .diffusion import DiffusionRecipe, load_diffusion
from .latents import StoredLatents, encode_cohort


def train(config: MAISIConfig, stage: Stage, data: Cohort, inputs: Mapping[str, Path], out: Path, run: Run) -> Path:
    """Train one stage in `out`; see `contracts.Generator.train`."""
    shape = config.native(data.protocol.grid.shape)
    if stage.name == "latents":
        return encode_cohort(config.latents, data, shape, inputs, out, run)
    if stage.name == "autoencoder":
        if config.foundation is not None:
            from .adoption import adopt_foundation

            return adopt_foundation(config, config.foundation, out, run)
        windowed = data.protocol.grid.model_copy(update={"hu_window": config.hu_window})
        cohort = on_native_grid(data, native_grid(windowed, shape, "resize"), "resize", out / "native")
        recipe = AutoencoderRecipe(config.autoencoder, cohort, config.hu_window, run)
        return fit(recipe, Horizon.of(config.autoencoder, stage), out, run, stage.name)
    latents = StoredLatents(inputs["latents"], data)
    if stage.name == "diffusion":
        unconditional = DiffusionRecipe(config.diffusion, latents, config.autoencoder.net.latent_channels, run)
        return fit(unconditional, Horizon.of(config.diffusion, stage), out, run, stage.name)
    diffusion = load_diffusion(inputs["diffusion"], run.device)
    conditional = ControlNetRecipe(config.controlnet, diffusion, latents, data, shape, run)
    return fit(conditional, Horizon.of(config.controlnet, stage), out, run, stage.name)
