"""What every ControlNet's training shares: a denoiser that stays as it is, and the condition's way to the ControlNet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medlord_bench.contracts import Cohort, DataProtocol, Grid, Run, Split
from medlord_bench.errors import UserError
from medlord_bench.nn.diffusion.control import ControlledUNet, ControlRecipe, Residuals, condition_regions
from medlord_bench.nn.diffusion.schedules import CosineSchedule
from medlord_bench.util.seeds import noise

SHAPE = (2, 4, 4, 2)


class UNet(nn.Module):
    """Adds its residuals; the condition of its own scales its output."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(2, 2, 1)

    def forward(self, x: Tensor, times: Tensor, scale: Tensor, residuals: Residuals | None = None) -> Tensor:
        assert residuals is not None
        (extra,), middle = residuals
        out: Tensor = (self.conv(x) + extra + middle) * scale.view(-1, 1, 1, 1, 1)
        return out


class ControlNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(2, 2, 1)

    def embed(self, masks: Tensor) -> Tensor:
        return masks.float().mean((2, 3, 4), keepdim=True)

    def forward(self, x: Tensor, times: Tensor, embedded: Tensor) -> Residuals:
        h = self.conv(x + embedded)
        return [h], 2 * h


class Latents:
    scale = 1.0

    def ids(self, split: Split) -> Sequence[str]:
        return ["a", "b"]

    def latent(self, case_id: str) -> Tensor:
        return noise(SHAPE, case_id)


class Masked:
    """A cohort in which case b has no mask."""

    label_names = {1: "aorta"}

    def __init__(self, regions: tuple[str, ...] = ("aorta",)) -> None:
        self.protocol = DataProtocol(
            name="masked", grid=Grid(shape=(8, 8, 4)), fit="crop-pad", split="", split_sha256="",
            counts={"train": 2}, masks="dataset", condition_regions=regions,
        )  # fmt: skip

    def labels(self, case_id: str) -> NDArray[np.uint8] | None:
        return np.ones((8, 8, 4), np.uint8) if case_id == "a" else None


class Config:
    batch, parts_of, lr, weight_decay, clip, ema_decay = 2, 2, 1e-2, 0.0, None, 0.5
    precision, loss, times, optimiser = "fp32", "l1", "independent", "adamw"

    def lr_factor(self, step: int) -> float:
        return 1.0


class Recipe(ControlRecipe):
    def conditions(self, case_id: str, rng: torch.Generator | None) -> tuple[Tensor, Tensor]:
        return torch.tensor(0.5), torch.full((1, 8, 8, 4), case_id == "a")


def recipe(run: Run, cohort: Masked | None = None) -> Recipe:
    torch.manual_seed(0)
    unet, control = UNet(), ControlNet()
    data: Any = cohort or Masked()
    return Recipe(cast(Any, Config()), CosineSchedule(10), unet, control, control.embed, Latents(), data, run)


def test_the_last_condition_is_the_controlnets_and_the_others_are_the_denoisers() -> None:
    torch.manual_seed(0)
    unet, control = UNet(), ControlNet()
    model = ControlledUNet(unet, control, control.embed)
    x, times, scale = noise((3, *SHAPE), "x"), torch.arange(3), torch.tensor([0.0, 1.0, 2.0])
    masks = torch.ones(3, 1, 8, 8, 4)
    expected = unet(x, times, scale, control(x, times, torch.ones(3, 1, 1, 1, 1)))
    assert torch.equal(model(x, times, scale, masks), expected)
    assert not expected[0].any() and expected[1].any()
    assert {name.split(".")[0] for name, _ in model.named_parameters()} == {"unet", "controlnet"}


def test_training_leaves_the_denoiser_alone_and_its_average_is_the_controlnets_by_its_own_names(run: Run) -> None:
    made = recipe(run)
    before = {name: value.clone() for name, value in made.model.state_dict().items()}
    for step in range(3):
        made.step(step, made.batch(step))
    after = made.model.state_dict()
    assert {name for name in after if not torch.equal(after[name], before[name])} == {
        "controlnet.conv.weight",
        "controlnet.conv.bias",
    }
    averaged = made.averaged()
    assert set(averaged) == {"conv.weight", "conv.bias"}
    assert not torch.equal(averaged["conv.weight"], after["controlnet.conv.weight"]), "an average lags behind"
    assert made.validate(0)["loss"] > 0


def test_a_cohort_that_cannot_condition_is_refused(run: Run) -> None:
    assert condition_regions(cast(Cohort, Masked())) == ("aorta",)
    with pytest.raises(UserError, match="no condition_regions; set the regions to condition on"):
        condition_regions(cast(Cohort, Masked(regions=())))
    made = recipe(run)
    assert made.labels("a").dtype == np.uint8
    with pytest.raises(UserError, match="case b: has no mask"):
        made.labels("b")
