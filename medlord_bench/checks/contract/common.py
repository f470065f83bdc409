"""Helpers for the checks of several kinds: a small phantom cohort, and a check of the imports of a plugin."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medlord_bench.checks.contract import Check
from medlord_bench.contracts import SPLITS, Case, Run, Split, registry
from medlord_bench.contracts.specs import plugin_spec
from medlord_bench.contracts.validation import validate
from medlord_bench.engine import worker
from medlord_bench.engine.plan import Plan
from medlord_bench.engine.planner import Planner
from medlord_bench.engine.prepared import StoredCohort
from medlord_bench.engine.resolve import RunSpec
from medlord_bench.engine.steps.job import Job
from medlord_bench.engine.steps.kinds import KINDS
from medlord_bench.engine.store import Store

PHANTOM = {"shape": [32, 32, 16], "n_train": 4, "n_val": 3, "n_test": 3}
HEAVY = ("torch", "monai", "scipy", "matplotlib", "pandas")


def phantom(run: Run, scratch: Path) -> tuple[StoredCohort, Plan]:
    """A prepared phantom cohort of ten small patients, through the same steps as any run."""
    dataset = plugin_spec("datasets", "phantom", PHANTOM)
    planner = Planner(RunSpec(contestants=(), dataset=dataset, metrics=(), samples=0))
    plan = planner.plan()
    job = Job(plan, plan.step("images"), Store(scratch), run)
    KINDS["images"].run(job, worker.missing(job.store, job.step))
    return job.cohort(), plan


def imports_nothing_heavy(kind: str, name: str) -> Check:
    """Loading the plugin must not import libraries that make `list` and `--help` slow."""
    code = (
        "import sys; from medlord_bench.contracts import registry; "
        f"registry.load({kind!r}, {name!r}); print(*[m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=120)
    found = done.stdout.strip() or "".join(done.stderr.splitlines()[-1:])
    return Check("loads without importing torch or similar", done.returncode == 0 and not found, found or "nothing")


def configures(kind: str, name: str) -> Iterator[Check]:
    """The plugin's default configuration is valid, closed, and round-trips through JSON."""
    plugin = registry.load(kind, name)
    try:
        default = plugin.Config()
    except ValueError as error:
        yield Check("has a default configuration", False, str(error).splitlines()[0])
        return
    yield Check("has a default configuration", True)
    again = plugin.Config.model_validate(default.model_dump(mode="json"))
    yield Check("its configuration round-trips through JSON", again == default)
    closed = plugin.Config.model_config.get("extra") == "forbid"
    yield Check(
        "its configuration refuses unknown fields",
        closed,
        "" if closed else "set extra='forbid' (contracts.FrozenConfig)",
    )


def version_of(plugin: Any) -> Check:
    version = getattr(plugin, "version", None)
    return Check("has an integer version", isinstance(version, int), f"version = {version!r}")


def names(attribute: str, value: Any) -> Check:
    """A list of names of data sets: text in lower case, as they are compared."""
    good = isinstance(value, tuple | list) and all(isinstance(one, str) and one == one.lower() for one in value)
    return Check(f"{attribute} is a list of names in lower case", good, repr(value))


def make(kind: str, name: str, config: dict[str, Any] | None = None) -> Any:
    plugin = registry.load(kind, name)
    return plugin(validate(plugin.Config, config or {}, f"{kind.removesuffix('s')} {name}"))


def split_overlap(cases: dict[Split, list[Case]]) -> str:
    """A patient that is in two splits, or an empty string."""
    seen: dict[str, Split] = {}
    for split in SPLITS:
        for case in cases[split]:
            if seen.setdefault(case.patient, split) != split:
                return f"{case.patient} in {seen[case.patient]} and {split}"
    return ""
