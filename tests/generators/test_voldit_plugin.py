"""VolDiT as a plugin: its presets, stages and keys fit together, and what it cannot take is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import pytest

from medlord_bench.contracts import DataProtocol, Grid, Purpose
from medlord_bench.contracts.validation import merged
from medlord_bench.engine.keys import decides
from medlord_bench.errors import UserError
from medlord_bench.generators.voldit.configs import VolDiTConfig
from medlord_bench.generators.voldit.plugin import VolDiT
from medlord_bench.generators.voldit.presets import PRESETS, VARIANTS

PURPOSES: tuple[Purpose, ...] = ("sample", "sample-conditional", "reconstruct")
CONTESTANTS = [(preset, variant) for preset in PRESETS for variant in ("", *VARIANTS)]


def plugin(preset: str, *over: Mapping[str, Any]) -> VolDiT:
    config: dict[str, Any] = dict(PRESETS[preset])
    for layer in over:
        config = merged(config, layer)
    return VolDiT(VolDiTConfig.model_validate(config))


def protocol(shape: tuple[int, int, int], **counts: int) -> DataProtocol:
    return DataProtocol(
        name="toy",
        grid=Grid(shape=shape),
        fit="crop-pad",
        split="by hand",
        split_sha256="0" * 64,
        counts={"train": 2, "val": 1, "test": 1} | counts,
        masks="none",
    )


# ------------------------------------------------------------------------------------------------------------- presets
@pytest.mark.parametrize(("preset", "variant"), CONTESTANTS)
def test_stages_and_what_is_read_fit_together_in_every_preset(preset: str, variant: str) -> None:
    generator = plugin(preset, VARIANTS.get(variant, {}))
    stages = generator.stages()
    names = [stage.name for stage in stages]
    assert names == ["autoencoder", "latents", "diffusion", "tgca"]
    for place, stage in enumerate(stages):
        assert set(stage.needs) <= set(names[:place]), f"{stage.name} needs what is trained after it"
        assert not [path for path in decides(generator.config, stage) if path.endswith(".steps")], "training restarts"
    for purpose in PURPOSES:
        reads = generator.dependencies(purpose)
        assert set(reads.stages) <= set(names) and "latents" not in reads.stages
        json.dumps(decides(generator.config, reads))
    assert ("tgca" in generator.dependencies("sample-conditional").stages) and (
        "tgca" not in generator.dependencies("sample").stages
    )


def test_the_authors_numbers_are_in_the_preset_for_24_gb() -> None:
    config = plugin("24gb").config
    net, autoencoder, diffusion, tgca = config.autoencoder.net, config.autoencoder, config.diffusion, config.tgca
    assert (net.channels, net.res_layers, net.codes, net.dim) == ((128, 256, 512), 2, 4096, 8)
    assert (autoencoder.lr_g, autoencoder.lr_d, autoencoder.perceptual, autoencoder.adversarial) == (
        *(5e-5, 2e-5),
        *(0.005, 0.005),
    )
    assert (autoencoder.spectral, autoencoder.rotate, autoencoder.flip) == (0, 0.2, 0.5)
    assert (diffusion.net.depth, diffusion.net.hidden, diffusion.net.heads, diffusion.net.patch) == (24, 1152, 16, 2)
    assert (diffusion.net.dropout, diffusion.timesteps, diffusion.loss, diffusion.lr) == (0.1, 300, "huber", 1e-4)
    assert (diffusion.ema_decay, diffusion.clip, diffusion.batch, diffusion.parts_of) == (0.9999, 1.0, 4, 1)
    assert (tgca.lr, tgca.loss, tgca.ema_decay, tgca.batch) == (5e-5, "huber", 0.9999, 4)
    assert (tgca.condition_dropout, tgca.channel_dropout, tgca.net.scale) == (0.1, 0.1, 0.1)
    assert tgca.net.channels == (8, 16, 32, 64, 128)
    assert tgca.net.downsampling == net.factor * diffusion.net.patch == 16, "masks end on the grid of the tokens"
    assert config.latents.quantised and config.sampling.steps is None
    assert diffusion.steps == 2 * tgca.steps
    epochs = 1000
    assert diffusion.lr_factor(diffusion.steps) == pytest.approx(0.999**epochs)
    assert math.isclose(tgca.lr_factor(tgca.steps), 0.999**500, rel_tol=1e-9)


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        ({"autoencoder": {"lr_g": 3e-3}}, {"autoencoder"}),
        ({"latents": {"quantised": False}}, {"latents"}),
        ({"diffusion": {"net": {"depth": 3}}}, {"diffusion"}),
        ({"tgca": {"net": {"control_norm": "upstream"}}}, {"tgca"}),
        ({"tgca": {"channel_dropout": 0.2}}, {"tgca"}),
        ({"tgca": {"steps": 99}}, set()),
        ({"sampling": {"steps": 2}}, set()),
    ],
)
def test_a_setting_changes_the_stages_that_it_decides_and_no_other(
    change: Mapping[str, Any], changed: set[str]
) -> None:
    before, after = (
        {stage.name: decides(one.config, stage) for stage in one.stages()}
        for one in (plugin("smoke"), plugin("smoke", change))
    )
    assert {name for name in before if before[name] != after[name]} == changed


def test_the_published_weights_have_no_adapter_and_the_capabilities_say_so() -> None:
    assert "conditional" in plugin("24gb").capabilities
    released = plugin("24gb", VARIANTS["released-luna"])
    assert released.capabilities == {"unconditional", "reconstructs"}
    assert released.pretrained_on == ("luna16",)
    assert [one.name for one in released.dry_runs(protocol((512, 512, 256)))] == [
        *("encode", "sample", "decode", "reconstruct")
    ]


# ----------------------------------------------------------------------------------------------------------- bad input
@pytest.mark.parametrize(
    ("preset", "over", "data", "message"),
    [
        ("tiny", {}, protocol((60, 64, 48)), r"multiples of 8; the nearest such grid is \(64, 64, 48\)"),
        ("24gb", {}, protocol((512, 512, 248)), r"factor 8 and diffusion.net.patch 2 .* multiples of 16"),
        ("24gb", VARIANTS["b4"], protocol((512, 512, 272)), r"multiples of 32; the nearest .* \(512, 512, 256\)"),
        ("tiny", {}, protocol((16, 64, 48)), r"autoencoder.patch .*larger than the grid \(16, 64, 48\)"),
        ("tiny", {}, protocol((64, 64, 48), val=0), "no val case"),
        ("tiny", {}, protocol((64, 64, 48), train=0), "no train case"),
    ],
)
def test_a_grid_or_split_it_cannot_take_is_refused_before_any_work(
    preset: str, over: Mapping[str, Any], data: DataProtocol, message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        plugin(preset, over).check(data)
    assert "\n" not in str(caught.value)
    plugin(preset, over).check(protocol((512, 512, 256)))
