"""Training on several processes: micro-batches are divided over ranks, and what an optimiser step needs is summed over them.

A recipe accumulates the gradients of its micro-batches, each weighted by its share of the batch. So the sum over ranks of what
each accumulated is the gradient of one process up to rounding, and one reduction for each optimiser step is enough: what torch's
`DistributedDataParallel` does with `no_sync`, without its wrapper, which cannot see a codebook's statistics. A micro-batch stays
whole on one rank, with a random state of its own, so that neither its content nor what is drawn depends on the number of ranks.
All ranks hold the same weights; the first one validates, saves and publishes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta

import torch
from torch import Tensor, distributed

from medlord_bench.contracts import World
from medlord_bench.util import seeds

HOST = "127.0.0.1"
PATIENCE = timedelta(hours=6)  # the first rank validates while the others wait
BUCKET = 2**25  # numbers that are reduced at once


class Ranks:
    """One process of a training: its number, and how many there are. device: of its tensors."""

    def __init__(self, rank: int = 0, size: int = 1, device: str = "cpu") -> None:
        self.rank, self.size, self.device = rank, size, device

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def parts(self, count: int, *seed: int | str) -> Iterator[int]:
        """The numbers of this rank's micro-batches. Before each but the first of a step, the global random state is set from
        `seed` and its number."""
        for part in range(self.rank, count, self.size):
            if part:
                seeds.set_global(seeds.derive(*seed, "micro-batch", part))
            yield part

    def sum_(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by their sums over the ranks."""
        if self.size == 1:
            return
        waiting: list[Tensor] = []
        for tensor in tensors:
            if waiting and (
                tensor.dtype != waiting[0].dtype or sum(t.numel() for t in waiting) + tensor.numel() > BUCKET
            ):
                _reduce(waiting)
                waiting = []
            waiting.append(tensor)
        if waiting:
            _reduce(waiting)

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        self.sum_(p.grad for p in parameters if p.grad is not None)

    def total(self, figures: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Scalars, summed over the ranks."""
        if self.size == 1:
            return dict(figures)
        names = sorted(figures)
        values = torch.stack([figures[name].detach().float() for name in names])
        self.sum_([values])
        return dict(zip(names, values, strict=True))

    def of(self, part: int, tensor: Tensor) -> Tensor:
        """The tensor of the rank that had a micro-batch; of the same shape on all."""
        if self.size > 1:
            tensor = tensor.contiguous()
            distributed.broadcast(tensor, part % self.size)
        return tensor

    def told(self, *numbers: int) -> list[int]:
        """The numbers that the first rank gives."""
        if self.size == 1:
            return list(numbers)
        shared = torch.tensor(numbers, dtype=torch.int64, device=self.device)
        distributed.broadcast(shared, 0)
        return [int(number) for number in shared]


ALONE = Ranks()
_current: ContextVar[Ranks] = ContextVar("ranks")


def current() -> Ranks:
    """The ranks of the training under way; a single one outside `joined`."""
    return _current.get(ALONE)


def _reduce(tensors: list[Tensor]) -> None:
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    distributed.all_reduce(flat)
    for tensor, summed in zip(tensors, torch.split(flat, [t.numel() for t in tensors]), strict=True):
        tensor.copy_(summed.view_as(tensor))


@contextmanager
def joined(world: World, device: str) -> Iterator[Ranks]:
    """Start the other ranks, meet them, and leave them at the end."""
    store = distributed.TCPStore(  # type: ignore[attr-defined]
        HOST, world.port, world.size, is_master=world.rank == 0, timeout=PATIENCE, wait_for_workers=False
    )
    kind = torch.device(device)
    if kind.type == "cuda":
        torch.cuda.set_device(kind)
    with world.start(store.port):
        distributed.init_process_group(
            "nccl" if kind.type == "cuda" else "gloo",
            store=store,
            rank=world.rank,
            world_size=world.size,
            timeout=PATIENCE,
        )
        token = _current.set(Ranks(world.rank, world.size, device))
        try:
            yield current()
            distributed.barrier()  # else the first to leave breaks the others' last exchange
        finally:
            _current.reset(token)
            distributed.destroy_process_group()
