"""MedLoRD's predicted peaks at 512x512x256, beside those of an independent prototype, and that its presets fit."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from medlord_bench.contracts import DataProtocol, Grid, Shape, specs, validation
from medlord_bench.contracts.regions import CARDIAC
from medlord_bench.engine import resolve
from medlord_bench.engine.memory_forecast import Forecast, Need, forecast
from medlord_bench.generators.medlord.configs import MedLoRDConfig
from medlord_bench.generators.medlord.dry_runs import dry_runs, memory_options
from medlord_bench.memory.budget import usable_gib

FULL = (512, 512, 256)
WITHIN = 0.02
# The figures called the prototype's, in GiB: computed in 2026, before this code was written, with a tracker of its own
# on copies of upstream's networks and trainers, torch 2.13.
EMA = 17.46 - 16.84  # the averaged weights: its rows with and without


def protocol(shape: Shape = FULL, regions: tuple[str, ...] = CARDIAC[:6]) -> DataProtocol:
    return DataProtocol(
        name="any",
        grid=Grid(shape=shape),
        fit="crop-pad",
        split="",
        split_sha256="",
        counts={"train": 1, "val": 1, "test": 1},
        masks="dataset",
        condition_regions=regions,
    )


def told(text: str, *stages: str, shape: Shape = FULL, budget: float | None = 24.0, **sets: Any) -> list[Forecast]:
    """sets: autoencoder__batch=1 is --set medlord.autoencoder.batch=1."""
    over = {f"medlord.{name.replace('__', '.')}": value for name, value in sets.items()}
    return list(forecast(resolve.contestant(text, None, over), protocol(shape), budget, stages=stages))


@cache
def need(stage: str, text: str = "medlord@paper-pccta", shape: Shape = FULL, **sets: Any) -> Need:
    (one,) = told(text, stage, shape=shape, budget=None, **sets)
    assert one.need is not None, one.reason
    return one.need


ALONE = {"diffusion__batch": 1, "diffusion__micro_batch": 1}
RECOMPUTED = {"diffusion__net__checkpointing": True}


@pytest.mark.parametrize(
    ("stage", "sets", "table"),
    [
        pytest.param("decode", {}, 6.15, id="decode with the quantiser, fp16"),
        pytest.param("decode", {"sampling__precision": "fp32"}, 12.11, id="decode, fp32"),
        pytest.param("sample", {}, 3.15, id="U-Net step, fused attention"),
        pytest.param("sample", {"sampling__precision": "fp32"}, 4.16, id="U-Net step, fp32"),
        pytest.param("sample", {"sampling__attention": "math"}, 17.19, id="U-Net step, explicit attention"),
        pytest.param("train diffusion", ALONE, 17.46, id="training, batch 1"),
        pytest.param("train diffusion", ALONE | RECOMPUTED, 11.06, id="training, batch 1, recomputed"),
        pytest.param("train diffusion", {}, 61.51, id="training, batch 4 as shipped", marks=pytest.mark.slow),
        pytest.param("train diffusion", RECOMPUTED, 36.83, id="training, batch 4, recomputed", marks=pytest.mark.slow),
        pytest.param(
            *("train diffusion", ALONE | {"diffusion__precision": "fp32"}, 18.53 + EMA),
            id="training, batch 1, fp32",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_peak_is_the_prototypes_within_2_percent(stage: str, sets: dict[str, Any], table: float) -> None:
    assert need(stage, **sets).allocated == pytest.approx(table, rel=WITHIN)


def test_a_conditional_step_is_the_prototypes_without_the_masks_that_ours_lets_go() -> None:
    # Upstream embeds the masks at every step and keeps them, float32 at full resolution; ours embeds them once before.
    masks = 6 * 512 * 512 * 256 * 4 / 2**30
    assert masks == 1.5
    assert need("sample to masks").allocated + masks == pytest.approx(5.32, rel=WITHIN)


@pytest.mark.parametrize(
    ("stage", "sets", "table", "ours"),
    [
        # Our explicit attention keeps for the backward pass both the softmax in float32, as CUDA's autocast makes it,
        # and its float16 copy: 12 GiB for each of 5 blocks of 8 x 16384 x 16384. 17.3 + 5 x 12 = 77.3, and what the
        # softmax's backward pass takes. The prototype's 37.5 is 17 + 5 x 4: one float16 array a block.
        pytest.param(
            *("train diffusion", ALONE | {"diffusion__net__attention": "math"}, 37.54, 79.47),
            id="training with explicit attention",
            marks=pytest.mark.slow,
        ),
        # Without the one-hot statistics that took 13.31 in the table's first row. The table does not say in what
        # precision its 3.24 were trained, and the prototype is gone: fp16 here; 4.02 in fp32.
        pytest.param(
            *("train autoencoder", {"autoencoder__perceptual": 0}, 3.24, 2.32),
            id="autoencoder without perceptual loss",
        ),
        # The table's 4.45 are with a stand-in; this is LPIPS' SqueezeNet in float32 on half the slices of three axes:
        # 2 patches x 3 x 64 slices x 11 MiB of activations, all alive until the backward pass.
        pytest.param("train autoencoder", {}, 4.45, 6.63, id="autoencoder"),
        pytest.param(
            *("train autoencoder", {"autoencoder__perceptual": 0, "autoencoder__net__checkpointing": True}, 2.45, 1.71),
            id="autoencoder without perceptual loss, recomputed",
        ),
    ],
)
def test_a_peak_that_is_not_the_prototypes_is_what_was_found_when_the_difference_was_explained(
    stage: str, sets: dict[str, Any], table: float, ours: float
) -> None:
    found = need(stage, **sets).allocated
    assert found == pytest.approx(ours, rel=WITHIN)
    assert found != pytest.approx(table, rel=WITHIN), "it agrees again: move it to the other list"


def test_the_decoders_peak_is_three_feature_maps_as_counted_by_hand() -> None:
    map_gib = 128 * 256 * 256 * 128 * 2 / 2**30  # 128 channels at half the resolution, float16
    found = need("decode")
    assert [made.bytes / 2**30 for made in found.largest[:3]] == [map_gib] * 3 == [2.0] * 3
    assert found.workspace == pytest.approx(2 * map_gib, rel=0.001)  # a copy of what a convolution reads and writes
    assert 0 < found.allocated - 3 * map_gib < 0.2  # weights, latents


# --------------------------------------------------------------------------------------------------------- what it says
STAGES = [
    *("train autoencoder", "encode", "train diffusion", "sample", "decode", "train ControlNet", "sample to masks"),
    "reconstruct",
]


@pytest.mark.parametrize("text", ["medlord@24gb", pytest.param("medlord:ds8@24gb", marks=pytest.mark.slow)])
def test_every_stretch_of_the_24gb_preset_is_under_what_a_24_gb_card_gives(text: str) -> None:
    assert usable_gib(24) == 22.5
    total = {stage: need(stage, text).total for stage in STAGES}
    assert max(total.values()) <= 22.5, total


def test_the_papers_settings_do_not_fit_and_the_advice_does() -> None:
    (one,) = told("medlord@paper-pccta", "train diffusion")
    assert one.need is not None and not one.fits and one.need.total > 60
    assert one.advice is not None
    assert dict(one.advice.sets) == {"medlord.diffusion.micro_batch": 1}
    assert one.advice.need.total <= 22.5
    # Gradients of the earlier micro-batches lie beside a batch of one: a copy of the weights, which is as large as EMA.
    assert one.advice.need.allocated == pytest.approx(17.46 + EMA, rel=WITHIN)


# Predicted with this bench, batch 4: with latents of an eighth of the voxels the authors' settings fit as they are.
DS8 = {
    "train autoencoder": 7.66,
    "encode": 6.36,
    "train diffusion": 10.02,
    "sample": 0.93,
    "decode": 6.37,
    "train ControlNet": 7.69,
    "sample to masks": 3.70,
    "reconstruct": 6.37,
}


@pytest.mark.slow
def test_an_autoencoder_that_downsamples_8_times_lets_the_papers_settings_fit() -> None:
    found = {one.name: one for one in told("medlord:ds8@paper-pccta")}
    allocated = {name: one.need.allocated for name, one in found.items() if one.need is not None}
    assert allocated == pytest.approx(DS8, rel=WITHIN)
    assert all(one.fits for one in found.values())


def test_a_denoising_step_on_latents_of_an_eighth_of_the_voxels_takes_less_than_a_third() -> None:
    assert need("sample", "medlord:ds8@paper-pccta").allocated == pytest.approx(DS8["sample"], rel=WITHIN)
    assert need("sample", "medlord:ds8@paper-pccta").allocated < need("sample").allocated / 3


@pytest.mark.parametrize("stage", ["encode", "decode"])
def test_tiles_take_at_most_half_of_the_whole_volume(stage: str) -> None:
    tiled, whole = need(stage, "medlord@24gb"), need(stage)
    assert tiled.allocated <= whole.allocated / 2
    assert tiled.total <= whole.total / 2


def test_a_grid_of_another_size_scales() -> None:
    by_depth = [need("encode", shape=(512, 512, depth)).allocated for depth in (128, 256, 512)]
    assert by_depth[2] - by_depth[1] == pytest.approx(2 * (by_depth[1] - by_depth[0]), rel=0.01)
    assert need("sample", shape=(256, 256, 128)).allocated < need("sample").allocated / 3


def names(text: str, regions: tuple[str, ...] = CARDIAC[:6]) -> list[str]:
    plugin = specs.make("generators", resolve.contestant(text, None, {}))
    return [dry_run.name for dry_run in plugin.dry_runs(protocol(regions=regions))]


def test_only_what_will_be_done_gets_a_dry_run() -> None:
    assert names("medlord@24gb") == STAGES
    assert names("medlord@24gb", regions=()) == [name for name in STAGES if name not in STAGES[5:7]]
    assert names("medlord@released-luna") == ["encode", "sample", "decode", "reconstruct"]
    assert names("medlord:untrained@24gb") == [name for name in STAGES if not name.startswith("train")]


def test_every_saving_is_a_setting_that_the_configuration_takes_and_that_changes_it() -> None:
    default = MedLoRDConfig().model_dump()
    explicit = MedLoRDConfig.model_validate(
        validation.merged(default, {"diffusion": {"net": {"attention": "math"}}, "sampling": {"attention": "math"}})
    )
    seen = 0
    for during in {dry_run.during for dry_run in dry_runs(explicit, protocol())}:
        for option in memory_options(explicit, during):
            changed = validation.merged(
                explicit.model_dump(),
                validation.nested({f"medlord.{path}": value for path, value in option.sets.items()}, "medlord"),
            )
            assert MedLoRDConfig.model_validate(changed) != explicit, option
            seen += 1
    assert seen > 10


def test_a_saving_that_is_in_force_already_is_not_offered_again() -> None:
    at_the_end = specs.make("generators", resolve.contestant("medlord@24gb", None, {})).config
    for during in ("latents", "sample", "reconstruct"):
        assert (256, 256, 128) not in [
            value for option in memory_options(at_the_end, during) for value in option.sets.values()
        ]
    for during in ("autoencoder", "diffusion"):
        assert not [
            option for option in memory_options(at_the_end, during) if any("micro" in path for path in option.sets)
        ]
