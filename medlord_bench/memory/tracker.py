"""Exact live bytes of every tensor that a piece of code makes, real or fake.

A `TorchDispatchMode` sees each operator's outputs; a storage counts from the operator that made it until nothing holds
it any more. What an operator takes and gives back inside itself is not seen: `workspace` allows for it. Under
`FakeTensorMode` nothing is computed or allocated, and the bytes are the same (tests/memory/test_tracker.py).
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
    register_module_module_registration_hook,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

BLOCK_BYTES = 512  # bytes: the smallest unit of CUDA's caching allocator
MIN_NAMED_BYTES = 2**16  # bytes: smaller tensors are counted, but nobody asks which layer made them
aten = torch.ops.aten
CONVOLUTIONS = {aten.convolution.default, aten.convolution_backward.default}
ATTENTION_BACKWARD = {
    aten._scaled_dot_product_flash_attention_for_cpu_backward.default,
    aten._scaled_dot_product_flash_attention_backward.default,
    aten._scaled_dot_product_efficient_attention_backward.default,
}


@dataclass(frozen=True)
class Made:
    """The memory of one tensor. by: the operator that made it, "given" where it was there before. module: the layer
    that was at work, "" outside of any."""

    bytes: int
    shape: tuple[int, ...]
    dtype: str
    by: str
    module: str


@dataclass(frozen=True)
class Peak:
    """The fullest moment of a piece of work, in bytes.

    allocated: of all tensors alive. workspace: how much higher the fullest moment is with every operator's own
    allowance on top of what is alive while it runs. largest: the biggest tensors alive at the peak, biggest first.
    """

    allocated: int
    workspace: int
    largest: tuple[Made, ...]


class MemoryTracker(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts while it is active; `peak()` tells afterwards. Tensors that were there before count from their first use
    as an operator's input on, except those made `on_host`."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.highest = self.highest_with_workspace = 0
        self._alive: dict[int, int] = {}  # id of a storage -> its place in the trace
        self._trace: list[tuple[int, Made | None]] = []  # (place of the storage, what was made, or None: freed)
        self._fullest = 0  # length of the trace at the peak
        self._references: dict[int, weakref.ref[Any]] = {}
        self._layers: list[nn.Module] = []
        self._parents: dict[int, tuple[weakref.ref[nn.Module], str]] = {}
        self._host = False

    def __enter__(self) -> MemoryTracker:
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    @contextmanager
    def naming_layers(self) -> Iterator[None]:
        """Note which layer is at work, for `Made.module`; of networks that are built inside, by its full name."""
        hooks = [
            register_module_module_registration_hook(self._join),
            register_module_forward_pre_hook(lambda module, _: self._layers.append(module)),
            register_module_forward_hook(self._leave, always_call=True),
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _join(self, parent: nn.Module, name: str, child: nn.Module | None) -> None:
        if child is not None:
            self._parents[id(child)] = (weakref.ref(parent), name)

    def _leave(self, *_: Any) -> None:
        self._layers.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "prim":
            return func(*args, **kwargs)
        if torch.is_inference_mode_enabled() and func._can_decompose():
            with self:  # autograd takes compound operators apart; without it this has to
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        for tensor in tree_iter(args):
            if isinstance(tensor, Tensor):
                self._see(tensor, "given")
        out = func(*args, **kwargs)
        for tensor in tree_iter(out):
            if isinstance(tensor, Tensor):
                self._see(tensor, func.overloadpacket.__name__)
        self.highest_with_workspace = max(self.highest_with_workspace, self.live + workspace(func, args, out))
        return out

    def _see(self, tensor: Tensor, by: str) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._references:
            return
        size = 0 if self._host else -(-storage.nbytes() // BLOCK_BYTES) * BLOCK_BYTES
        place = len(self._trace)
        self._references[key] = weakref.ref(storage, lambda _: self._free(key, place, size))
        where = self._where() if size >= MIN_NAMED_BYTES else ""
        made = Made(size, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), by, where)
        self._trace.append((place, made))
        self.live += size
        if self.live > self.highest:
            self.highest, self._fullest = self.live, len(self._trace)

    def _free(self, key: int, place: int, size: int) -> None:
        del self._references[key]
        self.live -= size
        self._trace.append((place, None))

    def _where(self) -> str:
        if not self._layers:
            return ""
        layer, names = self._layers[-1], list[str]()
        while id(layer) in self._parents:
            parent, name = self._parents[id(layer)]
            above = parent()
            if above is None:  # that network is gone, and this layer another one's
                break
            names.append(name)
            layer = above
        return ".".join([type(layer).__name__, *reversed(names)])

    @contextmanager
    def on_host(self) -> Iterator[None]:
        """What is made inside lies in the computer's memory, not on the card, and does not count."""
        outside, self._host = self._host, True
        try:
            yield
        finally:
            self._host = outside

    def peak(self, largest: int = 5) -> Peak:
        alive: dict[int, Made] = {}
        for place, made in self._trace[: self._fullest]:
            if made is None:
                del alive[place]
            else:
                alive[place] = made
        biggest = sorted(alive.values(), key=lambda made: -made.bytes)[:largest]
        return Peak(self.highest, max(0, self.highest_with_workspace - self.highest), tuple(biggest))


def workspace(func: Any, args: Any, out: Any) -> int:
    """Bytes that an operator may take inside itself beside its inputs and outputs, at the most.

    A convolution: a copy of each of its operands, input, weight and result, in another layout. Attention's backward
    pass: float32 gradients of the queries, which the kernel sums in.
    """
    if func in CONVOLUTIONS:
        operands = [x for x in (*tree_iter(args), *tree_iter(out)) if isinstance(x, Tensor) and x.ndim == 5]
        return sum(x.numel() * x.element_size() for x in operands)
    if func in ATTENTION_BACKWARD:
        return 4 * int(args[1].numel())
    return 0
