"""The contract of an extractor."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator

import numpy as np

from medlord_bench.checks.contract import Check
from medlord_bench.checks.contract.common import configures, imports_nothing_heavy, make, phantom, version_of
from medlord_bench.contracts import Extractor, Run, registry


def check(name: str, run: Run) -> Iterator[Check]:
    """Features are finite, deterministic and the same at any batch; the preprocessing is recorded."""
    yield imports_nothing_heavy("extractors", name)
    yield version_of(registry.load("extractors", name))
    yield from configures("extractors", name)
    extractor = make("extractors", name)
    yield Check("fulfils contracts.Extractor", isinstance(extractor, Extractor))
    text = json.dumps(dict(extractor.preprocessing), sort_keys=True)
    yield Check("its preprocessing is JSON and names its weights", "sha256" in text, text[:100])
    cohort, _ = phantom(run, run.scratch / "store")
    volumes = [cohort.volume(case_id) for case_id in cohort.ids("test")[:2]]
    one = list(extractor.features(iter(volumes), run))
    many = list(make("extractors", name).features(iter(volumes), dataclasses.replace(run, batch=2)))
    yield Check("one state per volume", len(one) == len(volumes))
    finite = all(np.isfinite(array).all() and array.ndim == 2 for state in one for array in state.values())
    yield Check("arrays are finite and (slices, channels)", finite, str({k: v.shape for k, v in one[0].items()}))
    apart = max(float(np.abs(a[k] - b[k]).max()) for a, b in zip(one, many, strict=True) for k in a)
    yield Check("the same at another batch", apart <= 1e-4, f"largest difference {apart:.2g}")
