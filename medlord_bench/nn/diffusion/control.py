"""ControlNets (Zhang et al. 2023): training of a network that reads a condition and controls a frozen denoiser."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medlord_bench.contracts import Cohort, Request, Run
from medlord_bench.contracts.regions import condition_values
from medlord_bench.errors import UserError
from medlord_bench.nn.diffusion.latents import Latents
from medlord_bench.nn.diffusion.schedules import NoiseSchedule
from medlord_bench.nn.diffusion.training import LatentRecipe, Optimisation

# Output of a ControlNet: one tensor to add to each skip connection, and one for the middle block's output.
Residuals = tuple[Sequence[Tensor], Tensor]
PREFIX = "controlnet."  # prefix of the ControlNet's parameters in a `ControlledUNet`


def condition_regions(cohort: Cohort) -> tuple[str, ...]:
    """The condition regions in the protocol's order. Raises `UserError` if the protocol has none."""
    regions = cohort.protocol.condition_regions
    if not regions:
        raise UserError(f"protocol {cohort.protocol.id()}: no condition_regions; set the regions to condition on")
    return regions


def region_masks(labels: NDArray[np.uint8], names: Mapping[int, str], regions: Sequence[str]) -> torch.Tensor:
    """One binary mask per region: labels uint8 (X, Y, Z) -> masks bool (K, X, Y, Z).

    names: label value to region name. Raises `UserError` for a region that the label map does not define. A region that
    is defined but absent from this volume gives an empty mask.
    """
    masks = np.empty((len(regions), *labels.shape), dtype=np.bool_)
    for mask, region in zip(masks, regions, strict=True):
        first, *others = condition_values(region, names)
        np.equal(labels, first, out=mask)
        for value in others:
            mask |= labels == value
    return torch.from_numpy(masks)


def requested_masks(requests: Sequence[Request], regions: Sequence[str]) -> Tensor:
    """The masks of N requests, bool (N, K, X, Y, Z) on the CPU. Raises `UserError` for a request without a label map."""
    masks = []
    for request in requests:
        if request.condition is None:
            raise UserError(f"sample {request.index}: no condition; conditional sampling needs a label map")
        masks.append(region_masks(request.condition.labels, request.condition.names, regions))
    return torch.stack(masks)


class ControlledUNet(nn.Module):
    """The frozen U-Net and the ControlNet in training, as one network.

    unet: called with noisy latents, times, the U-Net's own conditions, and `Residuals`. controlnet: called with noisy
    latents, times and an embedded condition. embed: maps the last condition to its embedding.
    """

    def __init__(self, unet: nn.Module, controlnet: nn.Module, embed: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.unet, self.controlnet, self.embed = unet, controlnet, embed

    def forward(self, x: Tensor, times: Tensor, *conditions: Tensor) -> Tensor:
        """x: latents (N, C, x, y, z); times: (N,); the last of `conditions` is the ControlNet's. Returns x's shape."""
        *own, condition = conditions
        predicted: Tensor = self.unet(x, times, *own, self.controlnet(x, times, self.embed(condition)))
        return predicted


class ControlRecipe(LatentRecipe):
    """The conditional stage: the averaged weights of the denoiser are frozen; a new network that controls it is trained.

    unet, controlnet, embed: of a `ControlledUNet`. Raises `UserError` if a split is empty.
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
        stage: str = "controlnet",
    ) -> None:
        self.cohort = cohort
        model = ControlledUNet(unet.requires_grad_(False), controlnet, embed)
        super().__init__(config, schedule, model, controlnet, latents, run, stage)

    def labels(self, case_id: str) -> NDArray[np.uint8]:
        """The label map of a case, uint8 (X, Y, Z). Raises `UserError` if the case has none."""
        labels = self.cohort.labels(case_id)
        if labels is None:
            raise UserError(f"case {case_id}: has no mask; conditional training needs one per case")
        return labels

    def averaged(self) -> dict[str, Tensor]:
        """The averaged weights of the ControlNet, under the ControlNet's names."""
        return {name.removeprefix(PREFIX): value for name, value in self.ema.shadow.items()}
