"""CUDA's autocast on CPU tensors, so that a dry run without a GPU has the memory of a run on a GPU.

The two devices cast different operators: on CUDA normalisation, softmax, powers and interpolation compute in float32,
on a CPU they stay in half precision; for pooling it is the reverse. Without this, the activations of a 3D U-Net's
training step come out 42 % too small.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

HALF = (torch.float16, torch.bfloat16)

# Names as PyTorch writes them, operator.overload. Of `ATen/autocast_mode.h` (2.15): inputs cast to float32.
FLOAT32 = """
    acos asin cosh erfinv exp expm1 log log10 log2 log1p reciprocal rsqrt sinh tan pow.Tensor_Scalar pow.Tensor_Tensor
    pow.Scalar softplus layer_norm native_layer_norm rms_norm group_norm frobenius_norm.dim nuclear_norm
    nuclear_norm.dim cosine_similarity poisson_nll_loss cosine_embedding_loss nll_loss nll_loss2d hinge_embedding_loss
    kl_div l1_loss smooth_l1_loss huber_loss mse_loss margin_ranking_loss multilabel_margin_loss soft_margin_loss
    triplet_margin_loss multi_margin_loss binary_cross_entropy_with_logits dist pdist cdist renorm logsumexp
    upsample_nearest1d _upsample_nearest_exact1d upsample_nearest2d _upsample_nearest_exact2d upsample_nearest3d
    _upsample_nearest_exact3d upsample_linear1d upsample_bilinear2d _upsample_bilinear2d_aa upsample_trilinear3d
    upsample_bicubic2d _upsample_bicubic2d_aa
"""
# Of the same file: computed with dtype=float32 if none is given; the inputs are unchanged.
FLOAT32_RESULT = """
    prod prod.dim_int cumprod cumsum linalg_vector_norm linalg_matrix_norm linalg_matrix_norm.str_ord sum
    sum.dim_IntList
"""
# As these, but CUDA's kernels read half precision and write float32 without a copy of the input.
SOFTMAX = {"softmax.int": torch.ops.aten._softmax, "log_softmax.int": torch.ops.aten._log_softmax}
# Cast to float32 on a CPU only.
AS_THEY_ARE = """
    avg_pool3d max_pool3d adaptive_avg_pool3d adaptive_max_pool3d reflection_pad1d reflection_pad2d replication_pad1d
    replication_pad2d replication_pad3d
"""

Kernel = Callable[..., Any]


@contextmanager
def cuda_autocast() -> Iterator[None]:
    """Inside, `torch.autocast("cpu", ...)` casts as CUDA's does. For dry runs: it changes the whole process."""
    library = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # overriding CPU kernels is intended
            for names, wrap in ((FLOAT32, _in_float32), (FLOAT32_RESULT, _to_float32), (AS_THEY_ARE, _as_it_is)):
                for name in names.split():
                    operator = _operator(name)
                    if operator is not None:
                        library.impl(operator, wrap(operator), "AutocastCPU")  # type: ignore[no-untyped-call]
            for name, fused in SOFTMAX.items():
                kernel = _softmax(_operator(name), fused)
                library.impl(_operator(name), kernel, "AutocastCPU")  # type: ignore[no-untyped-call]
        yield
    finally:
        library._destroy()  # type: ignore[no-untyped-call]


def _operator(name: str) -> Any:
    """`torch.ops.aten` overload of "name.overload", or None if this PyTorch has none."""
    packet, _, overload = name.partition(".")
    return getattr(getattr(torch.ops.aten, packet, None), overload or "default", None)


def _as_it_is(operator: Any) -> Kernel:
    def kernel(*args: Any, **kwargs: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU)):
            return operator(*args, **kwargs)

    return kernel


def _in_float32(operator: Any) -> Kernel:
    plain = _as_it_is(operator)
    return lambda *args, **kwargs: plain(*tree_map(_float32, args), **tree_map(_float32, kwargs))


def _float32(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype in HALF else value


def _to_float32(operator: Any) -> Kernel:
    plain = _as_it_is(operator)

    def kernel(*args: Any, **kwargs: Any) -> Any:
        if args[0].dtype in HALF and kwargs.get("dtype") is None:
            kwargs["dtype"] = torch.float32
        return plain(*args, **kwargs)

    return kernel


def _softmax(operator: Any, fused: Any) -> Kernel:
    plain, half_to_float = _as_it_is(operator), _as_it_is(fused)

    def kernel(x: Tensor, dim: int, dtype: torch.dtype | None = None) -> Any:
        if x.dtype in HALF and dtype is None:
            return half_to_float(x, dim, True)
        return plain(x, dim, dtype)

    return kernel
