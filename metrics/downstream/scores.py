"""From the states of all predictions to scores: overlap of each arm, and differences to the real arm."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medlord_bench.contracts import Item, MetricInputs
from medlord_bench.contracts.arms import Prediction
from medlord_bench.contracts.results import CaseRow, Note, Score, notes
from medlord_bench.overlap.cases import NAMES, Name, Table, finite, masks_of, median_fields, pool, summarise, tabulate

from .arms import MEANING, Dose
from .config import ARMS
from .differences import differences
from .doses import dose_scores
from .gains import ONE_CHECKPOINT, gain
from .quantities import GENERATED, ON_SAMPLES, compared_with, external_gain_name, external_name, gain_of, name_of


@dataclass(frozen=True)
class Arms:
    """The tables of all arms; a table has a row for each test case and seed.

    on_samples: of the predictions of conditional samples. external: as `tables`, of the other data set's cases.
    """

    tables: Mapping[str, Table]
    on_samples: Table | None
    external: Mapping[str, Table]
    seeds: Mapping[str, int]
    regions: Sequence[str]

    @classmethod
    def of(cls, items: Sequence[Item], regions: Sequence[str]) -> Arms:
        groups: dict[str, list[Item]] = defaultdict(list)
        outside: dict[str, list[Item]] = defaultdict(list)
        samples: list[Item] = []
        seeds: dict[str, set[int]] = defaultdict(set)
        for item in items:
            one = Prediction.parse(item.id)
            if one.of == "samples":
                samples.append(item)
            elif one.of == "external":
                outside[one.arm].append(item)
            else:
                groups[one.arm].append(item)
                seeds[one.arm].add(one.seed)
        masks = masks_of(items)
        return cls(
            {arm: tabulate(own, regions, masks) for arm, own in groups.items()},
            tabulate(samples, regions, masks) if samples else None,
            {arm: tabulate(own, regions, masks) for arm, own in outside.items()},
            {arm: len(own) for arm, own in seeds.items()},
            regions,
        )

    def held(self) -> list[int]:
        """Places of the regions that some test mask contains."""
        return held(self.tables["real"])


def held(table: Table) -> list[int]:
    """Places of the regions that some mask of a table contains."""
    known = {"measured", "missed", "failed"}
    return [place for place in range(table.kinds.shape[1]) if set(table.kinds[:, place]) & known]


def reduced(
    inputs: MetricInputs, items: Sequence[Item], regions: Sequence[str], doses: Sequence[Dose]
) -> Iterator[Score | CaseRow]:
    """All scores and case rows. items: predictions of all arms."""
    arms = Arms.of(items, regions)
    common = {
        "protocol": inputs.protocol_id,
        "generator": inputs.generator,
        "dataset": inputs.dataset,
        "reference": "test",
    }
    about = notes("context", labels_from(inputs.protocol.masks, inputs.protocol.synthetic))
    for arm in (name for name in ARMS if name in arms.tables):
        table = arms.tables[arm]
        own = (*about, *_of_training(arm, arms.seeds[arm], inputs.trained))
        for measure in NAMES:
            yield from _scores(name_of(measure, arm), measure, table, arms.held(), regions, {**common, "notes": own})
            yield from _rows(name_of(measure, arm), measure, table, arms.held(), regions, inputs.generator)
    if arms.on_samples is not None:
        own = (*about, *notes("caution", ONE_CHECKPOINT))
        yield from _scores(ON_SAMPLES.name, "dsc", arms.on_samples, arms.held(), regions, {**common, "notes": own})
    for found in differences(arms.tables, arms.held(), _base(arms.tables)):
        region = "" if found.region is None else arms.regions[found.region]
        told, generated = found.sentence(region), found.arm in GENERATED
        yield gain(gain_of(found.arm), region, told, found, arms.seeds[found.arm], generated, common)
    yield from _external(arms, common)
    yield from dose_scores(arms.tables, arms.held(), doses, arms.seeds, {**common, "notes": about})


def _external(arms: Arms, common: Mapping[str, Any]) -> Iterator[Score | CaseRow]:
    """DSC on the other data set's cases, and differences to the real arm there."""
    if not arms.external:
        reason = "no external set; downstream.external names one"
        yield Score(metric=external_name("real"), status="not_run", reason=reason, **common)
        return
    places = held(arms.external["real"])
    lacking = [region for place, region in enumerate(arms.regions) if place not in places]
    about = notes("context", "labels as the other data set gives them")
    if lacking:
        about += notes("counts", f"its masks lack {', '.join(lacking)}")
    for arm in (name for name in ARMS if name in arms.external):
        table = arms.external[arm]
        own = {**common, "notes": (*about, *notes("definition", f"trained on {MEANING[arm]}"))}
        yield from _scores(external_name(arm), "dsc", table, places, arms.regions, own)
        yield from _rows(external_name(arm), "dsc", table, places, arms.regions, common["generator"])
    for found in differences(arms.external, places, _base(arms.external)):
        region = "" if found.region is None else arms.regions[found.region]
        told, generated = found.sentence(region), found.arm in GENERATED
        yield gain(external_gain_name(found.arm), region, told, found, arms.seeds[found.arm], generated, common)


def labels_from(masks: str, synthetic: bool) -> str:
    """Who made the labels that train and test the segmenter."""
    if masks == "dataset":
        made = "the program that generates the phantom: true by construction" if synthetic else "the data set, as given"
        return f"labels by {made}"
    return f"labels by {masks}, for training and for the test: DSC is agreement with {masks} (circular), its errors are learned"


def _base(tables: Mapping[str, Table]) -> dict[str, str]:
    """Arm -> the arm that it is compared with: one of as many iterations, if there is one."""
    return {
        arm: compared_with(arm) if compared_with(arm) in tables else "real"
        for arm in ARMS
        if arm in tables and arm != "real"
    }


def _of_training(arm: str, seeds: int, trained: Mapping[str, Mapping[str, Any]]) -> Iterator[Note]:
    """What a reader must know of the trainings of an arm."""
    facts = [one for item, one in trained.items() if item.rpartition(".seed")[0] == arm]
    yield from notes("definition", f"trained on {MEANING[arm]}")
    for one in facts[:1]:
        yield from notes(
            "counts", f"{one.get('cases')} cases, {one.get('iterations')} iterations, {seeds} seed" + "s" * (seeds > 1)
        )
    lost = {item for one in facts for item in one.get("failed_samples", {})}
    if lost:
        yield from notes("counts", f"{len(lost)} generated training cases failed and are missing")
    absent = sorted({region for one in facts for region in one.get("absent_regions", ())})
    if absent:
        yield from notes("caution", f"no training case contains {', '.join(absent)}: it cannot be learned")
    if arm in GENERATED:
        yield from notes("caution", ONE_CHECKPOINT)


def _scores(
    metric: str, measure: Name, table: Table, places: Sequence[int], regions: Sequence[str], common: Mapping[str, Any]
) -> Iterator[Score]:
    """Of all regions, then of each."""
    cases = len({Prediction.parse(item.id).case for item in table.items})
    failed = len({Prediction.parse(item.id).case for item in table.items if item.path is None})
    shared = {**common, "metric": metric, "n": cases, "failed": failed}
    whole = pool(table, places, measure)
    if whole is None:
        reason = "no test mask contains any region" if not places else "the voxel size is unknown"
        yield Score(status="not_run", reason=reason, **shared)
        return
    if np.isfinite(whole.value):
        how = "" if whole.low is None else f"95 % percentile bootstrap of {whole.patients} patients"
        ends = {"low": finite(whole.low), "high": finite(whole.high), "interval": how}
        told = notes("definition", f"mean of the medians of {len(places)} regions")
        yield Score(value=whole.value, **ends, **{**shared, "notes": (*told, *common["notes"])})
    else:
        yield Score(status="not_run", reason="infinite: a region is missed in half of the cases or more", **shared)
    for place in places:
        yield _region(metric, measure, table, place, regions[place], shared)


def _region(metric: str, measure: Name, table: Table, place: int, region: str, shared: Mapping[str, Any]) -> Score:
    found, counts = summarise(table, place, measure), table.counts(place)
    if found is None:
        return Score(status="not_run", reason="the voxel size is unknown", **{**shared, "region": region})
    own = [*shared["notes"], *_lost(counts)]
    lost = counts["missed"] + counts["failed"]
    warning = f"{lost} of {found.cases} predictions lack this region" if lost and measure == "dsc" else ""
    fields = {**shared, "region": region, "notes": tuple(own), "warning": warning}
    if not np.isfinite(found.median.value):
        return Score(status="not_run", reason=f"infinite: {lost} of {found.cases} predictions lack a surface", **fields)
    return Score(**median_fields(found), **fields)


def _lost(counts: Counter[str]) -> Iterator[Note]:
    words = {"missed": "missed", "failed": "without a prediction", "false positive": "false positives"}
    for kind, word in words.items():
        if counts[kind]:
            yield from notes("counts", f"{counts[kind]} {word}, counted as DSC 0")


def _rows(
    metric: str, measure: Name, table: Table, places: Sequence[int], regions: Sequence[str], generator: str
) -> Iterator[CaseRow]:
    """Every case of the first seed that has a score, and of other seeds under the case's own name with the seed."""
    for row, item in enumerate(table.items):
        one = Prediction.parse(item.id)
        for place in places:
            value = float(table.scores[measure][row, place])
            if not np.isnan(value):
                yield CaseRow(
                    metric=metric,
                    generator=generator,
                    case=one.case if one.seed in (0, 1000) else f"{one.case}.seed{one.seed}",
                    region=regions[place],
                    value=value,
                    patient=item.patient or one.case,
                )
