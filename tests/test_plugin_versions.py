"""A plugin's version goes into the key of all it makes, so a change of its output must raise it.

Nobody can see from a diff alone whether output changes; this test makes somebody look. When it fails: if the plugin's
output changes, raise its `version`; in any case write the new digest down with

    UPDATE_PLUGIN_VERSIONS=1 pytest tests/test_plugin_versions.py
"""

import json
import os
from pathlib import Path

import pytest

from medlord_bench import registry
from medlord_bench.hashing import digest, file_sha256

ROOT = Path(__file__).resolve().parents[1]
RECORD = Path(__file__).with_name("plugin_versions.json")
KINDS = ("generators", "datasets", "metrics", "segmenters", "extractors")


def sources(target: str) -> list[Path]:
    """The files behind an entry point: its whole folder on a shelf, its module and same-named helpers elsewhere."""
    module = ROOT / Path(*target.partition(":")[0].removeprefix("medlord_bench.").split("."))
    if module.parts[len(ROOT.parts)] in ("generators", "metrics", "reports"):
        return sorted(module.parent.rglob("*.py"))
    return sorted((ROOT / "medlord_bench" / module.relative_to(ROOT)).parent.glob(f"{module.name}*.py"))


def current() -> dict[str, dict[str, object]]:
    found = {}
    for kind in KINDS:
        for entry in registry.entries(kind):
            if entry.distribution != "medlord-bench":
                continue
            files = sources(entry.target)
            assert files, entry
            text = digest({path.name: file_sha256(path) for path in files})
            found[f"{kind}/{entry.name}"] = {"version": registry.load(kind, entry.name).version, "sources": text[:16]}
    return found


def test_no_plugin_changed_without_a_look_at_its_version() -> None:
    if os.environ.get("UPDATE_PLUGIN_VERSIONS"):
        RECORD.write_text(json.dumps(current(), indent=1, sort_keys=True) + "\n")
    recorded, now = json.loads(RECORD.read_text()), current()
    changed = sorted(name for name in recorded.keys() | now.keys() if recorded.get(name) != now.get(name))
    if changed:
        pytest.fail(f"{', '.join(changed)}: the source changed; see the top of {Path(__file__).name}")
    assert now
