"""The control generators: each has the one fault that it is for, at the strength asked for, and no other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from medlord_bench.checks.contract import Check, check
from medlord_bench.checks.contract.common import phantom
from medlord_bench.contracts import DataProtocol, Grid, LabelMap, Request, Run, Volume, registry
from medlord_bench.contracts.specs import make
from medlord_bench.engine.prepared import StoredCohort
from medlord_bench.engine.resolve import contestant
from medlord_bench.errors import Stopped, UserError
from medlord_bench.generators.controls.tissue import Tissue, measure, painted_over
from medlord_bench.stats import frechet_distance
from medlord_bench.util import seeds

HOLDOUT = ("blur", "hu-shift", "drop-region", "holdout", "implant", "fault", "magnify")
NAMES = ("copycat", "mode-collapse", "oracle", *HOLDOUT)
N_VAL = 3


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> StoredCohort:
    import logging

    from medlord_bench.util.progress import SilentProgress

    scratch = tmp_path_factory.mktemp("controls")
    run = Run(device="cpu", seed=0, progress=SilentProgress(), log=logging.getLogger("test"), scratch=scratch)
    return phantom(run, scratch)[0]


def control(text: str, **config: Any) -> Any:
    name = text.partition(":")[0]
    return make("generators", contestant(text, "phantom", {f"{name}.{key}": value for key, value in config.items()}))


def weights_of(generator: Any, cohort: StoredCohort, run: Run) -> dict[str, Path]:
    places = {}
    for stage in generator.stages():
        places[stage.name] = generator.train(stage, cohort, {}, run.scratch / f"{id(generator)}" / stage.name, run)
    return places


def request(index: int, cohort: StoredCohort, conditional: bool = False, seed: str = "test") -> Request:
    case = cohort.ids("test")[index]
    condition = cohort.label_map(case) if conditional else None
    return Request(index, seeds.derive(seed, index), cohort.protocol.grid, condition, case if conditional else "")


def drawn(generator: Any, cohort: StoredCohort, run: Run, requests: Sequence[Request]) -> list[Any]:
    purpose = "sample-conditional" if requests[0].condition is not None else "sample"
    weights = weights_of(generator, cohort, run)
    made = list(generator.sample({s: weights[s] for s in generator.dependencies(purpose).stages}, requests, run))
    assert all(isinstance(volume, Volume) for volume in made)
    return [volume.hu.astype(np.int32) for volume in made]


def real(cohort: StoredCohort, split: Any) -> list[Any]:
    return [np.asarray(cohort.hu(case), dtype=np.int32) for case in sorted(cohort.ids(split))]


# ------------------------------------------------------------------------------------------------------ what all do
@pytest.mark.parametrize("name", NAMES)
def test_a_control_holds_its_contract(name: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    # What importing costs is tested for all plugins at once in test_architecture.py.
    monkeypatch.setattr(
        "medlord_bench.checks.contract.generators.imports_nothing_heavy", lambda *_: Check("imports", True)
    )
    found = [one for one in check("generators", name, run) if not one.ok]
    assert found == []


@pytest.mark.parametrize("name", HOLDOUT)
def test_a_control_of_unseen_volumes_gives_no_volume_twice(name: str, cohort: StoredCohort, run: Run) -> None:
    data = cohort.protocol
    assert control(name).available(data) == N_VAL
    assert control(name, volumes=2).available(data) == 2
    few = weights_of(control(name, volumes=2), cohort, run)["volumes"]
    assert sorted(path.name for path in few.glob("*[!s].npy")) == [
        f"{case}.npy" for case in sorted(cohort.ids("val"))[:2]
    ]


@pytest.mark.parametrize("name", [*HOLDOUT, "mode-collapse"])
def test_without_a_validation_split_the_run_is_refused_before_any_work(name: str, cohort: StoredCohort) -> None:
    data = cohort.protocol.model_copy(update={"counts": {"train": 4, "val": 0, "test": 3}})
    with pytest.raises(UserError, match="the val split of phantom has no case; expected at least one: raise"):
        control(name).check(data)


@pytest.mark.parametrize("name", NAMES)
def test_weights_of_a_control_cannot_be_given(name: str, cohort: StoredCohort, run: Run) -> None:
    generator = control(name)
    with pytest.raises(UserError, match="has no weights to load"):
        generator.adopt(generator.stages()[0], Path("x.pt"), cohort, {}, run.scratch, run)


@pytest.mark.parametrize("name", ["holdout", "oracle"])
def test_a_stopped_control_goes_on_to_the_same_weights(name: str, cohort: StoredCohort, run: Run) -> None:
    generator = control(name)
    stage, out = generator.stages()[0], run.scratch / "out"
    with pytest.raises(Stopped):
        generator.train(stage, cohort, {}, out, replace(run, stop=lambda: True))
    again = generator.train(stage, cohort, {}, out, run)
    whole = generator.train(stage, cohort, {}, run.scratch / "whole", run)
    assert {p.name: p.read_bytes() for p in again.iterdir()} == {p.name: p.read_bytes() for p in whole.iterdir()}


# ------------------------------------------------------------------------------------------------------- each fault
def test_holdout_gives_the_validation_volumes_as_they_are(cohort: StoredCohort, run: Run) -> None:
    made = drawn(control("holdout"), cohort, run, [request(i, cohort) for i in range(N_VAL)])
    for got, truth in zip(made, real(cohort, "val"), strict=True):
        np.testing.assert_array_equal(got, truth)


def test_holdout_through_another_grid_loses_what_that_grid_cannot_hold(cohort: StoredCohort, run: Run) -> None:
    requests = [request(i, cohort) for i in range(N_VAL)]
    plain = drawn(control("holdout"), cohort, run, requests)
    x, y, z = plain[0].shape
    finer = drawn(control("holdout", through=(2 * x, 2 * y, 2 * z)), cohort, run, requests)
    coarser = drawn(control("holdout", through=(x // 2, y // 2, z // 2)), cohort, run, requests)
    for one, fine, coarse in zip(plain, finer, coarser, strict=True):
        assert fine.shape == coarse.shape == one.shape
        lost = [np.abs(made.astype(int) - one).mean() for made in (fine, coarse)]
        assert 0 < lost[0] < 0.6 * lost[1]


def test_holdout_through_a_window_loses_what_lies_outside(cohort: StoredCohort, run: Run) -> None:
    requests = [request(i, cohort) for i in range(N_VAL)]
    plain = drawn(control("holdout"), cohort, run, requests)
    shape = plain[0].shape
    cut = drawn(control("holdout", through=shape, window=(-500, 100)), cohort, run, requests)
    for one, other in zip(plain, cut, strict=True):
        assert one.min() < -500 and one.max() > 100
        np.testing.assert_array_equal(other, one.clip(-500, 100))


def test_copycat_without_augmentation_gives_the_training_volumes(cohort: StoredCohort, run: Run) -> None:
    plain = control("copycat", rotation=0, shift=0, flips=0, noise_hu=0, gain=0)
    for got, truth in zip(
        drawn(plain, cohort, run, [request(i, cohort) for i in range(3)]), real(cohort, "train"), strict=False
    ):
        np.testing.assert_array_equal(got, truth)


def test_copycat_flips_left_to_right(cohort: StoredCohort, run: Run) -> None:
    flipped = control("copycat", rotation=0, shift=0, flips=1, noise_hu=0, gain=0)
    (got,) = drawn(flipped, cohort, run, [request(0, cohort)])
    np.testing.assert_array_equal(got, real(cohort, "train")[0][::-1])


def test_a_copy_is_nearer_to_its_original_than_to_any_other_patient(cohort: StoredCohort, run: Run) -> None:
    train = real(cohort, "train")
    made = drawn(control("copycat", flips=0), cohort, run, [request(i, cohort) for i in range(3)])
    for index, got in enumerate(made):
        away = [np.abs(got - other).mean() for other in train]
        assert int(np.argmin(away)) == index
        assert away[index] > 10  # and no mere copy


def test_copycat_turns_in_mm_where_voxels_are_not_cubes(run: Run) -> None:
    """A ball stays a ball: turned in voxels, an anisotropic grid would shear it."""
    shape, spacing = (33, 33, 17), (2.0, 2.0, 4.0)
    at = [(np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(shape, spacing, strict=True)]
    distance = np.sqrt(at[0][:, None, None] ** 2 + at[1][:, None] ** 2 + at[2] ** 2)
    ball = np.clip(40 - 100 * (distance - 18), -1000, 40).astype(np.float32)
    turn = control("copycat", rotation=45, shift=0)._moved
    sheared = 0.0
    for seed in range(4):
        moved = turn(ball, spacing, np.random.default_rng(seed))
        assert np.abs(moved - ball).max() < 200  # interpolation at its slope of 100 HU a mm
        wrong = turn(ball, (1.0, 1.0, 1.0), np.random.default_rng(seed))
        sheared = max(sheared, float(np.abs(wrong - ball).max()))
    assert sheared > 500


def test_mode_collapse_is_one_volume_with_little_noise(cohort: StoredCohort, run: Run) -> None:
    made = drawn(control("mode-collapse"), cohort, run, [request(i, cohort) for i in range(3)])
    truth = real(cohort, "val")[0]
    inside = (truth > -900) & (truth < 900)
    for got in made:
        assert abs(float((got - truth)[inside].mean())) < 0.5
        assert float((got - truth)[inside].std()) == pytest.approx(5, rel=0.05)


@pytest.mark.parametrize(
    ("name", "variants"), [("blur", ("0.5", "1", "2", "4")), ("hu-shift", ("25", "50", "100", "200"))]
)
def test_the_fault_of_samples_and_reconstructions_grows_with_its_strength(
    name: str, variants: Sequence[str], cohort: StoredCohort, run: Run
) -> None:
    away: dict[str, list[float]] = {"sample": [], "reconstruct": []}
    truth, test = real(cohort, "val")[0], cohort.ids("test")[0]
    for variant in variants:
        generator = control(f"{name}:{variant}")
        (got,) = drawn(generator, cohort, run, [request(0, cohort)])
        away["sample"].append(float(np.abs(got - truth).mean()))
        weights = weights_of(generator, cohort, run)
        (again,) = generator.reconstruct(weights, [(test, cohort.volume(test))], run)
        away["reconstruct"].append(float(np.abs(again.hu.astype(np.int32) - cohort.hu(test)).mean()))
        assert again.hu.max() <= cohort.protocol.grid.hu_window[1]
    for found in away.values():
        assert found == sorted(found) and found[0] > 0 and found[-1] > 2 * found[0]


def test_hu_shift_adds_what_it_says_and_keeps_to_the_window(cohort: StoredCohort, run: Run) -> None:
    (got,) = drawn(control("hu-shift:100"), cohort, run, [request(0, cohort)])
    np.testing.assert_array_equal(got, np.minimum(real(cohort, "val")[0] + 100, 1000))


def test_low_and_high_implants_differ_only_beyond_the_measuring_window(cohort: StoredCohort, run: Run) -> None:
    wide = replace(request(0, cohort), grid=Grid(shape=(32, 32, 16), hu_window=(-1000, 2000)))
    (low,) = drawn(control("implant:low"), cohort, run, [wide])
    (high,) = drawn(control("implant:high"), cohort, run, [wide])
    ball = high == 2000
    assert ball.sum() == pytest.approx(4 / 3 * np.pi * 4**3, rel=0.15)
    np.testing.assert_array_equal(low[ball], 1000)
    np.testing.assert_array_equal(np.clip(high, -1000, 1000), low)
    np.testing.assert_array_equal(low[~ball], real(cohort, "val")[0][~ball])


def test_implant_refuses_a_window_in_which_its_variants_are_the_same(cohort: StoredCohort) -> None:
    with pytest.raises(UserError, match="ends at 1000 HU.*--set dataset.hu_window=-1000,2000"):
        control("implant").check(cohort.protocol)
    grid = cohort.protocol.grid.model_copy(update={"hu_window": (-1000, 2000)})
    control("implant").check(cohort.protocol.model_copy(update={"grid": grid}))


# ----------------------------------------------------------------------------------------------- regions and masks
@pytest.mark.parametrize("region", ["aorta", "left_ventricle", "lungs"])
def test_drop_region_paints_one_organ_over_and_touches_no_other(region: str, cohort: StoredCohort, run: Run) -> None:
    (got,) = drawn(control(f"drop-region:{region}"), cohort, run, [request(0, cohort)])
    case = sorted(cohort.ids("val"))[0]
    labels, truth = cohort.label_map(case), real(cohort, "val")[0]
    organ = labels.region(region)
    assert organ.any()
    assert -150 < got[organ].mean() < 150 < abs(truth[organ].mean())
    far = ~binary_dilation(organ)
    named = ~np.isin(labels.labels, [0, 1]) & ~organ  # 1: body
    np.testing.assert_array_equal(got[far | named], truth[far | named])
    assert got[organ].std() > 5  # not a flat hole, which a metric would find too easily


def test_drop_region_of_a_case_without_the_region_changes_nothing() -> None:
    hu = np.full((8, 8, 8), 40, np.int16)
    labels = LabelMap(np.zeros((8, 8, 8), np.uint8), np.eye(4), {1: "aorta"})
    assert painted_over(hu, labels, "aorta", 0) is hu


def test_drop_region_says_so_where_there_is_nothing_to_paint_with() -> None:
    labels = LabelMap(np.pad(np.ones((2, 2, 2), np.uint8), 3), np.eye(4), {1: "aorta"})
    assert painted_over(np.full((8, 8, 8), -1000, np.int16), labels, "aorta", 0) is None


@pytest.mark.parametrize(
    "update", [{"masks": "none"}, {"rvr_regions": (), "condition_regions": (), "adherence_regions": ()}]
)
@pytest.mark.parametrize("name", ["drop-region", "oracle"])
def test_what_needs_masks_refuses_a_data_set_without(name: str, update: dict[str, Any], cohort: StoredCohort) -> None:
    with pytest.raises(UserError, match="no mask.*expected"):
        control(name).check(cohort.protocol.model_copy(update=update))


def test_drop_region_refuses_a_region_that_the_data_set_lacks(cohort: StoredCohort) -> None:
    with pytest.raises(UserError, match="no mask of 'spleen'.*set drop-region.region"):
        control("drop-region", region="spleen").check(cohort.protocol)


def test_oracle_paints_each_label_in_the_training_sets_hu(cohort: StoredCohort, run: Run) -> None:
    requests = [request(i, cohort, conditional=True) for i in range(3)]
    made = drawn(control("oracle"), cohort, run, requests)
    train = real(cohort, "train")
    maps = [cohort.label_map(case) for case in sorted(cohort.ids("train"))]
    for region in ("lungs", "left_ventricle", "lv_myocardium", "aorta"):
        medians = [np.median(hu[labels.region(region)]) for hu, labels in zip(train, maps, strict=True)]
        for one, got in zip(requests, made, strict=True):
            assert one.condition is not None
            inside = got[one.condition.region(region)]
            assert abs(np.median(inside) - np.mean(medians)) < 4 * np.std(medians) + 25
    for one, got in zip(requests, made, strict=True):
        assert one.condition is not None
        assert (got[one.condition.labels == 0] < -900).all()


def test_the_label_volumes_are_the_masks_to_the_voxel(cohort: StoredCohort, run: Run) -> None:
    """With no spread inside a label, the labels can be read back from the HU exactly."""
    place = measure(cohort, sorted(cohort.ids("train")), run.scratch / "tissue", run)
    tissue = Tissue.read(place)
    flat = replace(tissue, level=np.arange(256.0) * 10, between=np.zeros(256), noise=np.zeros(256))
    condition = cohort.label_map(cohort.ids("test")[0])
    np.testing.assert_array_equal(flat.paint(condition, 1) / 10, condition.labels)


def test_drop_region_conditional_is_the_oracle_without_the_region(cohort: StoredCohort, run: Run) -> None:
    one = request(0, cohort, conditional=True)
    assert one.condition is not None
    (with_it,) = drawn(control("oracle"), cohort, run, [one])
    (without,) = drawn(control("drop-region:aorta"), cohort, run, [one])
    aorta = one.condition.region("aorta")
    np.testing.assert_array_equal(without[~aorta], with_it[~aorta])
    assert np.median(with_it[aorta]) > 250 > 150 > np.median(without[aorta])


class Bare:
    """A cohort of two cases whose label table has no body."""

    label_names = {1: "aorta"}

    def __init__(self, protocol: DataProtocol) -> None:
        self.protocol = protocol

    def hu(self, case_id: str) -> Any:
        hu = np.full((8, 8, 8), -1000, np.int16)
        hu[2:6, 2:6, 2:6] = 20 if case_id == "a" else 60
        hu[3:5, 3:5, 3:5] = 400
        return hu

    def labels(self, case_id: str) -> Any:
        labels = np.zeros((8, 8, 8), np.uint8)
        labels[3:5, 3:5, 3:5] = 1
        return labels


def test_the_noise_of_a_tissue_is_the_scanners_and_not_its_anatomy(cohort: StoredCohort, run: Run) -> None:
    """Half fat, half muscle, noise of 12 HU: a spread over the label would be the distance between the two."""
    protocol = cohort.protocol.model_copy(update={"grid": Grid(shape=(32, 32, 32))})
    halves = np.repeat([-100, 40], 16)[:, None, None]
    values = np.rint(halves + np.random.default_rng(0).normal(0, 12, (32, 32, 32))).astype(np.int16)

    class Body(Bare):
        label_names = {1: "body"}

        def hu(self, case_id: str) -> Any:
            return values

        def labels(self, case_id: str) -> Any:
            return np.ones((32, 32, 32), np.uint8)

    body: Any = Body(protocol)
    tissue = Tissue.read(measure(body, ["a"], run.scratch / "body", run))
    assert tissue.noise[1] == pytest.approx(12, rel=0.05)
    assert np.isnan(tissue.noise[2])


def test_without_a_body_label_the_oracles_background_is_the_mean_patient(run: Run) -> None:
    """One HU for all that is unlabelled would be neither air nor tissue."""
    grid = Grid(shape=(8, 8, 8))
    protocol = DataProtocol(
        name="bare", grid=grid, fit="crop-pad", split="", split_sha256="", counts={}, masks="dataset"
    )
    bare: Any = Bare(protocol)
    tissue = Tissue.read(measure(bare, ["a", "b"], run.scratch / "bare", run))
    hu = tissue.paint(LabelMap(bare.labels("a"), np.eye(4), bare.label_names), 0)
    assert hu[0, 0, 0] == -1000 and hu[2, 2, 2] == 40 and hu[3, 3, 3] == 400
    moved = np.roll(bare.labels("a"), 3, axis=0)
    assert tissue.paint(LabelMap(moved, np.eye(4), bare.label_names), 0)[3, 3, 3] == 0  # never unlabelled in training
    unknown = LabelMap(moved * np.uint8(7), np.eye(4), {7: "stent"})
    with pytest.raises(UserError, match="no training case has the label stent"):
        tissue.paint(unknown, 0)


def test_the_same_seed_of_the_run_puts_every_variant_in_the_same_place(cohort: StoredCohort, run: Run) -> None:
    (one,) = drawn(control("implant:low"), cohort, run, [request(0, cohort, seed="a")])
    (other,) = drawn(control("implant:low"), cohort, run, [request(0, cohort, seed="b")])
    assert (one != other).any()


def test_real_pixels_are_nearer_to_the_test_set_than_spoilt_ones(cohort: StoredCohort, run: Run) -> None:
    """The order that calibration rests on, in the plainest features there are: mean HU of eight blocks."""

    def features(volumes: Sequence[Any]) -> Any:
        return np.concatenate([v[::2, ::2, ::2].reshape(-1, 4) for v in volumes]).astype(np.float64)

    requests = [request(i, cohort) for i in range(N_VAL)]
    truth = features(real(cohort, "test"))
    far = [
        frechet_distance(features(drawn(control(name), cohort, run, requests)), truth)
        for name in ("holdout", "hu-shift:50", "hu-shift:200")
    ]
    assert far == sorted(far)


def test_every_control_can_be_listed() -> None:
    assert {entry.name for entry in registry.entries("generators")} >= set(NAMES)
