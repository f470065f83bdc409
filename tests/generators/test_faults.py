"""The faults of the `fault` control: each spoils what it says, by its strength, and nothing else; and `magnify`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from medlord_bench.contracts import Failure, Grid, LabelMap, Request, Run
from medlord_bench.contracts.specs import make
from medlord_bench.engine.prepared import StoredCohort
from medlord_bench.engine.resolve import contestant
from medlord_bench.errors import UserError
from medlord_bench.generators.controls.fault import STRENGTHS, Fault
from medlord_bench.generators.controls.faults import intensity, local, sampling
from medlord_bench.util import seeds

SHAPE = (40, 36, 32)


def chest(seed: int = 0) -> Any:
    """Soft tissue with noise, two lungs with vessels, a bone, and room air around: float32 HU."""
    rng = np.random.default_rng(seed)
    hu = np.full(SHAPE, 40, np.float32)
    hu[:2] = hu[-2:] = -1000
    for x in (slice(5, 18), slice(22, 35)):
        hu[x, 6:30, 4:28] = -850
        hu[x, 12:14, 4:28] = 0  # a vessel
    hu[18:22, 30:34, :] = 600
    return hu + 8 * rng.standard_normal(SHAPE, dtype=np.float32)


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.mark.parametrize("variant", sorted(Fault.variants))
def test_each_fault_changes_the_volume_and_keeps_its_shape(variant: str) -> None:
    hu = chest()
    kind = variant.rpartition("-")[0].replace("-", "_")
    change = next(getattr(module, kind) for module in (intensity, sampling, local) if hasattr(module, kind))
    strength = Fault.variants[variant]["strength"]
    made = change(hu.copy(), strength, rng())
    assert made.shape == hu.shape and made.dtype == np.float32 and np.isfinite(made).all()
    assert np.abs(made - hu).max() > 5
    np.testing.assert_array_equal(made, change(hu.copy(), strength, rng()))


def test_every_kind_has_a_variant() -> None:
    assert {text.rpartition("-")[0] for text in Fault.variants} == set(STRENGTHS)


def test_gain_keeps_water_and_gamma_keeps_the_ends() -> None:
    values = np.array([-1000, -500, 0, 500, 1000], np.float32)
    np.testing.assert_allclose(intensity.gain(values, 1.1, rng()), values * 1.1, rtol=1e-6)
    bent = intensity.gamma(values, 0.9, rng())
    assert bent[0] == -1000 and bent[-1] == 1000 and (bent[1:-1] > values[1:-1]).all()


def test_a_bias_field_is_smooth_and_as_large_as_it_says() -> None:
    field = intensity.bias(np.zeros(SHAPE, np.float32), 50, rng())
    assert np.abs(field).max() == pytest.approx(50, rel=1e-4)
    assert max(np.abs(np.diff(field, axis=axis)).max() for axis in range(3)) < 50 * 0.5


def test_noise_becomes_as_many_times_as_large_as_it_says() -> None:
    hu = 40 + 8 * np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    assert intensity.noise(hu, 2, rng()).std() == pytest.approx(16, rel=0.03)


def test_bones_become_soft_and_all_else_stays() -> None:
    hu = chest()
    made = intensity.soft_bones(hu, 40, rng())
    assert made is not None and made[hu > 200].mean() == pytest.approx(40 + 0.1 * 400, abs=3)
    np.testing.assert_array_equal(made[hu <= 200], hu[hu <= 200])


def test_planes() -> None:
    hu = chest()
    coarse = sampling.coarse(hu, 2, rng())
    np.testing.assert_array_equal(coarse[:, :, 0], coarse[:, :, 1])
    np.testing.assert_allclose(coarse[:, :, 0], hu[:, :, :2].mean(2), rtol=1e-5)
    offset = sampling.slice_offsets(hu, 30, rng()) - hu
    assert np.ptp(offset, axis=(0, 1)).max() < 1e-3 and 15 < offset.std() < 45
    board = sampling.checkerboard(hu, 30, rng()) - hu
    assert np.unique(board.round(3)).tolist() == [-15.0, 15.0]
    shuffled = sampling.shuffled_slabs(hu, 8, rng())
    slices = [{part[:, :, z].tobytes() for z in range(SHAPE[2])} for part in (shuffled, hu)]
    assert slices[0] == slices[1]
    assert not np.array_equal(shuffled, hu)


def test_seams_are_at_the_borders_of_the_parts_alone() -> None:
    hu = chest()
    for change, step in ((local.octants, 20), (local.tiles, 20)):
        jumps = np.abs(np.diff(change(hu, 60, rng()) - hu, axis=0)).mean((1, 2))
        assert jumps[step - 1] > 10 and np.delete(jumps, step - 1).max() < 1e-3


def test_nodules_lie_in_the_lungs() -> None:
    hu = chest()
    made = local.nodules(hu, 6, rng())
    assert made is not None
    changed = np.abs(made - hu) > 200
    assert ndimage.label(changed)[1] in (4, 5, 6)  # two may touch
    assert (hu[changed] < -700).mean() > 0.95
    assert local.nodules(np.full(SHAPE, 40, np.float32), 6, rng()) is None


def test_vessels_are_filled_with_lung() -> None:
    hu = chest()
    made = local.no_vessels(hu, 1, rng())
    assert made is not None
    assert hu[10, 12:14, 10:20].mean() > -100 and made[10, 12:14, 10:20].mean() < -800
    np.testing.assert_array_equal(made[hu > 200], hu[hu > 200])
    assert local.no_vessels(np.full(SHAPE, 40, np.float32), 1, rng()) is None


# -------------------------------------------------------------------------------------------------------- the plugins
@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> StoredCohort:
    from medlord_bench.checks.contract.common import phantom
    from medlord_bench.util.progress import SilentProgress

    scratch = tmp_path_factory.mktemp("faults")
    run = Run(device="cpu", seed=0, progress=SilentProgress(), log=logging.getLogger("test"), scratch=scratch)
    return phantom(run, scratch)[0]


def weights_of(generator: Any, cohort: StoredCohort, run: Run) -> dict[str, Path]:
    return {s.name: generator.train(s, cohort, {}, run.scratch / s.name, run) for s in generator.stages()}


def test_every_sample_has_a_draw_of_its_own(cohort: StoredCohort, run: Run) -> None:
    generator = make("generators", contestant("fault:octants-60", "phantom", {}))
    weights = weights_of(generator, cohort, run)
    requests = [Request(i, seeds.derive("t", i), cohort.protocol.grid) for i in range(2)]
    first, second = (volume.hu for volume in generator.sample(weights, requests, run))
    truth = [np.asarray(cohort.hu(case), np.int32) for case in sorted(cohort.ids("val"))[:2]]
    assert not np.allclose((first - truth[0])[:2, :2, :2], (second - truth[1])[:2, :2, :2])


def test_a_volume_without_lungs_is_a_failed_sample() -> None:
    class Flat:
        def hu(self, index: int) -> Any:
            return np.full((8, 8, 8), 40, np.int16)

    generator = make("generators", contestant("fault:nodules-12", "phantom", {}))
    made = generator.draw(Flat(), Request(0, 1, Grid(shape=(8, 8, 8))))
    assert isinstance(made, Failure) and "nothing to spoil" in made.reason


def test_magnify_makes_the_region_as_much_larger_as_it_says(cohort: StoredCohort, run: Run) -> None:
    generator = make("generators", contestant("magnify:left_ventricle", "phantom", {}))
    generator.check(cohort.protocol)
    case = sorted(cohort.ids("val"))[0]
    labels = cohort.label_map(case)
    organ = labels.region("left_ventricle")
    marked = np.where(organ, 1000, 0).astype(np.int16)

    class Marked:
        def hu(self, index: int) -> Any:
            return marked

        def label_map(self, index: int) -> LabelMap:
            return labels

    made = generator.draw(Marked(), Request(0, 1, cohort.protocol.grid))
    assert (made > 500).sum() / organ.sum() == pytest.approx(1.4**3, rel=0.25)
    np.testing.assert_allclose(np.argwhere(made > 500).mean(0), np.argwhere(organ).mean(0), atol=1)
    np.testing.assert_array_equal(made[0], marked[0])


def test_magnify_refuses_a_data_set_without_the_region(cohort: StoredCohort) -> None:
    generator = make("generators", contestant("magnify:heart", "phantom", {}))
    with pytest.raises(UserError, match="no mask of 'heart'.*set magnify.region"):
        generator.check(cohort.protocol.model_copy(update={"masks": "none"}))
