"""MAISI's memory is told before it starts, also with the schedule that `check generator maisi` does not try."""

from __future__ import annotations

from medlord_bench.contracts import DataProtocol, Grid
from medlord_bench.engine import resolve
from medlord_bench.engine.memory_forecast import forecast


def test_every_stretch_of_the_ddpm_is_predictable() -> None:
    protocol = DataProtocol(
        name="t", grid=Grid(shape=(32, 32, 32)), fit="crop-pad", split="", split_sha256="",
        counts={"train": 1, "val": 1, "test": 1}, masks="dataset", condition_regions=("aorta",),
    )  # fmt: skip
    found = {
        one.name: one.need
        for one in forecast(resolve.contestant("maisi:ddpm@smoke", "", {}), protocol, 24.0, device="cpu")
    }
    assert set(found) == {
        "train autoencoder", "encode", "train diffusion", "sample", "decode", "train ControlNet", "sample to masks",
        "reconstruct",
    }  # fmt: skip
    assert all(need is not None and need.allocated > 0 for need in found.values())
