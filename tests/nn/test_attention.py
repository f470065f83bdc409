"""Attention kernels: what they compute, and that none is taken silently."""

from __future__ import annotations

import copy
import sys
from types import ModuleType

import pytest
import torch
from monai.networks.blocks import CrossAttentionBlock, SABlock
from torch import nn

from medlord_bench.errors import ExitCode, MissingError
from medlord_bench.nn.attention import MultiHeadAttention, attention, fused_kernels, resolve, set_kernel


def _qkv(tokens: int = 24) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, tokens, 8, generator=generator) for _ in range(3)]


@pytest.fixture
def fake_xformers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """An xformers whose one function attends to (batch, tokens, heads, channels), in float64."""
    ops = ModuleType("xformers.ops")

    class LowerTriangularMask:
        pass

    def memory_efficient_attention(
        query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_bias: LowerTriangularMask | None = None
    ) -> torch.Tensor:
        scores = torch.einsum("bnhd,bmhd->bhnm", query.double(), key.double()) / query.shape[-1] ** 0.5
        if attn_bias is not None:
            scores = scores + torch.full(scores.shape[-2:], -torch.inf, dtype=torch.float64).triu(1)
        return torch.einsum("bhnm,bmhd->bnhd", scores.softmax(-1), value.double()).to(value.dtype)

    ops.memory_efficient_attention = memory_efficient_attention  # type: ignore[attr-defined]
    ops.LowerTriangularMask = LowerTriangularMask  # type: ignore[attr-defined]
    package = ModuleType("xformers")
    package.ops = ops  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "xformers", package)
    monkeypatch.setitem(sys.modules, "xformers.ops", ops)
    return ops


@pytest.mark.parametrize("kernel", ["sdpa", "math", "xformers"])
def test_every_kernel_computes_softmax_attention(kernel: str, fake_xformers: ModuleType) -> None:
    query, key, value = _qkv()
    expected = torch.empty_like(value)
    for batch in range(2):
        for head in range(3):  # written out, one row at a time, in float64
            q, k, v = (x[batch, head].double() for x in (query, key, value))
            rows = [torch.exp(k @ row / 8**0.5) for row in q]
            expected[batch, head] = torch.stack([weights @ v / weights.sum() for weights in rows]).float()
    torch.testing.assert_close(attention(query, key, value, kernel), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kernel", ["sdpa", "math", "xformers"])
def test_a_causal_query_sees_the_keys_up_to_its_own_and_no_later_one(kernel: str, fake_xformers: ModuleType) -> None:
    query, key, value = _qkv()
    found = attention(query, key, value, kernel, is_causal=True)
    for n in range(query.shape[2]):  # each row by itself, over the keys it may see
        row = attention(query[:, :, n : n + 1], key[:, :, : n + 1], value[:, :, : n + 1], kernel)
        torch.testing.assert_close(found[:, :, n : n + 1], row, atol=1e-6, rtol=1e-5)


def test_fewer_causal_queries_than_keys_are_the_last_ones_and_fused_kernels_refuse_them() -> None:
    query, key, value = _qkv()
    whole = attention(query, key, value, "math", is_causal=True)
    last = attention(query[:, :, -5:], key, value, "math", is_causal=True)
    torch.testing.assert_close(last, whole[:, :, -5:], atol=1e-6, rtol=1e-5)
    with pytest.raises(ValueError, match="1 queries to 24 keys"):
        attention(query[:, :, :1], key, value, "sdpa", is_causal=True)
    with pytest.raises(ValueError, match="24 queries to 5 keys"):
        attention(query, key[:, :, :5], value[:, :, :5], "math", is_causal=True)


def test_auto_is_the_fused_attention_of_torch() -> None:
    assert resolve("auto", "cpu") == "sdpa"
    assert resolve("math", "cpu") == "math"


def test_an_xformers_that_imports_but_cannot_run_is_an_error_with_its_reason(fake_xformers: ModuleType) -> None:
    def broken(*tensors: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError("no operator found for these inputs\nmore lines")

    assert resolve("xformers", "cpu") == "xformers"
    fake_xformers.memory_efficient_attention = broken  # type: ignore[attr-defined]
    with pytest.raises(MissingError, match="no operator found for these inputs") as caught:
        resolve("xformers", "cpu")
    assert caught.value.code == ExitCode.MISSING
    assert "\n" not in str(caught.value)


def test_an_xformers_that_is_not_installed_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xformers", None)
    with pytest.raises(MissingError, match="not installed"):
        resolve("xformers", "cpu")


def test_on_cuda_the_quadratic_kernel_is_forbidden_and_elsewhere_nothing_changes() -> None:
    with fused_kernels("cuda"):
        assert not torch.backends.cuda.math_sdp_enabled()
        assert torch.backends.cuda.mem_efficient_sdp_enabled()
    assert torch.backends.cuda.math_sdp_enabled()
    with fused_kernels("cpu"):
        assert torch.backends.cuda.math_sdp_enabled()


@pytest.mark.parametrize("kernel", ["sdpa", "math"])
@pytest.mark.parametrize(
    "block",
    [
        SABlock(24, 3, qkv_bias=True, include_fc=False, use_combined_linear=False),
        SABlock(24, 3, include_fc=True, use_combined_linear=False),
        CrossAttentionBlock(24, 3, dim_head=8),
    ],
    ids=["no projection", "projection", "cross"],
)
def test_a_monai_block_keeps_its_parameters_and_its_output(block: nn.Module, kernel: str) -> None:
    net = nn.Sequential(copy.deepcopy(block))
    x = torch.randn(2, 20, 24, generator=torch.Generator().manual_seed(1))
    expected, before = net(x), {name: value.clone() for name, value in net.state_dict().items()}
    assert set_kernel(net, kernel) == 1
    assert set_kernel(net, kernel) == 1  # and again
    assert isinstance(net[0], MultiHeadAttention)
    assert {name: value.tolist() for name, value in net.state_dict().items()} == {
        name: value.tolist() for name, value in before.items()
    }
    torch.testing.assert_close(net(x), expected, atol=1e-6, rtol=1e-5)


def test_blocks_that_attend_differently_are_refused() -> None:
    with pytest.raises(ValueError, match="separate projections"):
        set_kernel(nn.Sequential(SABlock(24, 3, use_combined_linear=True)), "sdpa")
    with pytest.raises(ValueError, match="causal"):
        causal = SABlock(24, 3, use_combined_linear=False, causal=True, sequence_length=4)
        set_kernel(nn.Sequential(causal), "sdpa")
