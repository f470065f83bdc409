"""Vector quantisation with a codebook learnt by exponential moving averages, in bounded memory.

van den Oord et al., "Neural Discrete Representation Learning" (2017), appendix A.1. Tensors are named and laid out as
in MONAI's EMAQuantizer. Nothing here has a shape that depends on data, so that a dry run without data can predict its
memory (`bincount`, `unique` and `one_hot` would defeat the prediction or the memory).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medlord_bench.memory.dry_run import is_dry_run

OUTLIER_DEVIATIONS = 10.0  # codes this many median absolute deviations out do not move the centre


class Quantised(NamedTuple):
    """codes: (B, d, X, Y, Z), float32, gradients pass straight through. indices: int64 (B, X, Y, Z).
    loss: the commitment loss, already times its weight."""

    codes: Tensor
    indices: Tensor
    loss: Tensor


class Statistics(NamedTuple):
    """What a batch says about each code. counts: (K,) float32. sums: (K, d), the sum of the vectors assigned to it."""

    counts: Tensor
    sums: Tensor


class Usage(NamedTuple):
    """share: codes used at least once / K. perplexity: exp of the entropy of the codes' frequencies, in [1, K]."""

    share: Tensor
    perplexity: Tensor


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """No autocast and no TF32: either would pick other codes."""
    with torch.autocast(device.type, enabled=False):
        if device.type != "cuda":
            yield
            return
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)


def _centre(codebook: Tensor) -> Tensor:
    """The mean code (1, d), with runaway codes drawn in: a few dead ones at 1e5 would else spoil the precision that
    centring is for."""
    median = codebook.median(dim=0, keepdim=True).values
    reach = OUTLIER_DEVIATIONS * (codebook - median).abs().median(dim=0, keepdim=True).values
    drawn_in = torch.clamp(codebook, median - reach, median + reach)
    return torch.where(reach > 0, drawn_in, codebook).mean(dim=0, keepdim=True)


@torch.no_grad()
def nearest_codes(flat: Tensor, codebook: Tensor, chunk: int = 1024) -> Tensor:
    """Index of the nearest code (Euclidean) of each row: int64 (N,) from `flat` (N, d) and `codebook` (K, d).

    argmin |x - e|^2 = argmax x.e - |e|^2/2, as one product of (x, 1) with (e, -|e|^2/2) per `chunk` rows. Extra memory
    is chunk * K floats, whatever N. Both sides are first centred on the codebook: far from the origin the expanded
    form loses the differences between codes to rounding.
    """
    with _full_precision(flat.device):
        flat, codebook = flat.float(), codebook.float()
        (n, d), k = flat.shape, len(codebook)
        chunk = max(1, min(chunk, n))
        centre = _centre(codebook)
        codes = codebook - centre
        weights = torch.cat([codes, -0.5 * codes.square().sum(dim=1, keepdim=True)], dim=1).t().contiguous()
        rows = flat.new_ones(chunk, d + 1)
        scores = flat.new_empty(chunk, k)
        indices = torch.empty(n, dtype=torch.int64, device=flat.device)
        starts = range(0, n, chunk)
        for start in starts[:1] if is_dry_run(flat) else starts:  # every chunk takes the same memory
            m = min(chunk, n - start)
            torch.sub(flat[start : start + m], centre, out=rows[:m, :d])
            torch.mm(rows[:m], weights, out=scores[:m])
            torch.argmax(scores[:m], dim=1, out=indices[start : start + m])
        return indices


@torch.no_grad()
def code_statistics(flat: Tensor, indices: Tensor, codes: int) -> Statistics:
    """How many rows of `flat` (N, d) chose each of the `codes` codes, and their sum. `indices`: int64 (N,)."""
    counts = flat.new_zeros(codes).index_add_(0, indices, flat.new_ones(len(indices)))
    return Statistics(counts, flat.new_zeros(codes, flat.shape[1]).index_add_(0, indices, flat))


@torch.no_grad()
def usage(counts: Tensor) -> Usage:
    """How much of the codebook was used, from the counts (K,) of any number of batches."""
    frequency = counts / counts.sum().clamp(min=1)
    entropy = -torch.special.xlogy(frequency, frequency).sum()
    return Usage((counts > 0).float().mean(), entropy.exp())


def flatten(z: Tensor) -> Tensor:
    """(B, d, X, Y, Z) -> float32 (B*X*Y*Z, d), detached."""
    return z.detach().float().movedim(1, -1).reshape(-1, z.shape[1])


class VectorQuantiser(nn.Module):
    """A codebook of `codes` vectors of `dim` channels.

    decay: of the moving averages. epsilon: Laplace smoothing of the cluster sizes.
    restart_below: a code whose moving average count is below this share of a uniform codebook's is dead, and
    `restart` moves it onto a vector of the batch; 0 turns that off.
    """

    ema_cluster_size: Tensor
    ema_w: Tensor

    def __init__(
        self,
        codes: int,
        dim: int,
        *,
        commitment_cost: float = 0.25,
        decay: float = 0.99,
        epsilon: float = 1e-5,
        restart_below: float = 0.0,
    ) -> None:
        super().__init__()
        self.commitment_cost, self.decay, self.epsilon = commitment_cost, decay, epsilon
        self.restart_below = restart_below
        self.embedding = nn.Embedding(codes, dim)
        self.embedding.weight.requires_grad_(False)
        # Cluster sizes start at 1, the weight of the one vector that `ema_w` holds. From 0, as elsewhere, codes that
        # the first batch does not choose become ema_w / epsilon, five orders of magnitude away from the data.
        self.register_buffer("ema_cluster_size", torch.ones(codes))
        self.register_buffer("ema_w", self.embedding.weight.detach().clone())

    def embed(self, indices: Tensor) -> Tensor:
        """The codes of `indices` (B, X, Y, Z): (B, d, X, Y, Z), float32."""
        return self.embedding(indices).movedim(-1, 1).contiguous()  # type: ignore[no-any-return]

    def forward(self, z: Tensor, gathered: Statistics | None = None) -> Quantised:
        """Quantise `z` (B, d, X, Y, Z).

        In training the codebook follows at once, or, where `gathered` is given, the batch's statistics are added to
        it in place and the caller calls `update` when all micro-batches of the step are in.
        """
        flat = flatten(z)
        weight = self.embedding.weight
        flat_indices = nearest_codes(flat, weight)
        indices = flat_indices.view(z.shape[0], *z.shape[2:])
        with torch.autocast(z.device.type, enabled=False):
            z = z.float()
            codes = self.embed(indices)
            loss = self.commitment_cost * F.mse_loss(z, codes)
            if z.requires_grad:
                codes = z + (codes - z.detach()).detach()
        if self.training:
            found = code_statistics(flat, flat_indices, len(weight))
            if gathered is None:
                self.update(found)
            else:
                gathered.counts.add_(found.counts)
                gathered.sums.add_(found.sums)
        return Quantised(codes, indices, loss)

    def no_statistics(self) -> Statistics:
        """Zeros to gather a step's statistics in."""
        return Statistics(torch.zeros_like(self.ema_cluster_size), torch.zeros_like(self.ema_w))

    @torch.no_grad()
    def update(self, batch: Statistics) -> None:
        """Move the codebook towards a step's statistics. Statistics that are not finite change nothing: the codebook
        must outlive a step that the optimiser skips."""
        finite = torch.isfinite(batch.sums).all()
        sizes = torch.lerp(batch.counts, self.ema_cluster_size, self.decay)
        sums = torch.lerp(batch.sums, self.ema_w, self.decay)
        self.ema_cluster_size.copy_(torch.where(finite, sizes, self.ema_cluster_size))
        self.ema_w.copy_(torch.where(finite, sums, self.ema_w))
        n = self.ema_cluster_size.sum()
        smoothed = (self.ema_cluster_size + self.epsilon) / (n + len(self.ema_w) * self.epsilon) * n
        self.embedding.weight.copy_(torch.where(finite, self.ema_w / smoothed[:, None], self.embedding.weight))

    @torch.no_grad()
    def restart(self, z: Tensor, generator: torch.Generator) -> Tensor:
        """Move every dead code onto a vector drawn from `z` (B, d, X, Y, Z), with the weight of an average code.

        generator: on the CPU, seeded from the step, so that a resumed training draws the same. Returns the number of
        codes moved (a scalar tensor; 0 where `restart_below` is 0). `z` must be finite.
        """
        flat = flatten(z)
        k = len(self.ema_w)
        average = self.ema_cluster_size.mean()
        drawn = torch.randint(len(flat), (k,), generator=generator).to(flat.device)
        dead = self.ema_cluster_size < self.restart_below * average
        dead &= torch.isfinite(flat).all()
        fresh = flat[drawn]
        self.embedding.weight.copy_(torch.where(dead[:, None], fresh, self.embedding.weight))
        self.ema_w.copy_(torch.where(dead[:, None], fresh * average, self.ema_w))
        self.ema_cluster_size.copy_(torch.where(dead, average, self.ema_cluster_size))
        return dead.sum()
