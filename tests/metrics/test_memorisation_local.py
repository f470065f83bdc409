"""The local stage of the memorisation audit, and the rule of Dar et al.: changed and partial copies are found, unseen
volumes are not."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from scipy import ndimage

from medlord_bench.contracts import Run
from medlord_bench.metrics.memorisation import local, points
from medlord_bench.metrics.memorisation.audit import Found, Match, Nearest, Part, Scale, Threshold, nearest_part
from medlord_bench.metrics.memorisation.compare import calibration
from medlord_bench.metrics.memorisation.local import LocalMatcher

from .test_memorisation import SAMPLES, SIDE, Bench, field, fields

BIG = 40


def volume(seed: int) -> np.ndarray:
    return field(seed, BIG).astype(np.float32)


def zoomed(hu: np.ndarray, zoom: float) -> np.ndarray:
    centre = (np.array(hu.shape) - 1) / 2
    return ndimage.affine_transform(hu, np.eye(3) / zoom, centre * (1 - 1 / zoom), order=1, mode="nearest")


def pasted(hu: np.ndarray, other: np.ndarray, part: tuple[slice, ...]) -> np.ndarray:
    made = other.copy()
    made[part] = hu[part]
    return made


def waved(hu: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(5)
    waves = [ndimage.gaussian_filter(rng.normal(size=hu.shape), 12, mode="wrap") for _ in range(3)]
    places = [axis + 2 * wave / wave.std() for axis, wave in zip(np.indices(hu.shape), waves, strict=True)]
    return ndimage.map_coordinates(hu, places, order=1, mode="nearest")


HALF, CENTRE = (slice(0, BIG // 2), slice(None), slice(None)), (slice(BIG // 4, -BIG // 4),) * 3
CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "turned by 90 degrees": lambda hu: np.rot90(hu, axes=(0, 1)),
    "axes swapped": lambda hu: hu.transpose(2, 1, 0),
    "inverted": lambda hu: -hu,
    "half": lambda hu: pasted(hu, volume(900), HALF),
    "central half": lambda hu: pasted(hu, volume(901), CENTRE),
    "zoom 1.1": lambda hu: zoomed(hu, 1.1),
    "zoom 1.3": lambda hu: zoomed(hu, 1.3),
    "shifted by a quarter": lambda hu: np.roll(hu, BIG // 4, axis=1),
    "elastic": waved,
}


@pytest.fixture(scope="module")
def matcher() -> LocalMatcher:
    training = [volume(seed) for seed in range(8)]
    return LocalMatcher(training.__getitem__, [f"p{seed}" for seed in range(8)], 5)


def part_of(matcher: LocalMatcher, hu: np.ndarray, own: str | None = None) -> Part | None:
    found = matcher.find(np.ascontiguousarray(hu, np.float32), own)
    return nearest_part(found, matcher.patients.tolist(), 5, own)


@pytest.mark.parametrize("change", CHANGES)
def test_changed_and_partial_copies_are_found(matcher: LocalMatcher, change: str) -> None:
    for seed in (2, 5):
        one = part_of(matcher, CHANGES[change](volume(seed)))
        assert one is not None and one.training == seed
        assert one.relative < 0.5


def test_unseen_volumes_agree_with_nobody_and_a_patient_never_with_itself(matcher: LocalMatcher) -> None:
    for seed in range(100, 104):
        one = part_of(matcher, volume(seed))
        assert one is None or one.relative > 0.6
    own = part_of(matcher, volume(3), "p3")
    assert own is None or (own.training != 3 and own.relative > 0.6)


@pytest.mark.parametrize("value", [-1000, 0])
def test_a_constant_volume_has_no_points_and_no_part(matcher: LocalMatcher, value: float) -> None:
    hu = np.full((BIG,) * 3, value, np.float32)
    assert len(points.points(points.contrast(torch.from_numpy(hu)))) == 0
    assert part_of(matcher, hu) is None


def test_constant_training_volumes_are_no_error() -> None:
    flat = [np.full((24,) * 3, float(i), np.float32) for i in range(8)]
    assert not len(LocalMatcher(flat.__getitem__, list("abcdefgh"), 5).find(volume(0)).training)


def test_the_best_of_each_patient_and_then_the_next_best_of_any_are_looked_at() -> None:
    """Two patients by their best votes (ten of a, eight of b), and the three next best, whose patient does not matter."""
    flat = np.full((BIG,) * 3, 7.0, np.float32)
    matcher = LocalMatcher(lambda _: flat, ["a", "a", "b", "c", "d"], neighbours=2)
    votes = {0: 10, 1: 9, 2: 8, 3: 7, 4: 6}
    nothing = torch.zeros(3, 3)
    given = [local.Cluster(which, 0, votes[which], nothing, nothing, nothing) for which in (4, 2, 0, 3, 1)]
    assert [one.training for one in matcher._chosen(given)] == [0, 2, 1, 3, 4]
    assert [one.training for one in matcher._chosen(given[:2])] == [2, 4]


def test_a_patch_counts_by_how_much_better_it_agrees_with_one_patient_than_with_others() -> None:
    near = torch.tensor([1.0, 0.85, 0.9, 0.6])  # of a part that is copied, of common anatomy twice, of nothing
    next_best = torch.tensor([0.4, 0.85, 0.8, 0.5])
    twice = torch.tensor([0.9, 0.9, 0.9, 0.6])  # another map onto the nearest patient is no rival
    found = local.exclusive([near, next_best, twice], np.array(["A", "B", "A"]))
    assert found == pytest.approx([(0.3 + 0 + 0.1) / 0.3, 0, (0.2 + 0.05 + 0.1) / 0.3], abs=1e-6)
    assert local.exclusive([near], np.array(["A"])) == pytest.approx([(0.3 + 0.15 + 0.2) / 0.3], abs=1e-6)
    assert len(local.exclusive([], np.array([], str))) == 0


def test_a_map_of_another_size_of_the_sample_leads_to_the_same_places() -> None:
    place = torch.tensor([3.0, -5.0, 7.0])  # at size 1
    one = local.Hypothesis(0, 2, torch.diag(torch.tensor([0.8, 0.9, 0.7])), torch.tensor([1.0, 2.0, 3.0]))
    for size, zoom in enumerate(local.SIZES):
        other = one.of_size(size)
        torch.testing.assert_close(
            other.matrix @ (zoom * place) + other.shift, one.matrix @ (local.SIZES[2] * place) + one.shift
        )


def test_the_local_stage_is_deterministic(matcher: LocalMatcher) -> None:
    hu = CHANGES["half"](volume(1))
    first, again = matcher.find(hu), matcher.find(hu)
    assert np.array_equal(first.training, again.training) and np.array_equal(first.likeness, again.likeness)


# ------------------------------------------------------------------------------------------------------------- points
def test_the_orders_are_the_rotations_and_flips_of_the_ball() -> None:
    assert len({tuple(order) for order in points.ORDERS.tolist()}) == 48
    for orientation, order in zip(points.ORIENTATIONS, points.ORDERS, strict=True):
        assert torch.equal(points.BALL[order].float(), points.BALL.float() @ orientation.T)
        assert torch.equal(orientation @ orientation.T, torch.eye(3))


def test_moments_do_not_change_in_any_orientation() -> None:
    balls = torch.randn(5, len(points.BALL), generator=torch.Generator().manual_seed(0))
    expected = points.moments(balls)
    for order in points.ORDERS:
        torch.testing.assert_close(points.moments(balls[:, order]), expected, atol=2e-2, rtol=1e-2)
    other = points.moments(torch.randn(5, len(points.BALL), generator=torch.Generator().manual_seed(1)))
    assert (other - expected).norm(dim=1).min() > 1


def test_edges_and_tubes_have_no_points_and_a_blob_has_one_at_its_centre() -> None:
    x, y, z = np.indices((32, 32, 32)) - 15.5
    edge, tube = (x > 0.3 * y) * 500.0, np.exp(-(x**2 + y**2) / 8) * 500
    for hu in (edge, tube):
        assert len(points.points(points.contrast(torch.from_numpy(hu.astype(np.float32))))) == 0
    blob = np.exp(-((x - 1) ** 2 + (y + 2.2) ** 2 + z**2) / 4) * 500
    found = points.points(points.contrast(torch.from_numpy(blob.astype(np.float32))))
    assert found.at[0].tolist() == pytest.approx([1, -2.2, 0], abs=0.15) and found.sign[0] == 1


def test_an_affine_map_is_recovered_from_its_points() -> None:
    generator = torch.Generator().manual_seed(0)
    ours = torch.randn(60, 3, generator=generator) * 15
    matrix = points.ORIENTATIONS[20] @ torch.diag(torch.tensor([1.1, 1.0, 0.95]))
    linear, shift = local.fitted(ours, ours @ matrix.T + torch.tensor([3.0, -2, 1]), points.ORIENTATIONS[20])
    torch.testing.assert_close(linear, matrix, atol=0.01, rtol=0)
    torch.testing.assert_close(shift, torch.tensor([3.0, -2, 1]), atol=0.1, rtol=0)


# ------------------------------------------------------------------------------------------------- relative distances
def counts(*pairs: tuple[int, float]) -> Found:
    training, patches = zip(*pairs, strict=True)
    return Found(np.array(training), np.array(patches))


def test_the_relative_distance_of_a_part_compares_agreeing_patches() -> None:
    patients = ["a", "a", "b", "c"]
    one = nearest_part(counts((0, 3), (1, 45), (2, 6), (3, 2)), patients, 5)
    assert one == Part(1, 45, pytest.approx((8 / 4 + 5) / 50))
    assert nearest_part(counts((1, 45)), patients, 5, own="a") is None
    assert nearest_part(counts((1, 45)), patients, 1) is None  # no other patient to compare with


def test_the_smaller_relative_distance_decides_and_says_which_stage() -> None:
    whole = Nearest(1, 0.5, 0.8)
    assert (Match(whole, None).relative, Match(whole, None).kind) == (0.8, "whole")
    both = Match(whole, Part(2, 40, 0.2))
    assert (both.relative, both.kind, both.nearest.training) == (0.2, "part", 2)


def matches(whole: Sequence[float], part: Sequence[float]) -> list[Match]:
    return [Match(Nearest(0, 0.5, a), Part(0, 10, b)) for a, b in zip(whole, part, strict=True)]


def test_the_local_stage_is_brought_to_the_scale_of_the_whole_stage() -> None:
    whole, part = [0.5, 0.6, 0.7, 0.8, 0.9], [0.9, 0.92, 0.94, 0.96, 0.98]
    scale = Scale.of(matches(whole, part), largest=0.5)
    brought = [scale.brought(one).part.relative for one in matches([1.0] * 5, part)]
    assert brought[2] == pytest.approx(0.7) and brought[1] == pytest.approx(0.6) and brought == sorted(brought)
    # Between patients the local stage is never below .9 here: .45 is farther from that than .5 is from .7.
    (copy,) = [scale.brought(one) for one in matches([0.8], [0.45])]
    assert copy.kind == "part" and copy.relative < 0.05 and copy.whole.relative == 0.8
    (not_twice,) = [scale.brought(one) for one in matches([0.8], [0.55])]
    assert not_twice.relative == 0.5  # the largest threshold: less is not twice as close to one patient
    alone = Match(Nearest(0, 0.5, 0.3), None)
    assert scale.brought(alone) == alone
    nothing = Scale.of([Match(Nearest(0, 0.5, value), None) for value in whole], largest=0.5)
    assert nothing.part[0] == 0 and nothing.brought(matches([0.8], [0.4])[0]).relative < 0.5


def test_the_rate_of_both_stages_together_is_nominal() -> None:
    rng = np.random.default_rng(0)

    def drawn(n: int) -> list[Match]:
        normal = rng.normal(size=(n, 2)) @ np.array([[1, 0.5], [0, 0.9]])
        heavy = np.sign(normal) * np.abs(normal) ** 1.5
        return matches(*np.exp(np.clip([[-0.4], [-0.1]] + heavy.T * [[0.2], [0.1]], -6, 0)))

    alarms = []
    for _ in range(200):
        left_out = drawn(100)
        scale = Scale.of(left_out, largest=1.0)
        threshold = Threshold.of([scale.brought(one).relative for one in left_out], 0.05, 1.0)
        alarms += [scale.brought(one).relative < threshold.value for one in drawn(20)]
    assert np.mean(alarms) == pytest.approx(5 / 101, abs=0.012)


def test_at_most_so_many_training_volumes_are_left_out() -> None:
    assert calibration(8, 200) == list(range(8))
    many = calibration(888, 200)
    assert len(many) == 200 and many[0] == 0 and many[-1] == 887


# ---------------------------------------------------------------------------------------------------- the whole metric
def test_the_audit_says_which_stage_found_a_copy_and_order_changes_nothing(run: Run) -> None:
    bench = Bench(run, (BIG,) * 3).use([volume(i) for i in range(10)], [volume(100)], [volume(200)])
    given: Sequence[np.ndarray] = [volume(0), CHANGES["half"](volume(1)), -volume(2), volume(500)]
    items = {**bench.real, SAMPLES: bench.items(SAMPLES, given)}
    scores, rows = bench.reduced(items)
    rate = scores["copy_rate"]
    assert rate.value == 0.75 and rate.floor == 0
    assert "copies: 1 by the whole volume, 2 by parts or after a change alone" in rate.note_text
    pairs = {row.case: (row.region, row.against) for row in rows if row.metric == "copy_pair"}
    assert pairs["samples-01"] == ("part", "train-01") and pairs["samples-02"] == ("part", "train-02")
    again, rows_again = bench.reduced({need: made[::-1] for need, made in items.items()})
    assert again["copy_rate"].value == rate.value
    assert {(r.metric, r.case, r.against) for r in rows} == {(r.metric, r.case, r.against) for r in rows_again}


def dar(run: Run) -> Bench:
    return Bench(run, (SIDE,) * 3, rule="dar")


def test_the_rule_of_dar_takes_its_threshold_from_validation_volumes(run: Run) -> None:
    bench = dar(run).use(fields(0, 10), fields(100, 6), fields(200, 6))
    scores, rows = bench([field(0), field(1), None, field(500)])
    assert set(scores) == {"dar_copy_rate", "dar_memorised_share"}
    rate, share = scores["dar_copy_rate"], scores["dar_memorised_share"]
    assert rate.value >= 0.5 and rate.n == 4 and rate.failed == 1 and rate.floor_n == 6
    assert share.value >= 0.2 and share.n_reference == 10
    nearest = {row.case: (row.against, row.value) for row in rows}
    assert nearest["samples-00"] == ("train-00", pytest.approx(1, abs=1e-3))
    from medlord_bench.metrics.memorisation.compare import Pictures, whole_stage
    from medlord_bench.metrics.memorisation.metric import HELD_OUT, TRAIN

    pictures = Pictures((SIDE,) * 3, bench.metric.config)
    validation = whole_stage(pictures, bench.real[HELD_OUT[0]], bench.data.grid, bench.metric.config)
    best = [validation.find(pictures.whole(item)).likeness.max() for item in bench.real[TRAIN]]
    assert f"above {np.percentile(best, 95):.3g} with" in rate.note_text


def test_the_rule_of_dar_is_not_run_without_validation_volumes(run: Run) -> None:
    scores, rows = dar(run).use(fields(0, 10), [], fields(200, 2))([field(0)])
    assert {score.status for score in scores.values()} == {"not_run"} and len(scores) == 2 and not rows
    assert "no validation volumes" in scores["dar_copy_rate"].reason


def test_contrast_is_that_of_a_place_but_noise_far_below_the_picture_s_own_stays_noise() -> None:
    """Detail of one half is a hundredth of the other's: a tenth of the floor, which is a tenth of the picture's own."""
    picture = torch.from_numpy(volume(3)) * 100
    picture[BIG // 2 :] /= 100
    found = points.contrast(picture)
    assert 0.7 < found[: BIG // 2 - 8].std() < 1.2
    assert found[BIG // 2 + 8 :].std() < 0.25
    torch.testing.assert_close(points.contrast(picture * 50), found, rtol=1e-2, atol=1e-2)


def test_the_candidates_are_the_nearest_points_of_other_patients(matcher: LocalMatcher) -> None:
    """By brute force over all points that are not barred."""
    barred = torch.from_numpy(matcher.patients == "p3")[matcher.owner]
    query = matcher.moments[:70] + 0.01
    distance = torch.cdist(query.double(), matcher.moments.double())
    distance[:, barred] = torch.inf
    found = matcher._candidates(query, barred)
    assert found.shape == (len(query), min(local.CANDIDATES, int((~barred).sum())))
    expected = distance.sort(dim=1).values[:, : found.shape[1]]
    torch.testing.assert_close(distance.gather(1, found).sort(dim=1).values, expected, rtol=1e-3, atol=1e-3)
