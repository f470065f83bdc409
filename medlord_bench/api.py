"""The bench from Python: `import medlord_bench as mb`, then `mb.load`, `mb.run` and `mb.evaluate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medlord_bench.cli.evaluate import request_of
from medlord_bench.cli.options import DEFAULT_STORE, SPEC_OPTIONS, run_file_of
from medlord_bench.cli.run import work
from medlord_bench.contracts.validation import validate
from medlord_bench.engine.executors.processes import foreign_process
from medlord_bench.engine.run_folder import locate, newest_finished
from medlord_bench.engine.store import Store
from medlord_bench.engine.worker import Settings
from medlord_bench.errors import UserError
from medlord_bench.results.frames import Results
from medlord_bench.results.merge import read_runs
from medlord_bench.results.run_results import read_run


def load(*runs: str | Path, store: str | Path = DEFAULT_STORE) -> Results:
    """The results of finished runs as data frames: of one run, or of several of one protocol, compared with each other.

    runs: run folders, or names of runs in `store`; none: the newest finished run. Raises `UserError` for a run that does not
    exist or whose protocol differs.
    """
    place = Store(Path(store).resolve())
    for name in runs:
        if not isinstance(name, str | Path):
            raise UserError(
                f"load: got {name!r}, expected names or folders as separate arguments: load('RUN1', 'RUN2')"
            )
    return Results(read_runs([locate(place, str(name)) for name in runs] or [newest_finished(place)]))


def run(
    generators: str | Sequence[str],
    dataset: str,
    *,
    data_root: str | Path | None = None,
    metrics: Sequence[str] | None = None,
    samples: int | None = None,
    conditional: bool | None = None,
    seed: int | None = None,
    set: Mapping[str, Any] | None = None,  # as the option is called
    store: str | Path = DEFAULT_STORE,
    **settings: Any,
) -> Results:
    """Train or load generators, sample and measure, as ``medlord-bench run``; returns the results.

    generators: e.g. "medlord@tiny". set: what ``--set`` takes, e.g. {"dataset.n_test": 8}. settings: fields of
    `engine.worker.Settings`, e.g. device="cpu". A call that was interrupted goes on where it stopped when it is repeated.
    Raises `UserError`, whose `code` is the exit code of the command.
    """
    names = (generators,) if isinstance(generators, str) else tuple(generators)
    asked: dict[str, Any] = {
        "generators": names,
        "dataset": dataset,
        "data_root": None if data_root is None else Path(data_root),
        "metrics": None if metrics is None else tuple(metrics),
        "samples": samples,
        "conditional": conditional,
        "seed": seed,
    }
    return _carry_out(asked, _mapping(set), store, settings)


def evaluate(
    real: str | Path | None,
    synthetic: str | Path | Mapping[str, str | Path],
    *,
    reference: str | Path | None = None,
    metrics: Sequence[str] = (),
    samples: int | None = None,
    conditional: bool | None = None,
    seed: int | None = None,
    set: Mapping[str, Any] | None = None,
    store: str | Path = DEFAULT_STORE,
    **settings: Any,
) -> Results:
    """Measure generated volumes in a folder against real ones, as ``medlord-bench evaluate``; returns the results.

    synthetic: a folder, or name -> folder for several. reference: a reference file, if `real` is None. The other arguments
    are those of `run`.
    """
    folders = synthetic if isinstance(synthetic, Mapping) else {"": synthetic}
    texts = [f"{name}={place}" if name else str(place) for name, place in folders.items()]
    given = {"metrics": metrics, "samples": samples, "conditional": conditional, "seed": seed}
    ours, theirs = (None if place is None else Path(place) for place in (real, reference))
    asked = request_of(ours, theirs, texts, **given, sets=[_text(*one) for one in _mapping(set).items()])
    return _carry_out(asked, {}, store, settings)


def _text(path: str, value: Any) -> str:
    """A setting as ``--set`` reads it: JSON is YAML."""
    import json

    return f"{path}={json.dumps(value, default=str)}"


def _mapping(given: object) -> Mapping[str, Any]:
    """The settings of a call. Raises `UserError` unless they are names with values."""
    if given is None or isinstance(given, Mapping):
        return given or {}
    raise UserError(f"set: got {given!r}, expected a dictionary, e.g. set={{'dataset.n_test': 8}}")


def _carry_out(
    asked: dict[str, Any], sets: Mapping[str, Any], store: str | Path, settings: Mapping[str, Any]
) -> Results:
    given = {name: asked.get(name) for name in SPEC_OPTIONS}
    given["sets"] = (*(asked.get("sets") or ()), *(_text(*one) for one in sets.items()))
    unknown = [name for name in settings if name not in Settings.model_fields]
    if unknown:
        raise UserError(
            f"run: unknown argument {unknown[0]!r}; expected a field of Settings: {', '.join(Settings.model_fields)}"
        )
    place = validate(Settings, {"store": Path(store).resolve(), **settings}, "run")
    place.export()
    with foreign_process():
        return Results(read_run(work(run_file_of(given), place, again="call it again to go on")))
