"""VolDiT's adapter: equal to the formulas, what gate and factors do, a frozen base, dropout drawn for each item."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional

from medlord_bench.contracts import DataProtocol, Grid, Run, Split
from medlord_bench.errors import MissingError, Stopped, UserError
from medlord_bench.generators.voldit.adapter import TGCA
from medlord_bench.generators.voldit.conditioning import TGCARecipe, dropped, load_tgca
from medlord_bench.generators.voldit.configs import ControlNorm, DiTConfig, TGCAConfig, TGCANetConfig
from medlord_bench.generators.voldit.diffusion import Diffusion
from medlord_bench.generators.voldit.transformer import DiT, build_transformer
from medlord_bench.nn.diffusion.schedules import CosineSchedule
from medlord_bench.nn.training import Horizon, fit
from medlord_bench.util.seeds import torch_rng

SHAPE = (4, 4, 6)  # of the latents; masks have 4 times the sides
MASKS = (16, 16, 24)
DIT: dict[str, Any] = {"latent_channels": 3, "depth": 3, "hidden": 24, "heads": 2, "patch": 2}
NORMS: tuple[ControlNorm, ...] = ("before_gate", "upstream")


def opened(module: Any, seed: int) -> Any:
    """The module with random weights in every tensor, except the blocks' factors."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if not name.startswith("adapter_scales"):
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=rng))
    return module.eval()


def base(**changes: Any) -> DiT:
    return opened(build_transformer(DiTConfig(**DIT | changes), SHAPE), 0)


def adapter(norm: ControlNorm, **changes: Any) -> TGCA:
    config = TGCANetConfig(**{"channels": (4, 6, 8, 8), "control_norm": norm} | changes)
    return opened(TGCA(config, DiTConfig(**DIT), 2, SHAPE), 1)


def some_masks() -> torch.Tensor:
    return (torch.rand(1, 2, *MASKS, generator=torch.Generator().manual_seed(2)) < 0.3).float()


# ------------------------------------------------------------------------------------------------------- the formulas
def embedded_by_hand(w: Mapping[str, torch.Tensor], masks: torch.Tensor) -> torch.Tensor:
    """Masks through the convolutions, one stride of 2 after each plain one; tokens (N, T, C)."""

    def conv(name: str, x: torch.Tensor, stride: int) -> torch.Tensor:
        where = f"condition_embedder.{name}.conv"
        return functional.conv3d(x, w[f"{where}.weight"], w[f"{where}.bias"], stride=stride, padding=1)

    h = functional.silu(conv("conv_in", masks, 1))
    for i in range(6):
        h = functional.silu(conv(f"blocks.{i}", h, 1 + i % 2))
    return conv("conv_out", h, 1).flatten(2).transpose(1, 2)


def normed(x: torch.Tensor) -> torch.Tensor:
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-6).sqrt()


@pytest.mark.parametrize("norm", NORMS)
def test_what_a_block_receives_is_the_formula(norm: ControlNorm) -> None:
    tgca, masks, time = adapter(norm), some_masks(), torch.randn(1, 24, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        control = tgca(torch.zeros(1), torch.zeros(1), tgca.embed(masks))
        w = dict(tgca.named_parameters())
        tokens = embedded_by_hand(w, masks)
        gate = torch.sigmoid(time @ w["time_gate.weight"].T + w["time_gate.bias"])
        for block in range(3):
            strength = gate * w[f"adapter_scales.{block}"]
            expected = normed(strength * tokens) if norm == "upstream" else strength * normed(tokens)
            torch.testing.assert_close(control.at(block, time), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("norm", "acts"), [("before_gate", True), ("upstream", False)])
def test_gate_and_factors_act_only_if_the_norm_comes_first(norm: ControlNorm, acts: bool) -> None:
    dit, tgca = base(), adapter(norm)
    x, times = torch.randn(1, 3, *SHAPE, generator=torch.Generator().manual_seed(4)), torch.tensor([9])

    @torch.no_grad()
    def output(scale: float, gate: float) -> torch.Tensor:
        for factor in tgca.adapter_scales:
            factor.fill_(scale)
        tgca.time_gate.weight.zero_()
        tgca.time_gate.bias.fill_(math.log(gate / (1 - gate)))
        return dit(x, times, tgca(x, times, tgca.embed(some_masks())))

    first = output(0.1, 0.5)
    with torch.no_grad():
        size = float((first - dit(x, times)).abs().max())
    assert size > 1e-2, "the masks change the prediction"
    for scale, gate in ((1.0, 0.5), (0.1, 0.98)):
        moved = float((output(scale, gate) - first).abs().max())
        assert moved > 0.05 * size if acts else moved < 0.01 * size


def test_an_embedding_that_ends_on_another_grid_is_resampled() -> None:
    tgca = adapter("before_gate", channels=(4, 6, 8))  # 1/4 of the mask, the tokens are at 1/8
    with torch.no_grad():
        fine = tgca.condition_embedder(some_masks())
        averaged = functional.avg_pool3d(fine, 2).flatten(2).transpose(1, 2)
        torch.testing.assert_close(tgca.embed(some_masks()), normed(averaged), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_before_training_the_adapter_changes_nothing(norm: ControlNorm) -> None:
    dit, x, times = base(), torch.ones(1, 3, *SHAPE), torch.tensor([9])
    tgca = TGCA(TGCANetConfig(channels=(4, 6, 8, 8), control_norm=norm), dit.config, 2, SHAPE)
    with torch.no_grad():
        assert torch.equal(dit(x, times, tgca(x, times, tgca.embed(some_masks()))), dit(x, times))


# ------------------------------------------------------------------------------------------------------------ training
class Made:
    """Three cases, random latents, and labels 1 and 2 in boxes."""

    scale = 1.0
    label_names: Mapping[int, str] = {1: "aorta", 2: "lungs"}

    def __init__(self, regions: tuple[str, ...] = ("lungs", "aorta")) -> None:
        self.protocol = DataProtocol(
            name="made", grid=Grid(shape=MASKS), fit="crop-pad", split="by id", split_sha256="0", counts={},
            masks="dataset", condition_regions=regions,
        )  # fmt: skip

    def ids(self, split: Split) -> list[str]:
        return {"train": ["a", "b"], "val": ["c"], "test": []}[split]

    def hu(self, case_id: str) -> NDArray[np.int16]:
        raise AssertionError

    def latent(self, case_id: str) -> torch.Tensor:
        return torch.randn(3, *SHAPE, generator=torch_rng("latent", case_id))

    def labels(self, case_id: str) -> NDArray[np.uint8] | None:
        labels = np.zeros(MASKS, np.uint8)
        labels[: 4 + ord(case_id) % 3, :5] = 1
        labels[10:, 8:] = 2
        return labels


def recipe(run: Run, data: Made | None = None, **changes: Any) -> TGCARecipe:
    settings = {"net": {"channels": (4, 6, 8, 8)}, "batch": 2, "micro_batch": 1, "precision": "fp32", "ema_decay": 0.5}
    diffusion = Diffusion(base(dropout=0.5), CosineSchedule(10), SHAPE, 1.0)
    made = data or Made()
    return TGCARecipe(TGCAConfig.model_validate(settings | changes), diffusion, made, made, run)


def test_only_the_adapter_is_trained_and_the_base_has_no_dropout(run: Run) -> None:
    one = recipe(run, lr=1e-2)
    dit = one.diffusion.net
    before = {name: value.clone() for name, value in dit.state_dict().items()}
    for step in range(3):
        one.step(step, one.batch(step))
    assert one.tgca.training and not any(part.training for part in dit.modules()), "the base is in evaluation mode"
    assert all(torch.equal(value, before[name]) for name, value in dit.state_dict().items())
    assert all(name.startswith("controlnet.") for name in one.ema.shadow)
    assert float(one.tgca.condition_embedder.conv_out.conv.weight.detach().abs().max()) > 0
    batch = one.batch(0).part(0, 1, "cpu")
    with torch.no_grad():  # dropout of .5 in the base would make two passes differ
        assert torch.equal(one._loss(batch, None), one._loss(batch, None))


def test_a_killed_training_ends_in_the_same_weights(run: Run, tmp_path: Any) -> None:
    import dataclasses

    horizon = Horizon(steps=6, validate_every=2, checkpoint_every=3, selection="last")
    whole = fit(recipe(run), horizon, tmp_path / "whole", run, "tgca")
    polls = iter([False, False, False, True])
    with pytest.raises(Stopped):
        fit(recipe(run), horizon, tmp_path / "parts", dataclasses.replace(run, stop=lambda: next(polls)), "tgca")
    parts = fit(recipe(run), horizon, tmp_path / "parts", run, "tgca")
    assert (whole / "model.safetensors").read_bytes() == (parts / "model.safetensors").read_bytes()
    control = load_tgca(whole, "cpu")
    assert control.regions == ("lungs", "aorta") and control.net.masks == 2


def test_masks_are_in_the_order_of_the_protocols_regions(run: Run) -> None:
    (masks,) = recipe(run).conditions("a", None)
    labels = Made().labels("a")
    assert labels is not None and masks.dtype == torch.bool
    assert torch.equal(masks[0], torch.from_numpy(labels == 2)) and torch.equal(masks[1], torch.from_numpy(labels == 1))


def test_whole_conditions_and_single_masks_are_dropped_for_each_item_on_its_own(run: Run) -> None:
    config = TGCAConfig(condition_dropout=0.2, channel_dropout=0.3)
    drawn = torch.stack([dropped(3, config, torch_rng("item", n)) for n in range(4000)]).double()
    assert drawn.mean(0).numpy() == pytest.approx([0.2 + 0.8 * 0.3] * 3, abs=0.03)
    assert float(drawn.prod(1).mean()) == pytest.approx(0.2 + 0.8 * 0.3**3, abs=0.03)
    first, second = recipe(run, condition_dropout=0.5).batch(3).conditions[0]
    kept = [recipe(run, condition_dropout=0.5).batch(step).conditions[0].flatten(1).any(1) for step in range(12)]
    assert first.shape == second.shape and any(bool(a) != bool(b) for a, b in kept), "items of a batch differ"


# ----------------------------------------------------------------------------------------------------------- bad input
def test_a_protocol_without_regions_is_refused(run: Run) -> None:
    with pytest.raises(UserError, match="no condition_regions"):
        recipe(run, Made(()))


def test_a_region_that_the_labels_do_not_define_is_named(run: Run) -> None:
    with pytest.raises((UserError, MissingError), match="liver"):
        recipe(run, Made(("lungs", "liver"))).conditions("a", None)
