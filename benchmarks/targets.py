"""A number beside its target, and the end of a benchmark: all checks, and an exit code. Shared by the benchmarks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any


def check(name: str, value: float, target: str, ok: bool) -> dict[str, Any]:
    """One row of the checks; `value` with three decimals, or with three digits if those are all 0."""
    return {"name": name, "value": round(value, 3) or float(f"{value:.3g}"), "target": target, "ok": bool(ok)}


def concluded(checks: Sequence[dict[str, Any]], as_json: bool) -> int:
    """Print the checks, as JSON or as lines. Returns the exit code: 1 if a target is missed."""
    if as_json:
        print(json.dumps({"checks": list(checks)}))
    else:
        for row in checks:
            print(f"{row['name']:38} {row['value']:>10}  {row['target']:12}  {'ok' if row['ok'] else 'MISSED'}")
    return 0 if all(row["ok"] for row in checks) else 1
