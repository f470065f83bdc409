import hashlib

import torch

from medlord_bench.util import seeds


def test_derived_seeds_stay_what_they_were_so_that_old_runs_can_be_repeated() -> None:
    digest = hashlib.sha256(b"int:0\x1fstr:sample\x1fint:3").digest()
    assert seeds.derive(0, "sample", 3) == int.from_bytes(digest[:8], "big") // 2 == 2186045147130191582


def test_parts_do_not_run_into_each_other() -> None:
    assert seeds.derive(1, 23) != seeds.derive(12, 3)
    assert seeds.derive("1") != seeds.derive(1)


def test_noise_of_a_sample_is_its_own() -> None:
    assert torch.equal(seeds.noise((2, 3), 0, "sample", 1), seeds.noise((2, 3), 0, "sample", 1))
    assert not torch.equal(seeds.noise((2, 3), 0, "sample", 1), seeds.noise((2, 3), 0, "sample", 2))


def test_numpy_generators_are_reproducible() -> None:
    first, second = (seeds.numpy_rng(5, "patch").integers(1000, size=4).tolist() for _ in range(2))
    assert first == second


def test_the_global_generator_is_seeded_as_torch_does_and_nothing_is_queued_for_other_devices() -> None:
    torch.manual_seed(7)
    expected = torch.rand(4)
    queued = len(torch.cuda._queued_calls)
    seeds.set_global(7)
    assert torch.equal(torch.rand(4), expected) and len(torch.cuda._queued_calls) == queued
