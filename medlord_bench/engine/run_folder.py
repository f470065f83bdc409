"""The run folder, for the user to open. It contains the run file, the plan, provenance, events, results and the report,
and links named by step into the store's objects."""

from __future__ import annotations

import json
import os
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from medlord_bench.contracts import validation
from medlord_bench.contracts.inventory import Inventory
from medlord_bench.engine.plan import Plan, Step, read_plan
from medlord_bench.engine.run_file import RunFile
from medlord_bench.engine.steps.kinds import KINDS
from medlord_bench.engine.store import Store
from medlord_bench.engine.worker import Settings, missing, output
from medlord_bench.errors import UserError
from medlord_bench.util import provenance
from medlord_bench.util.files import write_json, write_text


def open_run(store: Store, plan: Plan, file: RunFile, settings: Settings) -> Path:
    """The folder of this run: the one of an earlier call with the same spec, or a new one."""
    folder = find(store, plan.run_key)
    if folder is None:
        names = "+".join(contestant.name for contestant in plan.contestants)
        name = re.sub(r"[^A-Za-z0-9_.+@-]", "-", f"{datetime.now():%Y-%m-%d}_{names}_{plan.dataset.plugin}")
        folder = store.root / "runs" / f"{name[:110]}_{plan.run_key[:8]}"
    for part in ("results", "report", "logs"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    write_text(folder / "run.yaml", _run_file(file, plan))
    write_json(folder / "settings.json", settings.model_dump(mode="json"))
    write_text(folder / "plan.json", plan.model_dump_json(indent=1))
    _link(store, plan, folder)
    return folder


def _run_file(file: RunFile, plan: Plan) -> str:
    """The run as a file that repeats it from any folder: it contains the data's path from any source."""
    fields = json.loads(file.model_dump_json(exclude_none=True))
    if plan.dataset.config.get("data_root"):
        fields["set"] |= {"dataset.data_root": plan.dataset.config["data_root"]}
    return yaml.safe_dump(fields, sort_keys=False)


def record_provenance(folder: Path, device: str, inventory: Inventory | None = None) -> None:
    """Write `provenance.json`; earlier sessions of the same run are kept below it. inventory: of the data folder."""
    path = folder / "provenance.json"
    known: list[Any] = json.loads(path.read_text()).get("sittings", []) if path.exists() else []
    now = provenance.collect(device)
    data = {} if inventory is None else {"data": [*inventory.lines(), *inventory.warnings]}
    write_json(
        path, {**now, **data, "sittings": [*known, {"started": now.get("started"), "host": now.get("hostname")}]}
    )


def find(store: Store, run_key: str) -> Path | None:
    """The newest folder of a run with this key."""
    for folder in reversed(store.runs()):
        if folder.name.endswith(run_key[:8]) and read_plan(folder).run_key == run_key:
            return folder
    return None


def locate(store: Store, name: str | None) -> Path:
    """A run by path, by folder name, or (None) the newest one. Raises `UserError` if there is none."""
    if name is not None:
        for folder in (Path(name), store.root / "runs" / name):
            if (folder / "plan.json").exists():
                return folder
        raise UserError(f"{name}: not a run folder, nor the name of a run in {store.root}; see medlord-bench status")
    runs = store.runs()
    if not runs:
        raise UserError(f"{store.root}: no run yet; start one: medlord-bench run --generator medlord --dataset phantom")
    return runs[-1]


def newest_finished(store: Store) -> Path:
    """The newest run that has results."""
    done = [folder for folder in store.runs() if (folder / "results" / "scores.json").exists()]
    if not done:
        raise UserError(f"{store.root}: no finished run; see medlord-bench status")
    return done[-1]


def settings_of(folder: Path) -> Settings:
    """The settings of the run's last session; the store is the one around the folder, which may have been moved.

    Raises `UserError` if the folder is not a run's.
    """
    path = folder / "settings.json"
    try:
        settings = validation.read_json(Settings, path)
    except FileNotFoundError:
        raise UserError(f"{folder}: not a run folder (no settings.json); see medlord-bench status") from None
    around = folder.resolve().parent.parent
    return settings.model_copy(update={"store": around}) if (around / "objects").is_dir() else settings


def progress_of(store: Store, step: Step) -> tuple[int, int]:
    """(items published, items wanted) of a step."""
    return len(step.items) - len(missing(store, step)), len(step.items)


def _link(store: Store, plan: Plan, folder: Path) -> None:
    """Links such as ``samples/medlord@tiny`` into the store; a listing if links cannot be created."""
    listing = []
    for step in plan.steps:
        if not KINDS[step.kind].linked:
            continue
        name = step.id.removeprefix(f"{step.kind}:").removeprefix("train:").replace(":", "_").replace("/", "_")
        target = output(store, step).items
        listing.append(f"{step.kind}/{name}\t{target}")
        link = folder / step.kind / name
        link.parent.mkdir(exist_ok=True)
        wanted = os.path.relpath(target, link.parent)
        try:
            if link.is_symlink() and str(link.readlink()) != wanted:
                link.unlink()
            if not link.is_symlink():
                link.symlink_to(wanted)
        except OSError:  # a file system without links: the listing replaces them
            continue
    write_text(folder / "objects.tsv", "\n".join(listing) + "\n")
