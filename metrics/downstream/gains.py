"""A tested difference as a score, with what the data support."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medlord_bench.contracts.results import Score, notes

from .arms import MEANING
from .differences import Difference

ONE_CHECKPOINT = "one trained checkpoint of the generator: n = 1 for the generator, intervals are over test patients"

LONGER = "twice the iterations of real: the gain may come from them alone; downstream:controls adds real-longer, which has as many"
ONE_TRAINING = "one training of each arm: the tests are over patients; several seeds or real-other-seed show its chance"


def gain(
    metric: str, region: str, sentence: str, found: Difference, seeds: int, generated: bool, common: Mapping[str, Any]
) -> Score:
    """sentence: what the data support. seeds: of the arm. generated: whether the arm has generated cases."""
    nested = "" if seeds == 1 else f"a patient's DSC is the median of {seeds} seeds"
    against = f"against {MEANING[found.base]}" if found.base in MEANING else ""
    told = (
        *notes("context", sentence),
        *notes("definition", found.equivalence, against, nested),
        *notes("caution", LONGER if found.longer else ""),
        *notes("caution", "" if seeds > 1 or found.chance is not None else ONE_TRAINING),
        *(notes("caution", ONE_CHECKPOINT) if generated else ()),
    )
    return Score(
        metric=metric,
        region=region,
        value=found.value,
        low=found.low,
        high=found.high,
        interval="" if found.low is None else "95 %, Hodges-Lehmann, order statistics of the Walsh averages",
        p=found.p,
        p_of=f"Wilcoxon signed-rank, Holm over {found.tests} tests",
        n=found.patients,
        notes=told,
        **common,
    )
