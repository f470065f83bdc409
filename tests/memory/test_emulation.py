"""CUDA's autocast on a CPU: the same operators cast as on a card, nothing left behind, and what goes wrong without."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from medlord_bench.generators.medlord.unet import UNet, UNetConfig
from medlord_bench.memory.emulation import AS_THEY_ARE, FLOAT32, FLOAT32_RESULT, SOFTMAX, _operator, cuda_autocast
from medlord_bench.memory.tracker import MemoryTracker
from medlord_bench.nn.attention import set_kernel

HEADER = Path(torch.__file__).parent / "include" / "ATen" / "autocast_mode.h"
READ_FROM = "2.15"  # the PyTorch whose header the lists were read from


def macro(name: str) -> set[str]:
    """The operators of a list in PyTorch's header, as "name.overload"."""
    text = HEADER.read_text().replace("\\\n", " ")
    found = re.search(rf"#define {name}\(_\)(.*)", text)
    assert found is not None, f"{HEADER}: no list {name}"
    return {re.sub(r"\s*,\s*", ".", entry) for entry in re.findall(r"_\(([^)]*)\)", found[1])}


@pytest.mark.skipif(not HEADER.exists(), reason="this PyTorch came without its headers")
@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("AT_FORALL_FP32", set(FLOAT32.split())),
        ("AT_FORALL_FP32_SET_OPT_DTYPE", {*FLOAT32_RESULT.split(), *SOFTMAX}),
    ],
)
def test_the_operators_that_a_card_computes_in_float32_are_pytorchs(name: str, ours: set[str]) -> None:
    theirs = macro(name)
    assert len(theirs) > 5
    # One that is missing here makes predictions too small, under any PyTorch. An older one has fewer, which is no harm.
    assert theirs - ours == set()
    if torch.__version__.startswith(READ_FROM):
        assert ours - theirs == set()


def test_every_operator_of_the_lists_exists() -> None:
    if not torch.__version__.startswith(READ_FROM):
        pytest.skip(f"the lists are those of PyTorch {READ_FROM}; others may have fewer")
    names = [*FLOAT32.split(), *FLOAT32_RESULT.split(), *SOFTMAX, *AS_THEY_ARE.split()]
    assert [name for name in names if _operator(name) is None] == []


HALF = torch.float16
# What CUDA's autocast to float16 makes of float16 input, from PyTorch's "CUDA Ops that can autocast to float32/float16".
RULES: dict[str, tuple[Callable[[Tensor], Tensor], torch.dtype]] = {
    "group_norm": (lambda x: F.group_norm(x, 2), torch.float32),
    "layer_norm": (lambda x: F.layer_norm(x, x.shape[-1:]), torch.float32),
    "softmax": (lambda x: x.softmax(-1), torch.float32),
    "log_softmax": (lambda x: F.log_softmax(x, -1), torch.float32),
    "exp": (torch.exp, torch.float32),
    "pow": (lambda x: x**2, torch.float32),
    "sum": (torch.sum, torch.float32),
    "cumsum": (lambda x: x.cumsum(0), torch.float32),
    "interpolate": (lambda x: F.interpolate(x, scale_factor=2.0), torch.float32),
    "l1_loss": (lambda x: F.l1_loss(x, x), torch.float32),
    "linear": (lambda x: F.linear(x, torch.ones(3, 4)), HALF),
    "matmul": (lambda x: x @ x.transpose(-1, -2), HALF),
    "conv3d": (lambda x: F.conv3d(x, torch.ones(2, 4, 1, 1, 1)), HALF),
    "conv_transpose3d": (lambda x: F.conv_transpose3d(x, torch.ones(4, 2, 2, 2, 2)), HALF),
    "attention": (lambda x: F.scaled_dot_product_attention(x[0], x[0], x[0]), HALF),
    "max_pool3d": (lambda x: F.max_pool3d(x, 2), HALF),
    "avg_pool3d": (lambda x: F.avg_pool3d(x, 2), HALF),
    "adaptive_avg_pool3d": (lambda x: F.adaptive_avg_pool3d(x, 1), HALF),
    "silu": (F.silu, HALF),
    "relu": (F.relu, HALF),
    "gelu": (F.gelu, HALF),
    "add": (lambda x: x + x, HALF),
    "cat": (lambda x: torch.cat([x, x]), HALF),
}


def dtypes(given: torch.dtype = HALF) -> dict[str, torch.dtype]:
    with FakeTensorMode(), torch.autocast("cpu", HALF):
        x = torch.empty(1, 4, 4, 4, 4, dtype=given)
        return {name: work(x).dtype for name, (work, _) in RULES.items()}


def test_operators_give_the_types_that_they_give_on_a_card_and_afterwards_those_of_a_cpu_again() -> None:
    before, wanted = dtypes(), {name: dtype for name, (_, dtype) in RULES.items()}
    with cuda_autocast():
        assert dtypes() == wanted
        from_float = dtypes(torch.float32)
        assert {name for name, dtype in from_float.items() if dtype == HALF} == {
            *("linear", "matmul", "conv3d", "conv_transpose3d", "attention")
        }
    assert dtypes() == before
    assert {name for name in wanted if before[name] != wanted[name]} >= {"group_norm", "softmax", "pow", "avg_pool3d"}


def test_a_failure_inside_leaves_the_cpus_autocast_as_it_was() -> None:
    before = dtypes()
    with pytest.raises(ZeroDivisionError), cuda_autocast():
        raise ZeroDivisionError
    assert dtypes() == before


def test_types_that_are_asked_for_are_given() -> None:
    with cuda_autocast(), FakeTensorMode(), torch.autocast("cpu", HALF):
        x = torch.empty(4, 4, dtype=HALF)
        assert x.softmax(-1, dtype=torch.float64).dtype == torch.float64
        assert x.sum(dtype=HALF).dtype == HALF
        assert torch.empty(4, dtype=torch.int64).cumsum(0).dtype == torch.int64
        assert torch.empty(4, dtype=torch.float64).exp().dtype == torch.float64


def test_without_autocast_nothing_is_cast() -> None:
    with cuda_autocast(), FakeTensorMode():
        assert F.group_norm(torch.empty(1, 4, 4, dtype=HALF), 2).dtype == HALF


def test_values_are_those_of_float32() -> None:
    x = torch.linspace(-8, 8, 512).reshape(1, 8, 64).to(torch.bfloat16)
    with cuda_autocast(), torch.autocast("cpu", torch.bfloat16):
        found = {"norm": F.group_norm(x, 2), "sum": x.sum(-1), "pow": x**2}
    y = x.float()
    for name, wanted in {"norm": F.group_norm(y, 2), "sum": y.sum(-1), "pow": y**2}.items():
        torch.testing.assert_close(found[name], wanted)


# ----------------------------------------------------------------------------------------------- what hangs upon it
TINY = UNetConfig(
    latent_channels=8,
    channels=(32, 64),
    num_res_blocks=1,
    attention_levels=(False, True),
    num_head_channels=(0, 32),
    norm_num_groups=16,
)


def training_peak(config: UNetConfig, side: int, precision: torch.dtype, fake: bool) -> int:
    def workload() -> None:
        net = UNet(config)
        set_kernel(net, "sdpa")
        x = torch.randn(1, 8, side, side, side)
        with torch.autocast("cpu", precision):
            out = net(x, torch.zeros(1, dtype=torch.int64))
        out.float().square().mean().backward()

    gc.collect()
    tracker = MemoryTracker()
    if fake:
        with FakeTensorMode(), tracker:
            workload()
    else:
        with tracker:
            workload()
    return tracker.peak().allocated


def test_a_real_training_step_under_these_casts_takes_the_bytes_of_the_dry_run() -> None:
    with cuda_autocast():
        real = training_peak(TINY, 16, torch.bfloat16, fake=False)
        assert training_peak(TINY, 16, torch.bfloat16, fake=True) == real
    assert training_peak(TINY, 16, torch.bfloat16, fake=True) < real


def test_a_cpus_own_autocast_would_tell_a_unets_training_more_than_30_percent_too_small() -> None:
    with cuda_autocast():
        as_on_a_card = training_peak(UNetConfig(), 64, HALF, fake=True)
    assert training_peak(UNetConfig(), 64, HALF, fake=True) < 0.7 * as_on_a_card
