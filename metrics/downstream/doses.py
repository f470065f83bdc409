"""The dose-response: DSC by the fraction of real patients and the samples for each, and what the samples add."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from medlord_bench.contracts.results import CaseRow, Score, notes
from medlord_bench.overlap.cases import Table, by_patient, pool

from .arms import Dose
from .differences import differences
from .gains import ONE_CHECKPOINT, gain
from .quantities import dose_gain_name, dose_name

SEEN = "the generator was trained on all real training cases, also where the segmenter has a fraction of them"


def region_of(dose: Dose) -> str:
    """What is in place of a region; it begins with the number on the axis of the figure."""
    return f"{100 * dose.real:g} % of real patients"


def dose_scores(
    tables: Mapping[str, Table],
    places: Sequence[int],
    doses: Sequence[Dose],
    seeds: Mapping[str, int],
    common: Mapping[str, Any],
) -> Iterator[Score | CaseRow]:
    """DSC of each dose, and its difference to the same real cases without samples. places: of the measured regions."""
    for dose in doses:
        yield from _dose(dose, tables[dose.arm], places, common)
    by_arm = {dose.arm: dose for dose in doses if dose.synthetic}
    bases = {arm: Dose(dose.real, 0).arm for arm, dose in by_arm.items()}
    about = {name: value for name, value in common.items() if name != "notes"}
    for found in differences(tables, places, bases):
        if found.region is None:
            dose = by_arm[found.arm]
            metric, region = dose_gain_name(dose.synthetic), region_of(dose)
            yield gain(metric, region, found.sentence(""), found, seeds[found.arm], True, about)


def _dose(dose: Dose, table: Table, places: Sequence[int], common: Mapping[str, Any]) -> Iterator[Score | CaseRow]:
    metric, region = dose_name(dose.synthetic), region_of(dose)
    told = (*notes("definition", f"trained on {dose.meaning}; mean of the medians of {len(places)} regions"),)
    if dose.synthetic:
        told += (*notes("caution", SEEN, ONE_CHECKPOINT),)
    shared = {**common, "metric": metric, "region": region, "notes": (*told, *common["notes"])}
    found = pool(table, places, "dsc")
    if found is None:
        yield Score(status="not_run", reason="no test mask contains any region", **shared)
        return
    how = "" if found.low is None else f"95 % percentile bootstrap of {found.patients} patients"
    yield Score(value=found.value, low=found.low, high=found.high, interval=how, n=found.patients, **shared)
    regions = [by_patient(table, place, "dsc") for place in places]
    for patient in sorted({who for own in regions for who in own}):
        value = float(np.mean([own[patient] for own in regions if patient in own]))
        yield CaseRow(
            metric=metric, generator=common["generator"], case=patient, region=region, value=value, patient=patient
        )
