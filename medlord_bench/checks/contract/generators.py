"""The contract of a generator, on a phantom of 32x32x16 voxels."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from medlord_bench.checks.contract import Check
from medlord_bench.checks.contract.common import configures, imports_nothing_heavy, names, phantom, version_of
from medlord_bench.contracts import (
    Capability,
    DataProtocol,
    Generator,
    HasDryRuns,
    Purpose,
    Request,
    Run,
    Stage,
    Volume,
    registry,
)
from medlord_bench.contracts.validation import merged, nested, validate
from medlord_bench.engine import keys
from medlord_bench.engine.prepared import StoredCohort
from medlord_bench.errors import Stopped
from medlord_bench.util import seeds
from medlord_bench.util.hashing import file_sha256

PRESETS = ("smoke", "tiny")  # the first of these that the generator has is used
PURPOSES: Mapping[Capability, Purpose] = {
    "unconditional": "sample",
    "conditional": "sample-conditional",
    "reconstructs": "reconstruct",
}
TOLERANCE_HU, TOLERANCE_SHARE = 1, 0.001  # across batches only rounding may differ


def check(name: str, run: Run) -> Iterator[Check]:
    """Configuration, training and resuming, then every capability the generator lists."""
    yield imports_nothing_heavy("generators", name)
    plugin = registry.load("generators", name)
    yield version_of(plugin)
    yield from configures("generators", name)
    yield from _presets(plugin)
    preset = next((preset for preset in PRESETS if preset in plugin.presets), None)
    config = validate(plugin.Config, plugin.presets[preset] if preset else {}, f"generator {name}")
    generator = plugin(config)
    yield Check("fulfils contracts.Generator", isinstance(generator, Generator), f"preset {preset}")
    yield _names_fields(generator, config)
    if hasattr(generator, "pretrained_on"):
        yield names("pretrained_on", generator.pretrained_on)
    cohort, _ = phantom(run, run.scratch / "store")
    if isinstance(generator, HasDryRuns):
        yield from _runs_dry(generator, config, cohort.protocol, run)
    weights: dict[str, Path] = {}
    for stage in generator.stages():
        yield from _trains(generator, stage, cohort, weights, run)
    yield from _samples(generator, cohort, weights, run)
    if "reconstructs" in generator.capabilities:
        yield from _reconstructs(generator, cohort, weights, run)


def _names_fields(generator: Any, config: BaseModel) -> Check:
    """Stages and purposes name existing fields; fields that none names are in every key."""
    dependencies = [
        generator.dependencies(purpose)
        for capability, purpose in PURPOSES.items()
        if capability in generator.capabilities
    ]
    named = [field for one in (*generator.stages(), *dependencies) for field in one.fields]
    try:
        left = ", ".join(keys.unnamed(keys.settings(config), named))
    except ValueError as error:
        return Check("stages and purposes name fields of the configuration", False, str(error))
    detail = f"in every key, since none names it: {left}" if left else ""
    return Check("stages and purposes name fields of the configuration", True, detail)


def _presets(plugin: Any) -> Iterator[Check]:
    for preset, overrides in plugin.presets.items():
        for variant, more in {"": {}, **plugin.variants}.items():
            label = f"preset {preset}" + (f", variant {variant}" if variant else "")
            try:
                plugin.Config.model_validate(merged(overrides, more))
                yield Check(f"{label} is valid", True)
            except ValueError as error:
                yield Check(f"{label} is valid", False, " ".join(str(error).split())[:200])


def _runs_dry(generator: HasDryRuns, config: BaseModel, data: DataProtocol, run: Run) -> Iterator[Check]:
    """Each dry run returns a number or the reason why not, and each memory option is a setting."""
    from medlord_bench.memory.dry_run import NotPredictable, run_dry

    found = generator.dry_runs(data)
    for dry_run in found:
        try:
            peak = run_dry(partial(dry_run.workload, dataclasses.replace(run, device="cpu"), 2))
            yield Check(f"dry run {dry_run.name}: takes memory", peak.allocated > 0, f"{peak.allocated} bytes")
        except NotPredictable as error:
            yield Check(f"dry run {dry_run.name}: says why it is not predictable", True, str(error))
    for during in dict.fromkeys(dry_run.during for dry_run in found):
        for option in generator.memory_options(during):
            over = nested({f"x.{path}": value for path, value in option.sets.items()}, "x")
            try:
                type(config).model_validate(merged(config.model_dump(), over))
                wrong = ""
            except ValueError as error:
                wrong = " ".join(str(error).split())[:200]
            yield Check(f"memory option {dict(option.sets)} is a setting", not wrong, wrong)


def _digest(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): file_sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def _trains(generator: Any, stage: Stage, cohort: StoredCohort, weights: dict[str, Path], run: Run) -> Iterator[Check]:
    """A stage trains, can be stopped and resumed to the same weights, and does nothing when it is complete."""
    inputs = {need: weights[need] for need in stage.needs}
    out = run.scratch / "trainings"
    whole = generator.train(stage, cohort, inputs, out / stage.name, run)
    inside = whole.is_dir() and whole.is_relative_to(out / stage.name) and any(whole.iterdir())
    yield Check(f"stage {stage.name}: trains and returns a folder of weights inside its own", inside, str(whole.name))
    weights[stage.name] = whole
    before = _digest(whole)
    again = generator.train(stage, cohort, inputs, out / stage.name, run)
    yield Check(f"stage {stage.name}: called again, keeps its weights", _digest(again) == before)
    if stage.steps is None or stage.steps < 2:
        return
    stopped, other = 0, out / f"{stage.name}-stopped"
    resumed: Path | None = None
    for _ in range(stage.steps + 2):
        try:
            resumed = generator.train(stage, cohort, inputs, other, dataclasses.replace(run, stop=lambda: True))
            break
        except Stopped:
            stopped += 1
    same = resumed is not None and stopped > 0 and _digest(resumed) == before
    yield Check(f"stage {stage.name}: stopped {stopped} times and resumed, ends in the same weights", same)


def _requests(generator: Any, cohort: StoredCohort, conditional: bool) -> list[Request]:
    test, grid = cohort.ids("test"), cohort.protocol.grid
    available = None if conditional else generator.available(cohort.protocol)
    return [
        Request(
            index,
            seeds.derive("check", index),
            grid,
            cohort.label_map(test[index]) if conditional else None,
            test[index] if conditional else "",
        )
        for index in range(3 if available is None else min(3, available))
    ]


def _samples(generator: Any, cohort: StoredCohort, weights: Mapping[str, Path], run: Run) -> Iterator[Check]:
    for capability, purpose in PURPOSES.items():
        if capability not in generator.capabilities or purpose == "reconstruct":
            continue
        used = {stage: weights[stage] for stage in generator.dependencies(purpose).stages}
        requests = _requests(generator, cohort, capability == "conditional")
        volumes = list(generator.sample(used, requests, run))
        yield from _looks_right(capability, volumes, cohort, len(requests))
        again = list(generator.sample(used, requests, run))
        yield Check(f"{capability}: the same request gives the same bytes", _worst(volumes, again) == (0, 0.0))
        alone = list(generator.sample(used, requests[2:], dataclasses.replace(run, batch=2)))
        together = list(generator.sample(used, requests, dataclasses.replace(run, batch=3)))[2:]
        most, share = _worst(alone, together)
        detail = f"largest difference {most} HU, {share:.4%} of voxels beyond {TOLERANCE_HU} HU"
        yield Check(f"{capability}: a sample does not depend on its batch", share <= TOLERANCE_SHARE, detail)
        differ = _worst(volumes[:1], volumes[1:2])[0] > 0
        yield Check(f"{capability}: different seeds give different volumes", differ)


def _reconstructs(generator: Any, cohort: StoredCohort, weights: Mapping[str, Path], run: Run) -> Iterator[Check]:
    used = {stage: weights[stage] for stage in generator.dependencies("reconstruct").stages}
    real = [(case_id, cohort.volume(case_id)) for case_id in cohort.ids("test")]
    volumes = list(generator.reconstruct(used, iter(real), run))
    yield from _looks_right("reconstruct", volumes, cohort, len(real))


def _looks_right(title: str, volumes: Sequence[Any], cohort: StoredCohort, wanted: int) -> Iterator[Check]:
    grid = cohort.protocol.grid
    good = [volume for volume in volumes if isinstance(volume, Volume)]
    detail = f"{len(volumes)} of {wanted}, {len(volumes) - len(good)} failed"
    yield Check(f"{title}: one volume per request", len(volumes) == wanted and bool(good), detail)
    shapes = {(volume.shape, str(volume.hu.dtype)) for volume in good}
    yield Check(f"{title}: int16 on the protocol's grid", shapes == {(grid.shape, "int16")}, str(shapes))
    low, high = grid.hu_window
    inside = all(low <= int(volume.hu.min()) and int(volume.hu.max()) <= high for volume in good)
    yield Check(f"{title}: within the protocol's HU window", inside)


def _worst(first: Sequence[Any], second: Sequence[Any]) -> tuple[int, float]:
    """Largest difference in HU and the share of voxels beyond the tolerance, over pairs of volumes."""
    most, share = 0, 0.0
    for a, b in zip(first, second, strict=True):
        if isinstance(a, Volume) != isinstance(b, Volume):
            return 65535, 1.0
        if isinstance(a, Volume):
            apart = np.abs(a.hu.astype(np.int32) - b.hu.astype(np.int32))
            most, share = max(most, int(apart.max())), max(share, float((apart > TOLERANCE_HU).mean()))
    return most, share
