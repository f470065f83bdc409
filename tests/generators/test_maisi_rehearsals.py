"""MAISI's memory is told before it starts, whatever its noise schedule."""

from __future__ import annotations

import pytest

from medlord_bench import config
from medlord_bench.contracts import DataProtocol, Grid
from medlord_bench.memory.forecast import forecast


@pytest.mark.parametrize("contestant", ["maisi:ddpm@smoke"])
def test_every_stretch_is_predictable(contestant: str) -> None:
    protocol = DataProtocol(
        name="t", grid=Grid(shape=(32, 32, 32)), fit="crop-pad", split="", split_sha256="",
        counts={"train": 1, "val": 1, "test": 1}, masks="dataset", condition_regions=("aorta",),
    )  # fmt: skip
    found = {
        one.name: one.need for one in forecast(config.contestant(contestant, "", {}), protocol, 24.0, device="cpu")
    }
    assert set(found) == {
        "train autoencoder", "encode", "train diffusion", "sample", "decode", "train ControlNet", "sample to masks",
        "reconstruct",
    }  # fmt: skip
    assert all(need is not None and need.allocated > 0 for need in found.values())
