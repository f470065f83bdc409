"""Adherence through extract, states and reduce: the empty-mask policy, patients, ceilings and what is not run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from medlord_bench.contracts import DataProtocol, Grid, Item, LabelMap, MetricInputs, Need, Run
from medlord_bench.contracts.metrics import protocol_of
from medlord_bench.contracts.results import CaseRow, ResultsFile, Score, read_results, write_results
from medlord_bench.errors import UserError
from medlord_bench.metrics.adherence.metric import Adherence, AdherenceConfig
from medlord_bench.volumes.arrays import save_state
from medlord_bench.volumes.io import write_labels

NAMES = {1: "aorta", 2: "left_atrium"}
SIDE = 12
DATA = DataProtocol(
    name="toy",
    grid=Grid(shape=(SIDE, SIDE, SIDE)),
    fit="crop-pad",
    split="by hand",
    split_sha256="0" * 64,
    counts={"train": 10, "val": 0, "test": 10},
    masks="dataset",
    segmenter="files",
    adherence_regions=("aorta", "left_atrium"),
)


def metric(data: DataProtocol = DATA, names: Mapping[int, str] = NAMES, **settings: Any) -> Adherence:
    settings.setdefault("segmenter_settings", {"label_names": dict(names)})
    return Adherence(AdherenceConfig(**settings).for_data(data))


def labels(aorta: int, atrium: int, shift: int = 0) -> np.ndarray:
    """Two boxes of 4 x 4 voxels, `aorta` and `atrium` voxels high (0: absent), the first shifted along X."""
    made = np.zeros((SIDE, SIDE, SIDE), dtype=np.uint8)
    made[1 + shift : 5 + shift, 1:5, 1 : 1 + aorta] = 1
    made[1:5, 7:11, 1 : 1 + atrium] = 2
    return made


class Bench:
    """Label maps to scores, through files as in a run."""

    def __init__(self, run: Run, folder: Path, metric: Adherence, data: DataProtocol = DATA) -> None:
        self.run, self.folder, self.metric, self.data = run, folder, metric, data

    def items(
        self, source: str, cases: Sequence[tuple[np.ndarray | None, np.ndarray | None]], **more: Any
    ) -> tuple[Need, list[Item]]:
        """(label map or None where it failed, mask or None) per case, extracted and stored."""
        need = next(need for need in self.metric.needs() if need.source == source)
        folder = self.folder / source.replace(":", "-")
        folder.mkdir(parents=True, exist_ok=True)
        kept = []
        for i, (made, mask) in enumerate(cases):
            reference = None if mask is None else folder / f"{i}.labels.npy"
            if reference is not None:
                np.save(reference, mask)
            facts = {"spacing": (1.0, 1.0, 2.0), "patient": f"p{i}", "reference_names": NAMES} | more
            facts = {name: value[i] if isinstance(value, list) else value for name, value in facts.items()}
            path = None
            if made is not None:
                path = folder / f"{i}.nii.gz"
                write_labels(path, LabelMap(made, np.eye(4), NAMES))
                item = Item(
                    f"c{i}", source, path, reference=reference, names=self.metric.segmentation.segmenter.names, **facts
                )
                (state,) = self.metric.extract([item], self.run)
                path = folder / f"{i}.safetensors"
                save_state(path, state)
            failed = None if made is not None else "constant (0 HU)"
            kept.append(Item(f"c{i}", source, path, reference=reference, failed=failed, **facts))
        return need, kept

    def reduce(self, *sources: tuple[Need, list[Item]]) -> tuple[dict[tuple[str, str], Score], list[CaseRow]]:
        inputs = MetricInputs("toy", "toy", self.data, dict(sources))
        found = list(self.metric.reduce(inputs, self.run))
        scores = [score for score in found if isinstance(score, Score)]
        rows = [row for row in found if isinstance(row, CaseRow)]
        assert len({(score.metric, score.region) for score in scores}) == len(scores)
        return {(score.metric, score.region): score for score in scores}, rows

    def conditional(self, cases: Sequence[tuple[np.ndarray | None, np.ndarray | None]], **more: Any) -> tuple:
        return self.reduce(self.items("conditional:test", cases, **more))


@pytest.fixture
def bench(run: Run, tmp_path: Path) -> Bench:
    return Bench(run, tmp_path, metric())


def values(rows: Sequence[CaseRow], name: str, region: str) -> list[float]:
    return [row.value for row in rows if (row.metric, row.region) == (name, region)]


@pytest.mark.parametrize(
    ("made", "mask", "dsc", "nsd", "hd95", "note"),
    [
        (0, 0, None, None, None, "1 cases lack it in mask and sample and are left out of n"),
        (0, 4, 0.0, 0.0, math.inf, "1 missed"),
        (4, 0, 0.0, 0.0, math.inf, "1 false positives"),
        (4, 4, 1.0, 1.0, 0.0, ""),
    ],
)
def test_the_empty_mask_policy(
    bench: Bench, made: int, mask: int, dsc: float | None, nsd: float, hd95: float, note: str
) -> None:
    scores, rows = bench.conditional([(labels(made, 3), labels(mask, 3))] + [(labels(5, 3), labels(5, 3))] * 2)
    for name, value in (("dsc", dsc), ("nsd", nsd), ("hd95", hd95)):
        assert values(rows, name, "aorta") == ([] if value is None else [value]) + (
            [0, 0] if name == "hd95" else [1, 1]
        )
    score = scores["dsc", "aorta"]
    assert score.n == (2 if dsc is None else 3) and score.failed == 0 and score.value == 1
    assert note in score.note_text
    assert bool(score.warning) == (note == "1 missed")
    assert "1 of 3 samples lack this region" in score.warning or not score.warning
    assert scores["hd95", "aorta"].value == 0, "an infinite distance ranks last, it does not poison the median"


def test_failed_samples_score_worst_in_every_region_their_mask_has(bench: Bench) -> None:
    cases = [(None, labels(4, 0)), (None, labels(4, 3)), (labels(4, 3), labels(4, 3))]
    scores, rows = bench.conditional(cases)
    assert (scores["dsc", "aorta"].n, scores["dsc", "aorta"].failed, scores["dsc", "aorta"].value) == (3, 2, 0)
    assert (scores["dsc", "left_atrium"].n, scores["dsc", "left_atrium"].failed) == (2, 1)
    assert "1 cases lack it" in scores["dsc", "left_atrium"].note_text
    assert values(rows, "dsc", "aorta") == [0, 0, 1] and values(rows, "hd95", "left_atrium") == [math.inf, 0]
    assert scores["dsc", ""].failed == 2
    assert scores["hd95", "aorta"].status == "not_run" and "2 of 3 cases" in scores["hd95", "aorta"].reason
    assert scores["hd95", ""].status == "not_run"


def test_a_failed_case_without_a_mask_at_hand_still_counts(bench: Bench) -> None:
    cases = [(None, None), (labels(4, 3), labels(4, 3))]
    scores, _ = bench.conditional(cases)
    assert (scores["dsc", "aorta"].n, scores["dsc", "aorta"].value) == (2, 0.5)


def test_a_failed_case_is_judged_by_the_mask_of_its_real_image(bench: Bench) -> None:
    """The mask lacks the atrium, so the failure counts for the aorta alone, though the sample has no mask at hand."""
    conditional = bench.items("conditional:test", [(None, None), (labels(4, 3), labels(4, 3))])
    real = bench.items("real:test", [(labels(4, 0), labels(4, 0)), (labels(4, 3), labels(4, 3))])
    scores, _ = bench.reduce(conditional, real)
    assert (scores["dsc", "aorta"].n, scores["dsc", "aorta"].failed) == (2, 1)
    assert (scores["dsc", "left_atrium"].n, scores["dsc", "left_atrium"].failed) == (1, 0)
    assert "1 cases lack it" in scores["dsc", "left_atrium"].note_text


def test_a_source_without_a_mask_does_not_stand_for_one_that_has_it(bench: Bench) -> None:
    """The real image has no mask; that of the reconstruction lacks the atrium."""
    conditional = bench.items("conditional:test", [(None, None), (labels(4, 3), labels(4, 3))])
    real = bench.items("real:test", [(labels(4, 3), None), (labels(4, 3), labels(4, 3))])
    reconstructions = bench.items("reconstructions", [(labels(4, 3), labels(4, 0)), (labels(4, 3), labels(4, 3))])
    scores, _ = bench.reduce(conditional, real, reconstructions)
    assert (scores["dsc", "aorta"].n, scores["dsc", "aorta"].failed) == (2, 1)
    assert (scores["dsc", "left_atrium"].n, scores["dsc", "left_atrium"].failed) == (1, 0)


def test_nothing_but_failures_is_not_run(bench: Bench) -> None:
    scores, rows = bench.conditional([(None, labels(4, 3))] * 3)
    assert {score.status for score in scores.values()} == {"not_run"} and not rows
    assert scores["dsc", ""].reason == "all 3 conditional samples failed, the first: constant (0 HU)"


def test_medians_are_over_patients_with_an_interval_from_six_on(bench: Bench) -> None:
    heights = [10, 9, 8, 8, 7, 6, 5, 4]
    cases = [(labels(height, 3), labels(10, 3)) for height in heights]
    expected = [2 * height / (10 + height) for height in heights]
    scores, rows = bench.conditional(cases)
    score = scores["dsc", "aorta"]
    assert score.value == pytest.approx(np.median(expected))
    assert score.quartiles == pytest.approx(tuple(np.percentile(expected, [25, 75])))
    assert (score.low, score.high) == pytest.approx((expected[-1], expected[0])), "n = 8: the extremes"
    assert "order statistics" in score.interval and score.n == 8
    assert [row.patient for row in rows if (row.metric, row.region) == ("dsc", "aorta")] == [f"p{i}" for i in range(8)]
    twins, _ = bench.conditional(cases, patient=["a", "a", "b", "b", "c", "c", "d", "d"])
    pairs = np.reshape(expected, (4, 2)).mean(1)
    assert twins["dsc", "aorta"].value == pytest.approx(np.median(pairs)) and twins["dsc", "aorta"].n == 8
    assert twins["dsc", "aorta"].low is None
    assert (
        "8 cases of 4 patients" in twins["dsc", "aorta"].note_text
        and "4 patients, at least 6" in twins["dsc", "aorta"].note_text
    )


def test_all_regions_is_the_mean_of_the_regions_medians_so_that_a_lost_region_shows(bench: Bench) -> None:
    cases = [(labels(4 + i % 3, 0), labels(6, 3)) for i in range(8)]
    scores, _ = bench.conditional(cases)
    pooled = scores["dsc", ""]
    assert scores["dsc", "left_atrium"].value == 0
    assert pooled.value == pytest.approx(scores["dsc", "aorta"].value / 2)
    assert pooled.low is not None and pooled.high is not None and pooled.low <= pooled.value <= pooled.high
    assert "bootstrap" in pooled.interval and "8 regions of masks are missed" in pooled.warning
    assert scores["hd95", "left_atrium"].status == scores["hd95", ""].status == "not_run"


def test_one_lost_region_of_three_shows_in_all_regions(run: Run, tmp_path: Path) -> None:
    names = {**NAMES, 3: "right_atrium"}
    bench = Bench(run, tmp_path, metric(names=names, regions=tuple(names.values())))

    def with_third(made: np.ndarray) -> np.ndarray:
        made[7:11, 1:5, 1:4] = 3
        return made

    cases = [(with_third(labels(6, 0)), with_third(labels(6, 3)))] * 6
    scores, _ = bench.conditional(cases, reference_names=names)
    assert scores["dsc", ""].value == pytest.approx(2 / 3), "the median over regions would be 1"


def test_the_ceiling_is_what_the_segmenter_reaches_on_real_images(bench: Bench) -> None:
    mask = labels(10, 3)
    conditional = bench.items("conditional:test", [(labels(4, 3), mask)] * 3)
    real = bench.items("real:test", [(labels(8, 3), mask), (labels(9, 3), mask), (None, mask)])
    reconstructions = bench.items("reconstructions", [(labels(6, 3), mask)] * 3)
    scores, _ = bench.reduce(conditional, real, reconstructions)
    score = scores["dsc", "aorta"]
    assert score.value == pytest.approx(8 / 14) and score.ceiling == pytest.approx(16 / 18)
    assert "real test images: 0.889; " in score.ceiling_note and "reconstructions: 0.75" in score.ceiling_note
    ceiling = scores["dsc_ceiling_real", "aorta"]
    assert (ceiling.value, ceiling.n, ceiling.failed) == (pytest.approx(16 / 18), 3, 1)
    assert scores["dsc_ceiling_reconstruction", "aorta"].value == pytest.approx(12 / 16)
    assert scores["nsd", "aorta"].ceiling is not None and scores["hd95", "aorta"].ceiling is not None
    assert scores["dsc", ""].ceiling == pytest.approx((16 / 18 + 1) / 2)
    without, _ = bench.reduce(conditional, real)
    assert ("dsc_ceiling_reconstruction", "aorta") not in without
    alone, _ = bench.reduce(conditional)
    assert alone["dsc", "aorta"].ceiling is None and alone["dsc", "aorta"].ceiling_note == ""


def test_all_empty_masks_are_not_run_and_say_so(bench: Bench) -> None:
    scores, rows = bench.conditional([(labels(4, 3), labels(0, 0)), (labels(0, 0), labels(0, 0))])
    assert {score.status for score in scores.values()} == {"not_run"} and not rows
    assert "all are empty" in scores["dsc", ""].reason


def test_a_region_that_no_mask_has_is_named_with_its_false_positives(bench: Bench) -> None:
    scores, _ = bench.conditional([(labels(4, 3), labels(4, 0)), (labels(4, 0), labels(4, 0))])
    assert scores["dsc", "left_atrium"].reason == "no mask contains it; 1 samples have it"
    assert scores["dsc", ""].value == 1


def test_regions_that_masks_or_segmenter_do_not_know_are_one_score_each(run: Run, tmp_path: Path) -> None:
    regions = ("aorta", "left_atrium", "right_atrium", "right_ventricle", "lungs")
    known = {1: "aorta", 2: "left_atrium", 3: "lung_left"}
    bench = Bench(run, tmp_path, metric(names=known, regions=regions))
    names = {1: "aorta", 2: "right_ventricle", 4: "right_atrium"}
    scores, _ = bench.conditional([(labels(4, 0), labels(4, 3))] * 3, reference_names=names)
    lost = {region: score.reason for (name, region), score in scores.items() if score.status == "not_run"}
    assert lost == {
        "left_atrium, lungs": "the masks of the data set do not define it",
        "right_atrium, right_ventricle": "the segmenter files does not define it",
    }
    assert scores["dsc", ""].value == 1 and "without left_atrium" in scores["dsc", ""].note_text


def test_without_a_spacing_only_dsc_is_measured(bench: Bench) -> None:
    scores, rows = bench.conditional([(labels(4, 3), labels(4, 3)), (labels(4, 0), labels(4, 3))] * 2, spacing=None)
    assert scores["dsc", "aorta"].value == 1
    for name in ("nsd", "hd95"):
        assert scores[name, "aorta"].reason == scores[name, ""].reason == "the voxel size is unknown"
        assert not values(rows, name, "left_atrium")
    some, _ = bench.conditional([(labels(4, 3), labels(4, 3))] * 3, spacing=[(1, 1, 1), (1, 1, 1), None])
    assert some["nsd", "aorta"].n == 2 and "1 cases without a known voxel size" in some["nsd", "aorta"].note_text


def test_a_tolerance_below_the_voxel_size_is_said(bench: Bench) -> None:
    cases = [(labels(4, 3), labels(4, 3))]
    assert bench.conditional(cases)[0]["nsd", "aorta"].note_text.startswith("within 3 mm; ")
    coarse, _ = bench.conditional(cases, spacing=(1.0, 1.0, 5.0))
    assert "within 3 mm, which is less than a voxel" in coarse["nsd", "aorta"].note_text


def test_masks_by_the_same_segmenter_are_called_circular(run: Run, tmp_path: Path) -> None:
    circular = DATA.model_copy(update={"masks": "files"})
    scores, _ = Bench(run, tmp_path, metric(), circular).conditional([(labels(4, 3), labels(4, 3))])
    assert "circular" in scores["dsc", "aorta"].note_text and "circular" in scores["dsc", ""].note_text
    independent, _ = Bench(run, tmp_path, metric()).conditional([(labels(4, 3), labels(4, 3))])
    assert "circular" not in independent["dsc", "aorta"].note_text


def test_a_generator_without_conditional_samples_is_not_run(bench: Bench) -> None:
    scores, _ = bench.reduce(bench.items("real:test", [(labels(4, 3), labels(4, 3))]))
    assert [score.reason for score in scores.values()] == ["the generator has no conditional samples"] * 3


def test_another_grid_is_named(bench: Bench) -> None:
    with pytest.raises(UserError, match=r"0\.nii\.gz: grid \(12, 12, 12\), but its mask"):
        bench.conditional([(labels(4, 3), np.zeros((12, 12, 8), np.uint8))])


def test_infinite_rows_survive_the_results_files(bench: Bench, tmp_path: Path) -> None:
    scores, rows = bench.conditional([(labels(0, 3), labels(4, 3)), (labels(4, 3), labels(4, 3))])
    write_results(tmp_path / "results", ResultsFile(scores=tuple(scores.values()), protocols={}), rows)
    again, found = read_results(tmp_path / "results")
    assert found == rows and again.scores == tuple(scores.values())
    assert any(row.value == math.inf for row in found)


def test_the_protocol_holds_what_changes_a_value_and_no_path(tmp_path: Path) -> None:
    id, text = protocol_of("adherence", metric(), DATA)
    assert id.startswith("adherence-files-") and text["regions"] == ["aorta", "left_atrium"]
    settings = {"label_names": dict(NAMES), "folder": str(tmp_path)}
    assert protocol_of("adherence", metric(segmenter_settings=settings), DATA)[0] == id
    others = [
        metric(tolerance_mm=2.0),
        metric(regions=("aorta",)),
        metric(names={**NAMES, 3: "lungs"}),
    ]
    assert len({id, *(protocol_of("adherence", other, DATA)[0] for other in others)}) == 4


def test_what_is_left_open_comes_from_the_data_set() -> None:
    assert AdherenceConfig().for_data(DATA).regions == ("aorta", "left_atrium")
    assert AdherenceConfig().for_data(DATA).segmenter == "files"
    chosen = AdherenceConfig(segmenter="lungs", regions=("lungs",)).for_data(DATA)
    assert (chosen.segmenter, chosen.regions) == ("lungs", ("lungs",))
    nothing = metric(DATA.model_copy(update={"adherence_regions": ()}))
    assert protocol_of("adherence", nothing, DATA)[1]["regions"] == list(NAMES.values()), (
        "no regions: all that the segmenter knows"
    )
    with pytest.raises(UserError, match="segmenter is not given"):
        Adherence(AdherenceConfig()).needs()


@pytest.mark.parametrize("settings", [{"tolerance_mm": 0}, {"tolerance": 2}])
def test_bad_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        AdherenceConfig.model_validate(settings)
