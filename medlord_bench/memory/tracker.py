"""Exact live bytes of every tensor that a piece of code creates, real or fake.

A `TorchDispatchMode` sees each operator's outputs; a storage counts from the operator that created it until its
last reference is released. Temporary memory inside an operator is not visible: `workspace` allows for it. Under
`FakeTensorMode` nothing is computed or allocated, and the bytes are the same (tests/memory/test_tracker.py).
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
    register_module_module_registration_hook,
)
from torch.utils._python_dispatch import TorchDispatchMode

BLOCK_BYTES = 512  # bytes: the smallest unit of CUDA's caching allocator
MIN_NAMED_BYTES = 2**16  # bytes: smaller tensors are counted, but their layer is not recorded
aten = torch.ops.aten
DEVICE = torch.ops.prim.device.default
CONVOLUTIONS = {aten.convolution.default, aten.convolution_backward.default}
ATTENTION_BACKWARD = {
    aten._scaled_dot_product_flash_attention_for_cpu_backward.default,
    aten._scaled_dot_product_flash_attention_backward.default,
    aten._scaled_dot_product_efficient_attention_backward.default,
}


@dataclass(frozen=True)
class Made:
    """The memory of one tensor. by: the operator that created it, "given" if it existed before. module: the active
    layer, "" outside of any."""

    bytes: int
    shape: tuple[int, ...]
    dtype: str
    by: str
    module: str


@dataclass(frozen=True)
class Peak:
    """The memory peak of a piece of work, in bytes.

    allocated: of all live tensors. workspace: increase of the peak when every operator's allowance is added to the
    live tensors while it runs. largest: the largest tensors at the peak, in descending order.
    """

    allocated: int
    workspace: int
    largest: tuple[Made, ...]


class Link(NamedTuple):
    """A layer and the module that it was registered in, under a name."""

    child: weakref.ref[nn.Module]
    parent: weakref.ref[nn.Module]
    name: str


class MemoryTracker(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts while it is active; `peak()` returns the result. Tensors that existed before count from their first use
    as an operator's input, except those created `on_host`."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.highest = self.highest_with_workspace = 0
        self._alive: dict[int, int] = {}  # id of a storage -> its place in the trace
        self._trace: list[tuple[int, Made | None]] = []  # (place of the storage, created tensor, or None: freed)
        self._fullest = 0  # length of the trace at the peak
        self._references: dict[int, weakref.ref[Any]] = {}
        self._layers: list[nn.Module] = []
        self._parents: dict[int, Link] = {}  # id of a layer -> where it was registered last
        self._host = False

    def __enter__(self) -> MemoryTracker:
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    @contextmanager
    def naming_layers(self) -> Iterator[None]:
        """Record the active layer for `Made.module`; for networks that are built inside, by its full name."""
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
            self._parents[id(child)] = Link(weakref.ref(child), weakref.ref(parent), name)

    def _leave(self, *_: Any) -> None:
        self._layers.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        if func is DEVICE and type(args[0]) is FakeTensor:  # two of three calls; `func` would ask every mode below
            return args[0].fake_device
        kwargs = kwargs or {}
        if func.namespace == "prim":
            return func(*args, **kwargs)
        if torch.is_inference_mode_enabled() and func._can_decompose():
            with self:  # autograd decomposes compound operators; without autograd this code must
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        for tensor in _tensors(args):
            self._see(tensor, "given")
        out = func(*args, **kwargs)
        for tensor in _tensors(out):
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
        while (link := self._parents.get(id(layer))) is not None:
            above = link.parent()
            if link.child() is not layer or above is None:  # of a layer that is gone, whose id this one has now
                break
            names.append(link.name)
            layer = above
        return ".".join([type(layer).__name__, *reversed(names)])

    @contextmanager
    def on_host(self) -> Iterator[None]:
        """Tensors created inside are in host memory, not on the card, and do not count."""
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


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors of an operator's arguments or result: lists and tuples of them, at any depth."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors(part)


def workspace(func: Any, args: Any, out: Any) -> int:
    """Upper bound of the bytes that an operator allocates internally besides its inputs and outputs.

    A convolution: a copy of each of its operands, input, weight and result, in another layout. Attention's backward
    pass: float32 gradients of the queries, in which the kernel accumulates.
    """
    if func in CONVOLUTIONS:
        operands = [x for x in (*_tensors(args), *_tensors(out)) if x.ndim == 5]
        return sum(x.numel() * x.element_size() for x in operands)
    if func in ATTENTION_BACKWARD:
        return 4 * int(args[1].numel())
    return 0
