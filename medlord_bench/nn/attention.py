"""One attention function for all networks, and the selection of its kernel.

At the paper's sizes (16,384 latent voxels per head) attention needs a fused kernel or 17 GiB for the scores. On CUDA
the explicit softmax is therefore never used as a silent fallback.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from monai.networks.blocks import CrossAttentionBlock, SABlock
from torch import nn
from torch.nn import functional

from medlord_bench.contracts import AttentionBackend
from medlord_bench.errors import MissingError

Kernel = Literal["sdpa", "xformers", "math"]


def resolve(backend: AttentionBackend, device: str | torch.device) -> Kernel:
    """The kernel of `backend` on `device`; "auto" is PyTorch's fused attention ("sdpa").

    Raises `MissingError` if `backend` is "xformers" and a test call on `device` fails. The import of xformers is not a
    sufficient test, since it succeeds even if all of its kernels are missing.
    """
    if backend == "xformers":
        reason = _xformers_fault(torch.device(device))
        if reason:
            raise MissingError(
                f"attention backend 'xformers' does not work on {device} ({reason}); use 'auto', or install an "
                "xformers that was built for this torch"
            )
    return "sdpa" if backend == "auto" else backend


def _xformers_fault(device: torch.device) -> str | None:
    """The reason why a small xformers call fails on `device`; None if it works."""
    try:
        import xformers.ops  # noqa: F401
    except ImportError:
        return "not installed: pip install 'medlord-bench[xformers]'"
    probe = torch.zeros(1, 2, 64, 32, device=device, dtype=torch.float16 if device.type == "cuda" else torch.float32)
    try:
        attention(probe, probe, probe, "xformers")
    except Exception as error:  # the dispatcher of xformers and CUDA raise errors of many types
        return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return None


@contextmanager
def fused_kernels(device: str | torch.device) -> Iterator[None]:
    """On CUDA, allow only fused attention kernels. If none is applicable, the call raises and uses no N x N memory.

    The settings of other devices are not changed.
    """
    if torch.device(device).type != "cuda":
        yield
        return
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]):
        yield


def attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, kernel: Kernel, is_causal: bool = False
) -> torch.Tensor:
    """softmax(Q K^T / sqrt(d)) V for tensors (B, heads, N, d); "math" is the explicit form, for reference.

    is_causal: each query attends to the key at its own position and to earlier keys. With "math" there may be fewer
    queries than keys; the queries are then the last positions. Other kernels raise ValueError in that case, and do not
    store a mask.
    """
    queries, keys = query.shape[-2], key.shape[-2]
    if is_causal and (queries > keys or (queries < keys and kernel != "math")):
        raise ValueError(f"causal attention of {queries} queries to {keys} keys: expected equal numbers, or 'math'")
    if kernel == "math":
        scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5  # (B, heads, N, M)
        if is_causal:
            later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1 + keys - queries)
            scores = scores.masked_fill(later, float("-inf"))
        probabilities = scores.softmax(dim=-1).to(value.dtype)
        return torch.matmul(probabilities, value)
    if kernel == "xformers":
        import xformers.ops

        tokens_first = [x.transpose(1, 2) for x in (query, key, value)]  # (B, heads, N, d) -> (B, N, heads, d)
        bias = {"attn_bias": xformers.ops.LowerTriangularMask()} if is_causal else {}
        mixed: torch.Tensor = xformers.ops.memory_efficient_attention(*tokens_first, **bias)
        return mixed.transpose(1, 2)  # (B, N, heads, d) -> (B, heads, N, d)
    with fused_kernels(query.device):
        return functional.scaled_dot_product_attention(query, key, value, is_causal=is_causal)


class MultiHeadAttention(nn.Module):
    """Multi-head attention on tensors (B, N, C) with the projections of a MONAI attention block.

    The module reuses the layers of the block under the same names, so parameters and state dict do not change.
    """

    def __init__(self, block: SABlock | CrossAttentionBlock, kernel: Kernel) -> None:
        super().__init__()
        if getattr(block, "use_combined_linear", False) or block.causal or block.dropout_rate:
            raise ValueError("set_kernel: expected separate projections without causal mask or dropout")
        self.out_proj = block.out_proj  # Identity if the block has none
        self.to_q, self.to_k, self.to_v = block.to_q, block.to_k, block.to_v
        self.num_heads = int(block.num_heads)
        self.kernel: Kernel = kernel

    def forward(self, x: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        """x: (B, N, C) -> (B, N, C). context: tokens (B, M, C') to attend to; None: x."""
        source = x if context is None else context
        query, key, value = self._heads(self.to_q(x)), self._heads(self.to_k(source)), self._heads(self.to_v(source))
        mixed = attention(query, key, value, self.kernel)  # (B, heads, N, d)
        # (B, heads, N, d) -> (B, N, heads*d) -> (B, N, C)
        out: torch.Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return out

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, _ = x.shape
        return x.reshape(batch, tokens, self.num_heads, -1).transpose(1, 2)  # (B, N, C) -> (B, heads, N, d)


def set_kernel(module: nn.Module, kernel: Kernel) -> int:
    """Set the kernel of all MONAI attention blocks in `module`; parameters do not change.

    Returns the number of blocks. The function may be called again with another kernel.
    """
    count = 0
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, MultiHeadAttention):
                child.kernel = kernel
                count += 1
            elif isinstance(child, SABlock | CrossAttentionBlock):
                setattr(parent, name, MultiHeadAttention(child, kernel))
                count += 1
    return count
