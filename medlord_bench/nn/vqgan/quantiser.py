"""Vector quantisation with a codebook trained by exponential moving averages, in bounded memory.

van den Oord et al., "Neural Discrete Representation Learning" (2017), appendix A.1. Tensors have the names
and layout of MONAI's EMAQuantizer. No tensor has a shape that depends on data, so that a dry run without data predicts
the memory. `bincount` and `unique` would prevent the prediction or, like `one_hot`, need too much memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medlord_bench.memory.dry_run import is_dry_run

OUTLIER_DEVIATIONS = 10.0  # codes farther from the median, in median absolute deviations, are clipped for the centre


class Quantised(NamedTuple):
    """codes: float32 (B, d, X, Y, Z), with the straight-through gradient. indices: int64 (B, X, Y, Z).

    loss: the commitment loss, multiplied by its weight.
    """

    codes: Tensor
    indices: Tensor
    loss: Tensor


class Statistics(NamedTuple):
    """Statistics of a batch per code. counts: float32 (K,). sums: (K, d), sums of the vectors assigned to a code."""

    counts: Tensor
    sums: Tensor


class Usage(NamedTuple):
    """share: number of used codes / K. perplexity: exp of the entropy of the codes' frequencies, in [1, K]."""

    share: Tensor
    perplexity: Tensor


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """Disable autocast and TF32: with either, other codes would be selected."""
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
    """The mean code (1, d) after clipping of outliers.

    A few dead codes at 1e5 would otherwise shift the centre and remove the precision that centring provides.
    """
    median = codebook.median(dim=0, keepdim=True).values
    reach = OUTLIER_DEVIATIONS * (codebook - median).abs().median(dim=0, keepdim=True).values
    drawn_in = torch.clamp(codebook, median - reach, median + reach)
    return torch.where(reach > 0, drawn_in, codebook).mean(dim=0, keepdim=True)


@torch.no_grad()
def nearest_codes(flat: Tensor, codebook: Tensor, chunk: int = 1024) -> Tensor:
    """Index of the nearest code (Euclidean) of each row: `flat` (N, d), `codebook` (K, d) -> int64 (N,).

    argmin |x - e|^2 = argmax x.e - |e|^2/2, computed as one product of (x, 1) with (e, -|e|^2/2) per `chunk` rows. The
    extra memory is chunk * K floats for any N. Both sides are first centred on the codebook: far from the origin the
    expanded form would lose the differences between codes to rounding.
    """
    with _full_precision(flat.device):
        flat, codebook = flat.float(), codebook.float()
        (n, d), k = flat.shape, len(codebook)
        chunk = max(1, min(chunk, n))
        centre = _centre(codebook)
        codes = codebook - centre
        # (K, d), (K, 1) -> (K, d + 1) -> (d + 1, K)
        weights = torch.cat([codes, -0.5 * codes.square().sum(dim=1, keepdim=True)], dim=1).t().contiguous()
        rows = flat.new_ones(chunk, d + 1)  # (chunk, d + 1) @ weights (d + 1, K) -> scores (chunk, K)
        scores = flat.new_empty(chunk, k)
        indices = torch.empty(n, dtype=torch.int64, device=flat.device)
        starts = range(0, n, chunk)
        for start in starts[:1] if is_dry_run(flat) else starts:  # every chunk needs the same memory
            m = min(chunk, n - start)
            torch.sub(flat[start : start + m], centre, out=rows[:m, :d])
            torch.mm(rows[:m], weights, out=scores[:m])
            torch.argmax(scores[:m], dim=1, out=indices[start : start + m])
        return indices


@torch.no_grad()
def code_statistics(flat: Tensor, indices: Tensor, codes: int) -> Statistics:
    """Number and sum of the rows of `flat` (N, d) assigned to each of the `codes` codes. indices: int64 (N,)."""
    counts = flat.new_zeros(codes).index_add_(0, indices, flat.new_ones(len(indices)))
    return Statistics(counts, flat.new_zeros(codes, flat.shape[1]).index_add_(0, indices, flat))


@torch.no_grad()
def usage(counts: Tensor) -> Usage:
    """The usage of the codebook, from the counts (K,) of any number of batches."""
    frequency = counts / counts.sum().clamp(min=1)
    entropy = -torch.special.xlogy(frequency, frequency).sum()
    return Usage((counts > 0).float().mean(), entropy.exp())


def flatten(z: Tensor) -> Tensor:
    """(B, d, X, Y, Z) -> float32 (B*X*Y*Z, d), detached."""
    return z.detach().float().movedim(1, -1).reshape(-1, z.shape[1])


class VectorQuantiser(nn.Module):
    """A codebook of `codes` vectors of `dim` channels.

    decay: decay of the moving averages. epsilon: Laplace smoothing of the cluster sizes.
    restart_below: a code is dead if its moving average count is below this share of a uniform codebook's count.
    `restart` replaces a dead code by a vector of the batch; 0 disables restarts.
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
        # Cluster sizes start at 1, the weight of the single vector in `ema_w`. If they start at 0, as in other
        # implementations, codes that the first batch does not use become ema_w / epsilon, five orders of magnitude away
        # from the data.
        self.register_buffer("ema_cluster_size", torch.ones(codes))
        self.register_buffer("ema_w", self.embedding.weight.detach().clone())

    def embed(self, indices: Tensor) -> Tensor:
        """Indices (B, X, Y, Z) -> codes float32 (B, d, X, Y, Z)."""
        return self.embedding(indices).movedim(-1, 1).contiguous()  # type: ignore[no-any-return]

    def forward(self, z: Tensor, gathered: Statistics | None = None) -> Quantised:
        """Quantise `z` (B, d, X, Y, Z).

        Training mode updates the codebook. If `gathered` is given, the batch's statistics are added to it in place
        instead, and the caller calls `update` after all micro-batches of the step.
        """
        flat = flatten(z)
        weight = self.embedding.weight
        flat_indices = nearest_codes(flat, weight)
        indices = flat_indices.view(z.shape[0], *z.shape[2:])  # (B*X*Y*Z,) -> (B, X, Y, Z)
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
        """Zeros to which the statistics of a step are added."""
        return Statistics(torch.zeros_like(self.ema_cluster_size), torch.zeros_like(self.ema_w))

    @torch.no_grad()
    def update(self, batch: Statistics) -> None:
        """Update the codebook with the statistics of a step.

        Non-finite statistics change nothing: the codebook must remain valid after a step that the optimiser skips.
        """
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
        """Replace every dead code by a random vector of `z` (B, d, X, Y, Z), with the weight of an average code.

        generator: on the CPU, seeded from the step, so that a resumed training draws the same vectors. Returns the
        number of replaced codes (a scalar tensor; 0 if `restart_below` is 0). No code is replaced if `z` is not finite.
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
