"""VQ-Trans's predicted peaks at 448x448x256 beside counts by hand, and that its preset fits a card of 24 GB."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from medlord_bench.contracts import DataProtocol, Grid, specs, validation
from medlord_bench.engine import resolve
from medlord_bench.engine.memory_forecast import Need, forecast
from medlord_bench.generators.vqtrans.configs import VQTransConfig
from medlord_bench.generators.vqtrans.dry_runs import dry_runs, memory_options
from medlord_bench.generators.vqtrans.presets import PRESETS
from medlord_bench.memory.budget import usable_gib

GIB = 2**30
TOKENS, DEPTH, DIM = 12_544, 22, 256
STAGES = ["train autoencoder", "encode", "train transformer", "sample", "decode", "reconstruct"]
SLOW = ("train autoencoder", "train transformer")  # minutes each to run: dry runs only


def protocol() -> DataProtocol:
    return DataProtocol(
        name="any",
        grid=Grid(shape=(512, 512, 256)),
        fit="crop-pad",
        split="",
        split_sha256="",
        counts={"train": 1, "val": 1, "test": 1},
        masks="none",
    )


@cache
def need(stage: str, **sets: Any) -> Need:
    """sets: transformer__batch=1 is --set vqtrans.transformer.batch=1."""
    over = {f"vqtrans.{name.replace('__', '.')}": value for name, value in sets.items()}
    (one,) = forecast(resolve.contestant("vqtrans@24gb", None, over), protocol(), None, stages=(stage,))
    assert one.need is not None, one.reason
    return one.need


@pytest.mark.parametrize("stage", [pytest.param(s, marks=pytest.mark.slow) if s in SLOW else s for s in STAGES])
def test_every_stretch_of_the_24gb_preset_is_under_what_a_24_gb_card_gives(stage: str) -> None:
    assert usable_gib(24) == 22.5
    assert 0.5 < need(stage).total <= 22.5


@pytest.mark.parametrize("stage", ["encode", "decode"])
def test_the_autoencoders_peak_on_a_whole_volume_is_three_feature_maps(stage: str) -> None:
    map_gib = 128 * 224 * 224 * 128 * 2 / GIB  # 128 channels at half the resolution, float16
    found = need(stage)
    assert [made.bytes / GIB for made in found.largest[:3]] == [map_gib] * 3
    assert 3 * map_gib <= found.allocated < 3 * map_gib + 0.3


def parameters() -> int:
    """Of the transformer, as it is sampled: embeddings and logits, then blocks of attention, MLP and three norms."""
    codes = 2048
    outside = (codes + 1) * DIM + TOKENS * DIM + (codes + 1) * (DIM + 1)
    block = 4 * DIM**2 + DIM + 8 * DIM**2 + 5 * DIM + 3 * 2 * DIM
    return outside + DEPTH * block


def test_the_peak_of_drawing_is_weights_and_a_cache_of_keys_and_values() -> None:
    cached = 2 * DEPTH * TOKENS * DIM * 8 / GIB  # float64
    fixed = cached + parameters() * 8 / GIB
    found = need("sample").allocated
    assert fixed < found < fixed + 0.7  # scores of a block of 256 tokens to all of 8 heads, thrice: 0.2 each
    single = need("sample", sampling__tokens_precision="fp32").allocated
    assert single == pytest.approx(found / 2, rel=0.1)


@pytest.mark.slow
def test_training_keeps_no_scores_of_tokens_to_tokens() -> None:
    """One block's scores alone are 4 x 8 x 12,544 x 12,544 x 2 bytes: 9.4 GiB, times 22."""
    fused, explicit = need("train transformer"), need("train transformer", transformer__net__attention="math")
    assert fused.allocated < 22 * 4 * 8 * TOKENS**2 * 2 / GIB / 10
    assert explicit.allocated > 22 * 4 * 8 * TOKENS**2 * 2 / GIB


@pytest.mark.slow
def test_logits_in_chunks_save_what_a_whole_batch_of_them_takes() -> None:
    whole = need("train transformer", transformer__loss_chunk=4 * TOKENS)
    logits = 4 * TOKENS * 2049 * 4 / GIB
    assert whole.allocated > need("train transformer").allocated + logits / 2


def test_only_what_will_be_done_gets_a_dry_run() -> None:
    def names(text: str) -> list[str]:
        plugin = specs.make("generators", resolve.contestant(text, None, {}))
        return [dry_run.name for dry_run in plugin.dry_runs(protocol())]

    assert names("vqtrans@24gb") == STAGES
    assert names("vqtrans:untrained@24gb") == [stage for stage in STAGES if not stage.startswith("train")]


def test_every_saving_is_a_setting_that_changes_the_configuration_and_is_not_in_force_already() -> None:
    over = {"transformer": {"net": {"attention": "math"}}, "autoencoder": {"net": {"checkpointing": False}}}
    start = VQTransConfig.model_validate(validation.merged(PRESETS["24gb"], over))
    seen: set[str] = set()
    for during in {dry_run.during for dry_run in dry_runs(start, protocol())}:
        for option in memory_options(start, during):
            sets = {f"vqtrans.{path}": value for path, value in option.sets.items()}
            changed = validation.merged(start.model_dump(), validation.nested(sets, "vqtrans"))
            assert VQTransConfig.model_validate(changed) != start, option
            seen |= set(option.sets)
    assert seen == {
        *("autoencoder.micro_batch", "autoencoder.net.checkpointing", "tokens.tile"),
        *("transformer.net.attention", "transformer.micro_batch", "transformer.net.checkpointing"),
        *("sampling.tile", "sampling.tokens_precision"),
    }
