"""The quantiser against float64 brute force, MONAI's EMAQuantizer, and closed forms."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.networks.layers.vector_quantizer import EMAQuantizer
from torch._subclasses.fake_tensor import FakeTensorMode

from medlord_bench.nn.vqgan.quantiser import Statistics, VectorQuantiser, code_statistics, flatten, nearest_codes, usage
from medlord_bench.util import seeds


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def brute_force(flat: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    """Squared float64 distances of every pair (N, K)."""
    return (flat.double()[:, None] - codebook.double()[None]).square().sum(-1)


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(1, 70), k=st.integers(1, 50), d=st.integers(1, 9), chunk=st.integers(1, 80), seed=st.integers(0, 99)
)
def test_nearest_codes_are_the_nearest_for_any_chunk(n: int, k: int, d: int, chunk: int, seed: int) -> None:
    flat, codebook = normal(n, d, seed=seed), normal(k, d, seed=seed + 1000)
    distances = brute_force(flat, codebook)
    chosen = nearest_codes(flat, codebook, chunk)
    assert chosen.dtype == torch.int64
    excess = distances.gather(1, chosen[:, None])[:, 0] - distances.min(dim=1).values
    assert excess.max() < 1e-5  # ties within rounding may go either way


def test_nearest_codes_far_from_the_origin_are_not_lost_to_rounding() -> None:
    flat, codebook = 5 + 1e-3 * normal(512, 8), 5 + 1e-3 * normal(1024, 8, seed=1)
    distances = brute_force(flat, codebook)
    assert torch.equal(nearest_codes(flat, codebook), distances.argmin(dim=1))


def test_runaway_codes_do_not_spoil_the_search_for_the_others() -> None:
    flat, codebook = normal(512, 8), normal(1024, 8, seed=1)
    codebook[::50] = 4e5  # what an unused code becomes under a cold start
    assert torch.equal(nearest_codes(flat, codebook), brute_force(flat, codebook).argmin(dim=1))


def test_a_codebook_of_identical_codes_gives_a_valid_index() -> None:
    assert nearest_codes(normal(5, 3), torch.ones(4, 3)).max() < 4


def test_autocast_does_not_change_the_codes() -> None:
    flat, codebook = normal(256, 8), normal(512, 8, seed=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(nearest_codes(flat, codebook), brute_force(flat, codebook).argmin(dim=1))


def test_statistics_equal_the_one_hot_form() -> None:
    flat, indices = normal(300, 8), torch.randint(0, 40, (300,), generator=torch.Generator().manual_seed(0))
    one_hot = torch.nn.functional.one_hot(indices, 40).double()
    found = code_statistics(flat, indices, 40)
    assert torch.equal(found.counts.double(), one_hot.sum(0))
    torch.testing.assert_close(found.sums.double(), one_hot.t() @ flat.double(), atol=1e-5, rtol=0)


def pair(decay: float = 0.9) -> tuple[VectorQuantiser, EMAQuantizer]:
    """Ours and MONAI's with the same state."""
    ours = VectorQuantiser(64, 8, decay=decay)
    theirs = EMAQuantizer(3, 64, 8, commitment_cost=0.25, decay=decay)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours, theirs


def test_tensors_are_laid_out_as_monais() -> None:
    ours, theirs = (module.state_dict() for module in pair())
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


def test_three_training_steps_follow_monais() -> None:
    ours, theirs = pair()
    for step in range(3):
        z = normal(2, 8, 4, 4, 3, seed=step)
        mine, other = z.clone().requires_grad_(), z.clone().requires_grad_()
        q = ours(mine)
        codes, loss, indices = theirs(other)
        assert torch.equal(q.indices, indices)
        torch.testing.assert_close(q.codes, codes)
        torch.testing.assert_close(q.loss, loss)
        (q.codes.square().sum() + q.loss).backward()
        (codes.square().sum() + loss).backward()
        torch.testing.assert_close(mine.grad, other.grad)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-4, atol=1e-5)


def test_evaluation_gives_codebook_rows_and_changes_nothing() -> None:
    quantiser = VectorQuantiser(32, 4).eval()
    before = {name: value.clone() for name, value in quantiser.state_dict().items()}
    q = quantiser(normal(1, 4, 3, 3, 3))
    assert torch.equal(q.codes, quantiser.embed(q.indices))
    assert all(torch.equal(before[name], value) for name, value in quantiser.state_dict().items())


def test_unused_codes_stay_where_they_were_at_the_cold_start() -> None:
    quantiser = VectorQuantiser(128, 8, decay=0.95)
    first = quantiser.embedding.weight.clone()
    counts = code_statistics(flatten(z := normal(1, 8, 4, 4, 4)), quantiser(z).indices.flatten(), 128).counts
    unused = counts == 0
    assert unused.any()
    torch.testing.assert_close(quantiser.embedding.weight[unused], first[unused], rtol=1e-3, atol=1e-3)


def test_micro_batches_move_the_codebook_as_the_whole_batch_does() -> None:
    whole, parts = (VectorQuantiser(32, 4) for _ in range(2))
    parts.load_state_dict(whole.state_dict())
    z = normal(4, 4, 3, 3, 3)
    whole(z)
    gathered = parts.no_statistics()
    for part in z.split(1):
        parts(part, gathered)
    parts.update(gathered)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value)


def test_statistics_that_are_not_finite_leave_the_codebook_alone() -> None:
    quantiser = VectorQuantiser(16, 4)
    before = quantiser.embedding.weight.clone()
    quantiser.update(Statistics(torch.ones(16), torch.full((16, 4), float("nan"))))
    assert torch.equal(quantiser.embedding.weight, before)
    assert torch.equal(quantiser.ema_cluster_size, torch.ones(16))


def test_dead_codes_move_onto_data_and_live_ones_stay() -> None:
    quantiser = VectorQuantiser(16, 4, restart_below=0.1)
    quantiser.ema_cluster_size[3] = 0
    quantiser.ema_cluster_size[7] = 1e-4
    before, z = quantiser.embedding.weight.clone(), normal(2, 4, 3, 3, 3)
    moved = quantiser.restart(z, seeds.torch_rng(0, "restart", 5))
    assert int(moved) == 2
    live = [i for i in range(16) if i not in (3, 7)]
    assert torch.equal(quantiser.embedding.weight[live], before[live])
    for code in quantiser.embedding.weight[[3, 7]]:
        assert (flatten(z) == code).all(dim=1).any()
    torch.testing.assert_close(
        quantiser.ema_w[[3, 7]] / quantiser.ema_cluster_size[[3, 7], None], quantiser.embedding.weight[[3, 7]]
    )


def test_restart_draws_the_same_vectors_from_the_same_step() -> None:
    def restarted(step: int) -> torch.Tensor:
        torch.manual_seed(0)
        quantiser = VectorQuantiser(16, 4, restart_below=0.5)
        quantiser.ema_cluster_size[:8] = 0
        quantiser.restart(normal(2, 4, 5, 5, 5), seeds.torch_rng(0, "restart", step))
        return quantiser.embedding.weight

    assert torch.equal(restarted(1), restarted(1))
    assert not torch.equal(restarted(1), restarted(2))


def test_restart_is_off_at_zero() -> None:
    quantiser = VectorQuantiser(16, 4, restart_below=0.0)
    quantiser.ema_cluster_size.zero_()
    assert int(quantiser.restart(normal(1, 4, 2, 2, 2), seeds.torch_rng(0))) == 0


@pytest.mark.parametrize(
    ("counts", "share", "perplexity"), [([5, 5, 5, 5], 1.0, 4.0), ([9, 0, 0, 0], 0.25, 1.0), ([3, 3, 0, 0], 0.5, 2.0)]
)
def test_usage_of_known_counts(counts: list[int], share: float, perplexity: float) -> None:
    found = usage(torch.tensor(counts, dtype=torch.float32))
    assert float(found.share) == share
    assert float(found.perplexity) == pytest.approx(perplexity, rel=1e-6)


def test_a_dry_run_without_data_can_predict_a_training_step() -> None:
    with FakeTensorMode():
        quantiser = VectorQuantiser(512, 8, restart_below=0.1)
        z = torch.empty(2, 8, 16, 16, 16, requires_grad=True)
        gathered = quantiser.no_statistics()
        q = quantiser(z, gathered)
        (q.codes.sum() + q.loss).backward()
        quantiser.update(gathered)
        quantiser.restart(z, torch.Generator().manual_seed(0))
        assert usage(gathered.counts).perplexity.shape == ()
        assert q.indices.shape == (2, 16, 16, 16)
