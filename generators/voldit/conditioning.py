"""Conditioning on anatomy: training of the adapter that reads masks of regions, and its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medlord_bench.contracts import Cohort, Run, Shape
from medlord_bench.nn.checkpoints import load_frozen, save_model
from medlord_bench.nn.diffusion.control import ControlRecipe, condition_regions, region_masks
from medlord_bench.nn.diffusion.latents import Latents
from medlord_bench.util import seeds

from .adapter import TGCA
from .configs import DiTConfig, TGCAConfig, TGCANetConfig
from .diffusion import Diffusion

KIND = "voldit.tgca"


class TGCARecipe(ControlRecipe):
    """The conditional stage. The averaged weights of the transformer are frozen, without dropout.

    The protocol defines the condition regions, one mask channel each.
    """

    config: TGCAConfig

    def __init__(self, config: TGCAConfig, diffusion: Diffusion, latents: Latents, cohort: Cohort, run: Run) -> None:
        self.regions, self.diffusion = condition_regions(cohort), diffusion
        torch.manual_seed(seeds.derive(run.seed, "tgca", "initial weights"))
        net = TGCA(config.net, diffusion.net.config, len(self.regions), diffusion.shape).to(run.device)
        self.tgca = net
        # The base stays in evaluation mode: only `trained` is switched to training mode.
        super().__init__(
            config, diffusion.schedule, diffusion.net.eval(), net, net.embed, latents, cohort, run, stage="tgca"
        )

    def conditions(self, case_id: str, rng: torch.Generator | None) -> tuple[Tensor]:
        """The masks of a case, bool (K, X, Y, Z); those that the item lacks are False everywhere."""
        masks = region_masks(self.labels(case_id), self.cohort.label_names, self.regions)
        if rng is not None:
            masks[dropped(len(masks), self.config, rng)] = False
        return (masks,)

    def export(self, folder: Path) -> None:
        """Write the averaged weights."""
        save_tgca(folder, self.tgca, self.diffusion.net.config, self.diffusion.shape, self.regions, self.averaged())


def dropped(masks: int, config: TGCAConfig, rng: torch.Generator) -> Tensor:
    """Which masks a training item lacks, bool (masks,): all with `condition_dropout`, else each on its own."""
    whole = torch.rand((), generator=rng) < config.condition_dropout
    return whole | (torch.rand(masks, generator=rng) < config.channel_dropout)


@dataclass(frozen=True, eq=False)
class Control:
    """A trained adapter and the regions of its mask channels, in order."""

    net: TGCA
    regions: tuple[str, ...]


def save_tgca(
    folder: Path, net: TGCA, dit: DiTConfig, shape: Shape, regions: Sequence[str], weights: Mapping[str, Tensor]
) -> None:
    """Write `weights` of the adapter and all facts that sampling needs."""
    described = {
        "net": net.config.model_dump(mode="json"),
        "dit": dit.model_dump(mode="json"),
        "latent_shape": list(shape),
        "regions": list(regions),
    }
    save_model(folder, KIND, described, weights)


def load_tgca(folder: Path, device: str) -> Control:
    """Load the adapter that `save_tgca` wrote, frozen, on `device`.

    Raises `MissingError` or `UserError` with the path of the file.
    """

    def build(described: dict[str, Any]) -> tuple[TGCA, tuple[str, ...]]:
        x, y, z = (int(side) for side in described["latent_shape"])
        dit, regions = DiTConfig.model_validate(described["dit"]), tuple(described["regions"])
        net = TGCA(TGCANetConfig.model_validate(described["net"]), dit, len(regions), (x, y, z))
        return net.to(device), regions

    return Control(*load_frozen(folder, KIND, build))
