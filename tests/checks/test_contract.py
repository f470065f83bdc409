"""`medlord-bench check`: every built-in holds its contract, and a plugin that breaks a promise fails that very check."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from medlord_bench.checks.contract import Check, check
from medlord_bench.cli import new
from medlord_bench.contracts import DryRun, Failure, LabelMap, MemoryOption, Run, Volume, registry
from medlord_bench.errors import MissingError, UserError
from medlord_bench.metrics.reconstruction.metric import Reconstruction
from medlord_bench.plugins.datasets.phantom.dataset import PhantomDataset
from medlord_bench.plugins.extractors.imagenet.extractor import ImageNetExtractor


def failed(found: Iterator[Check]) -> list[str]:
    checks = list(found)
    assert len(checks) > 1
    return [f"{one.name} ({one.detail})" for one in checks if not one.ok]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *(("generators", "medlord"), ("generators", "noise"), ("datasets", "phantom"), ("extractors", "imagenet")),
        *(
            ("metrics", "fid"),
            ("metrics", "reconstruction"),
            ("reports", "page"),
            ("reports", "tables"),
            ("segmenters", "files"),
        ),
    ],
)
def test_a_built_in_holds_its_contract(kind: str, name: str, run: Run) -> None:
    assert failed(check(kind, name, run)) == []


@pytest.mark.parametrize("name", ["folder", "pccta", "luna16"])
def test_a_data_set_without_its_data_says_what_it_needs(name: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEDLORD_BENCH_DATA_ROOT", raising=False)
    found = list(check("datasets", name, run))
    assert [one.name for one in found if not one.ok] == []
    assert found[-1].name == "names what it needs if the data are missing"
    assert "--data-root" in found[-1].detail


def test_an_unknown_kind_or_name_is_no_finding(run: Run) -> None:
    with pytest.raises(UserError, match="did you mean 'metrics'"):
        list(check("metric", "fid", run))
    with pytest.raises(UserError, match="did you mean 'medlord'"):
        list(check("generators", "medlrod", run))


def test_a_plugin_whose_import_fails_is_missing_something(distribution: Callable[[str], None], run: Run) -> None:
    distribution("import medlord_bench_of_nobody")
    with pytest.raises(MissingError, match="medlord_bench_of_nobody"):
        list(check("generators", "broken", run))


# ------------------------------------------------------------------------------------------------------ broken plugins
@pytest.fixture
def distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """``distribution(source)`` installs a module with that source, announced as the generator `broken`."""

    def install(source: str) -> None:
        place = tmp_path / "site"
        (place / "broken-1.0.dist-info").mkdir(parents=True)
        (place / "broken-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
        announced = "[medlord_bench.generators]\nbroken = broken_generator:Broken\n"
        (place / "broken-1.0.dist-info" / "entry_points.txt").write_text(announced)
        (place / "broken_generator.py").write_text(source)
        monkeypatch.syspath_prepend(place)
        monkeypatch.setenv("PYTHONPATH", str(place))
        registry._points.cache_clear()

    yield install
    monkeypatch.undo()
    registry._points.cache_clear()


def test_a_plugin_that_imports_torch_to_be_listed_fails_that_check(
    distribution: Callable[[str], None], run: Run
) -> None:
    distribution("import torch\nfrom medlord_bench.generators.controls.noise import Noise as Broken\n")
    (only,) = failed(check("generators", "broken", run))
    assert only.startswith("loads without importing torch or similar (torch")


@pytest.fixture
def toy(tmp_path: Path) -> ModuleType:
    """The module of the generator that `medlord-bench new` writes."""
    name = new.module_of("toy")
    path = new.write_plugin("generators", "toy", tmp_path / "toy") / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # pydantic looks names up there
    spec.loader.exec_module(module)
    return module


def _volumes(change: Callable[[int, Volume, Any, Run], Volume | Failure]) -> Callable[[Any], Any]:
    """Breaks a toy's `sample`: each volume goes through `change(place in the batch, volume, request, run)`."""

    def breaks(real: Any) -> Any:
        class Broken(real):  # type: ignore[misc]
            def sample(self, weights: Any, requests: Any, run: Run) -> Iterator[Volume | Failure]:
                made = super().sample(weights, requests, run)
                for place, (request, volume) in enumerate(zip(requests, made, strict=True)):
                    yield change(place, volume, request, run)

        return Broken

    return breaks


CALLS: list[int] = []


def _changing(place: int, volume: Volume, request: Any, run: Run) -> Volume:
    CALLS.append(0)
    return Volume(volume.hu + np.int16(len(CALLS) % 7), volume.affine)


def _trains(train: Any) -> Callable[[Any], Any]:
    return lambda real: type("Broken", (real,), {"train": train(real)})


def _runs_dry(workload: Any, sets: dict[str, Any]) -> Callable[[Any], Any]:
    offers = {
        "dry_runs": lambda self, data: [DryRun("train", "mean", workload)],
        "memory_options": lambda self, during: [MemoryOption(sets, "")],
    }
    return lambda real: type("Broken", (real,), offers)


def _forgetful(real: Any) -> Any:
    """Begins again in every sitting, with another seed each time."""
    seeds = itertools.count(7)

    def train(self: Any, stage: Any, data: Any, inputs: Any, out: Path, run: Run) -> Path:
        return real.train(self, stage, data, inputs, out, dataclasses.replace(run, seed=next(seeds)))  # type: ignore[no-any-return]

    return train


def _elsewhere(real: Any) -> Any:
    def train(self: Any, stage: Any, data: Any, inputs: Any, out: Path, run: Run) -> Path:
        return real.train(self, stage, data, inputs, run.scratch / "mine", run)  # type: ignore[no-any-return]

    return train


def _too_few(real: Any) -> Any:
    class Broken(real):  # type: ignore[misc]
        def reconstruct(self, weights: Any, volumes: Any, run: Run) -> Iterator[Volume | Failure]:
            return iter(list(super().reconstruct(weights, volumes, run))[1:])

    return Broken


BREAKS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "version": (lambda real: type("Broken", (real,), {"version": "1.0"}), "has an integer version"),
    "preset": (
        lambda real: type("Broken", (real,), {"presets": {"tiny": {"steps": 4}, "huge": {"stepps": 4}}}),
        "preset huge is valid",
    ),
    "no sample": (
        lambda real: type("Broken", (), {k: v for k, v in vars(real).items() if k != "adopt"}),
        "fulfils contracts.Generator",
    ),
    "every sample the same": (
        _volumes(lambda place, volume, request, run: Volume(np.full_like(volume.hu, 3), volume.affine)),
        "unconditional: different seeds give different volumes",
    ),
    "noise of the hour": (_volumes(_changing), "unconditional: the same request gives the same bytes"),
    "noise of the batch": (
        _volumes(lambda place, volume, request, run: Volume(np.roll(volume.hu, place), volume.affine)),
        "unconditional: a sample does not depend on its batch",
    ),
    "another grid": (
        _volumes(lambda place, volume, request, run: Volume(volume.hu[:-1], volume.affine)),
        "unconditional: int16 on the protocol's grid",
    ),
    "beyond the window": (
        _volumes(lambda place, volume, request, run: Volume(volume.hu + np.int16(2000), volume.affine)),
        "unconditional: within the protocol's HU window",
    ),
    "nothing but failures": (
        _volumes(lambda place, volume, request, run: Failure("no")),
        "unconditional: one volume per request",
    ),
    "too few reconstructions": (_too_few, "reconstruct: one volume per request"),
    "forgetful training": (_trains(_forgetful), "stage mean: stopped"),
    "idle dry run": (_runs_dry(lambda run, times: None, {}), "dry run train: takes memory"),
    "misspelt memory option": (
        _runs_dry(lambda run, times: None, {"stepps": 2}),
        "memory option {'stepps': 2} is a setting (1 validation error",
    ),
    "weights elsewhere": (_trains(_elsewhere), "stage mean: trains and returns a folder of weights inside its own"),
}


@pytest.mark.parametrize("fault", BREAKS)
def test_a_generator_that_breaks_a_promise_fails_that_check(
    fault: str, toy: ModuleType, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaks, name = BREAKS[fault]
    _instead(monkeypatch, "generators", breaks(toy.ToyGenerator))
    found = failed(check("generators", "noise", run))
    assert any(one.startswith(name) for one in found), found


def test_the_toy_itself_breaks_none(toy: ModuleType, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    _instead(monkeypatch, "generators", toy.ToyGenerator)
    assert failed(check("generators", "noise", run)) == []


def test_a_dry_run_that_fails_is_no_fault_and_its_reason_is_shown(
    toy: ModuleType, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    _instead(monkeypatch, "generators", _runs_dry(lambda run, times: 1 / 0, {"steps": 2})(toy.ToyGenerator))
    found = {one.name: one for one in check("generators", "noise", run)}
    assert all(one.ok for one in found.values())
    assert "ZeroDivisionError" in found["dry run train: says why it is not predictable"].detail
    assert "memory option {'steps': 2} is a setting" in found


def test_an_error_that_a_plugin_did_not_expect_is_a_finding(
    toy: ModuleType, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    _instead(monkeypatch, "generators", type("Broken", (toy.ToyGenerator,), {"stages": lambda self: 1 / 0}))
    assert failed(check("generators", "noise", run)) == [
        "runs without an unexpected error (ZeroDivisionError: division by zero)"
    ]


def _instead(monkeypatch: pytest.MonkeyPatch, kind: str, plugin: Any) -> None:
    """`plugin` in the place of every plugin of a kind."""
    load = registry.load
    monkeypatch.setattr(registry, "load", lambda k, name: plugin if k == kind else load(k, name))


class OpenConfig(PhantomDataset.Config):
    model_config = {"extra": "ignore"}


def _unnamed(self: Any, case: Any) -> tuple[Volume, LabelMap]:
    volume, labels = PhantomDataset.load(self, case)
    assert labels is not None
    return volume, LabelMap(labels.labels, labels.affine, {1: "body"})


def _scaled(self: Any, case: Any) -> tuple[Volume, None]:
    volume, _ = PhantomDataset.load(self, case)
    return Volume((volume.hu > 0).astype(np.int16), volume.affine), None


def _fickle(self: Any, case: Any) -> tuple[Volume, None]:
    volume, _ = PhantomDataset.load(self, case)
    CALLS.append(0)
    return Volume(volume.hu + np.int16(len(CALLS) % 5), volume.affine), None


def _everywhere(self: Any, split: str) -> Any:
    return PhantomDataset.cases(self, "train")


def _by_chance(self: Any, split: str) -> Any:
    cases = list(PhantomDataset.cases(self, split))
    CALLS.append(0)
    return [dataclasses.replace(case, sha256=f"{len(CALLS):064d}") for case in cases]


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"cases": _everywhere}, "no patient is in two splits"),
        ({"cases": _by_chance}, "the same configuration gives the same cases"),
        ({"load": _unnamed}, "train: every label has a name"),
        ({"load": _scaled}, "train: the first case is int16 CT in HU"),
        ({"load": _fickle}, "train: it loads the same twice"),
        ({"Config": OpenConfig}, "its configuration refuses unknown fields"),
        ({"version": None}, "has an integer version"),
    ],
)
def test_a_data_set_that_breaks_a_promise_fails_that_check(
    changes: dict[str, Any], name: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    _instead(monkeypatch, "datasets", type("Broken", (PhantomDataset,), changes))
    assert name in [one.partition(" (")[0] for one in failed(check("datasets", "phantom", run))]


class Boastful(Reconstruction):
    """Gives a number for nothing."""

    def reduce(self, inputs: Any, run: Run) -> Any:
        for score in super().reduce(inputs, run):
            yield score.model_copy(update={"status": "ok", "value": 42.0, "reason": ""})


def test_a_metric_that_makes_up_a_number_fails_that_check(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    _instead(monkeypatch, "metrics", Boastful)
    found = [one.partition(" (")[0] for one in failed(check("metrics", "reconstruction", run))]
    assert found == ["nothing to measure: not_run with a reason", "nothing but failures: not_run with a reason"]


class Wavering(ImageNetExtractor):
    """Its features depend on the batch, and are not all numbers."""

    def features(self, volumes: Any, run: Run) -> Any:
        for place, volume in enumerate(volumes):
            values = np.full((2, 3), float(volume.hu.mean()) + run.batch, np.float32)
            values[0, 0] = np.nan if place == 1 else 0
            yield {"axial": values}


def test_an_extractor_that_breaks_its_promises_fails_those_checks(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    _instead(monkeypatch, "extractors", Wavering)
    found = [one.partition(" (")[0] for one in failed(check("extractors", "imagenet", run))]
    assert found == ["arrays are finite and", "the same at another batch"]
