"""ControlNets (Zhang et al. 2023): training one that reads a condition and steers a denoiser that stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from medlord_bench.contracts import Cohort, Run
from medlord_bench.errors import UserError
from medlord_bench.nn.diffusion.latents import Latents
from medlord_bench.nn.diffusion.schedules import NoiseSchedule
from medlord_bench.nn.diffusion.training import LatentRecipe, Optimisation

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# What a ControlNet gives its denoiser: one tensor to add to each skip connection, and one to the middle block's output.
Residuals = tuple[Sequence[Tensor], Tensor]
PREFIX = "controlnet."  # of the ControlNet's parameters in a `ControlledUNet`


def condition_regions(cohort: Cohort) -> tuple[str, ...]:
    """The regions to condition on, in the protocol's order. Raises `UserError` where it names none."""
    regions = cohort.protocol.condition_regions
    if not regions:
        raise UserError(f"protocol {cohort.protocol.id()}: no condition_regions; name those to condition on")
    return regions


class ControlledUNet(nn.Module):
    """The frozen U-Net with the ControlNet that is being trained, as one network.

    unet: called with noisy latents, times, any conditions of its own, and `Residuals`. controlnet: called with noisy
    latents, times and an embedded condition. embed: the last condition to its embedding.
    """

    def __init__(self, unet: nn.Module, controlnet: nn.Module, embed: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.unet, self.controlnet, self.embed = unet, controlnet, embed

    def forward(self, x: Tensor, times: Tensor, *conditions: Tensor) -> Tensor:
        """x: latents (N, C, x, y, z); times: (N,); the last of `conditions` is the ControlNet's. Shaped as x."""
        *own, condition = conditions
        predicted: Tensor = self.unet(x, times, *own, self.controlnet(x, times, self.embed(condition)))
        return predicted


class ControlRecipe(LatentRecipe):
    """The conditional stage: the denoiser's averaged weights stay as they are, a fresh ControlNet is trained.

    unet, controlnet, embed: of a `ControlledUNet`. Raises `UserError` where a split is empty.
    """

    def __init__(
        self,
        config: Optimisation,
        schedule: NoiseSchedule,
        unet: nn.Module,
        controlnet: nn.Module,
        embed: Callable[[Tensor], Tensor],
        latents: Latents,
        cohort: Cohort,
        run: Run,
    ) -> None:
        self.cohort = cohort
        model = ControlledUNet(unet.requires_grad_(False), controlnet, embed)
        super().__init__(config, schedule, model, controlnet, latents, run, stage="controlnet")

    def labels(self, case_id: str) -> NDArray[np.uint8]:
        """A case's label map, uint8 (X, Y, Z). Raises `UserError` where it has none."""
        labels = self.cohort.labels(case_id)
        if labels is None:
            raise UserError(f"case {case_id}: has no mask; conditional training needs one per case")
        return labels

    def averaged(self) -> dict[str, Tensor]:
        """The ControlNet's averaged weights, by its own names."""
        return {name.removeprefix(PREFIX): value for name, value in self.ema.shadow.items()}
