"""The 3D residual network against one of functions alone, in every layout; strict loading."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from medlord_bench.errors import UserError
from medlord_bench.plugins.extractors.ct3d.network import LAYOUT as CT3D
from medlord_bench.plugins.extractors.medicalnet.network import layout as medicalnet
from medlord_bench.plugins.extractors.resnet3d import Layout, build, forward

SMALL = {"widths": (8, 8, 16, 16)}
LAYOUTS = {
    "ct3d": dataclasses.replace(CT3D, blocks=(2, 1, 2, 1), **SMALL),
    "medicalnet 10": dataclasses.replace(medicalnet(10), **SMALL),
    "medicalnet 18": dataclasses.replace(medicalnet(18), **SMALL),
    "medicalnet 50": dataclasses.replace(medicalnet(50), blocks=(1, 2, 1, 2), **SMALL),
}


def _networks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("networks3d", Path(__file__).with_name("networks3d.py"))
    assert spec and spec.loader
    module = sys.modules["networks3d"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


networks3d = _networks()


@pytest.mark.parametrize("name", list(LAYOUTS))
def test_every_layout_is_the_network_written_from_functions(name: str) -> None:
    layout = LAYOUTS[name]
    state = networks3d.random_state(layout)
    volume = torch.rand(layout.channels, 33, 40, 37, generator=torch.Generator().manual_seed(1))
    found = forward(build(layout, state, "file"), volume)
    with torch.inference_mode():
        expected = networks3d.reference(state, layout, volume[None])[0]
    assert found.shape == (layout.features,) and expected.std() > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("change", [{"dilations": (1, 1, 1, 1)}, {"strides": (1, 2, 2, 1)}, {"stride": (1, 2, 2)}])
def test_the_comparison_sees_each_part_of_a_layout(change: dict[str, object]) -> None:
    layout = LAYOUTS["medicalnet 50"]
    other: Layout = dataclasses.replace(layout, **change)  # type: ignore[arg-type]
    state = networks3d.random_state(layout)
    volume = torch.rand(1, 33, 40, 37, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = networks3d.reference(state, layout, volume[None])[0]
    assert not torch.allclose(forward(build(other, state, "file"), volume), expected, rtol=1e-2)


def test_bfloat16_is_computed_in_float32_and_counters_may_be_absent() -> None:
    layout = LAYOUTS["ct3d"]
    state = {name: value.bfloat16() for name, value in networks3d.random_state(layout).items() if "tracked" not in name}
    found = forward(build(layout, state, "file"), torch.rand(3, 32, 32, 32))
    assert found.dtype == torch.float32 and torch.isfinite(found).all()


def test_tensors_of_another_architecture_are_refused_by_name() -> None:
    layout = LAYOUTS["ct3d"]
    state = networks3d.random_state(layout)
    with pytest.raises(UserError, match=r"file: surplus tensor 'fc.weight'"):
        build(layout, {**state, "fc.weight": torch.zeros(1)}, "file")
    with pytest.raises(UserError, match="missing tensor 'layer4.0.conv2.weight'"):
        build(layout, {name: value for name, value in state.items() if name != "layer4.0.conv2.weight"}, "file")
    with pytest.raises(UserError, match="another architecture"):
        build(LAYOUTS["medicalnet 50"], state, "file")
