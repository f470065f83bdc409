"""Coverage of the intervals of FID and KID under heavy tails, before and after, and size and power of paired tests.

    python benchmarks/intervals.py [--json] [--quick] [--only coverage|paired]

Volumes of 3 slices that share half of their variance, 16 dimensions with a falling spectrum. Features are normal, t with
3 degrees of freedom, log-normal, or normal with 5 % of the volumes 5 times as far ("odd"). The samples are shifted by
half a standard deviation, or 1.5 times as wide. "Before" is the interval of the distance's root; "wide" is the interval
that a caution gives. An interval may cover the distance's expectation at this n, or its median over repeated sets; both
come from other draws, few of which decide the expectation under t3 and log-normal features. Paired tests: two generators equally far from the real set (size), and one of them farther
(power); "before" compares the distances, "after" their roots. --quick takes few draws. The exit code is 1 if normal
features miss a target.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t
from targets import check, concluded

from medlord_bench import stats

Volumes = NDArray[np.float64]
Draw = Callable[[np.random.Generator], tuple[Volumes, Volumes]]
KINDS = ("normal", "t3", "log-normal", "odd")
SLICES, D, SHARED = 3, 16, 0.5
DEVIATIONS = np.arange(1, D + 1) ** -0.5
PAIRED = {8: 0.5, 16: 0.35, 24: 0.3, 60: 0.2}  # n: how much farther the second generator is when there is a difference


def numbers(rng: np.random.Generator, kind: str, shape: tuple[int, ...]) -> Volumes:
    """Numbers of variance 1 and mean 0."""
    if kind == "t3":
        return rng.standard_t(3, shape) / math.sqrt(3)
    if kind == "log-normal":
        return (rng.lognormal(0, 1, shape) - math.exp(0.5)) / math.sqrt((math.e - 1) * math.e)
    return rng.standard_normal(shape)


def volumes(rng: np.random.Generator, kind: str, n: int) -> Volumes:
    """(n, slices, d)."""
    own = numbers(rng, kind, (n, 1, D)) * math.sqrt(SHARED)
    found = own + numbers(rng, kind, (n, SLICES, D)) * math.sqrt(1 - SHARED)
    far = np.where(rng.random((n, 1, 1)) < 0.05, 5.0, 1.0) if kind == "odd" else 1.0
    return found * far * DEVIATIONS


def pairs(kind: str, n: int, difference: str) -> Draw:
    def draw(rng: np.random.Generator) -> tuple[Volumes, Volumes]:
        x, y = volumes(rng, kind, n), volumes(rng, kind, n)
        return (x + 0.5 * DEVIATIONS if difference == "shifted" else 1.5 * x), y

    return draw


def root_interval(found: stats.FrechetJackknife) -> tuple[float, float]:
    """The interval before: jackknife and t quantile of the distance's root, squared again."""
    parts = [np.sqrt(part) for part in (found.without_x, found.without_y)]
    variances = [(len(p) - 1) / len(p) * ((p - p.mean()) ** 2).sum() for p in parts]
    freedom = sum(variances) ** 2 / sum(v**2 / (len(p) - 1) for v, p in zip(variances, parts, strict=True))
    reach = t.ppf(0.975, freedom) * math.sqrt(sum(variances))
    return max(math.sqrt(found.value) - reach, 0.0) ** 2, (math.sqrt(found.value) + reach) ** 2


# ---------------------------------------------------------------------------------------------------------- coverage
def coverage(cell: tuple[str, int, str, int, int]) -> dict[str, Any]:
    """One row of the table: rates at which the intervals cover."""
    kind, n, difference, repeats, apart = cell
    draw, rng = pairs(kind, n, difference), np.random.default_rng([n, KINDS.index(kind), len(difference)])
    fids, kids = [], []
    for _ in range(apart):
        x, y = draw(rng)
        fids.append(stats.frechet_distance(x.reshape(-1, D), y.reshape(-1, D)))
        kids.append(stats.kernel_distance(list(x), list(y), 0, 0).value)
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    alarms = []
    for _ in range(repeats):
        x, y = draw(rng)
        one = stats.frechet_jackknife(list(x), list(y))
        parts = (one.without_x, one.without_y)
        now, tails = stats.jackknife(one.value, *parts, squared=True), stats.tails(one.value, *parts, squared=True)
        found["before"].append(root_interval(one))
        found["after"].append((now.low, now.high))
        found["wide"].append((tails.wide.low, tails.wide.high))
        kid = stats.kernel_distance(list(x), list(y), 0, 0)
        wide = stats.tails(kid.value, kid.without_x, kid.without_y)
        found["kid"].append((kid.low, kid.high))
        found["kid wide"].append((wide.wide.low, wide.wide.high))
        alarms.append((tails.heavy, wide.heavy))
    mean, middle = float(np.mean(fids)), float(np.median(fids))
    kid_mean, kid_middle = float(np.mean(kids)), float(np.median(kids))
    row = {f"fid {name}": _covers(found[name], mean) for name in ("before", "after", "wide")}
    row |= {f"fid {name}, median": _covers(found[name], middle) for name in ("before", "after")}
    row |= {"kid": _covers(found["kid"], kid_mean), "kid wide": _covers(found["kid wide"], kid_mean)}
    row |= {"kid, median": _covers(found["kid"], kid_middle)}
    widths = {name: np.median(np.ptp(found[name], axis=1)) for name in ("before", "after", "wide")}
    row |= {f"width {name}": float(widths[name] / widths["before"]) for name in ("after", "wide")}
    row |= {"fid alarms": float(np.mean(alarms, axis=0)[0]), "kid alarms": float(np.mean(alarms, axis=0)[1])}
    if kind == "t3":  # the kernel's third power of t3 numbers has no expectation
        row["kid"] = row["kid wide"] = math.nan
    return {"kind": kind, "n": n, "difference": difference, "repeats": repeats, **row}


def _covers(intervals: list[tuple[float, float]], value: float) -> float:
    return float(np.mean([low <= value <= high for low, high in intervals]))


# ------------------------------------------------------------------------------------------------------------- paired
def paired(cell: tuple[str, int, float, float, int]) -> dict[str, Any]:
    """Rates of p <= 5 % for two generators, `shift` and `shift + farther` from the real set in different directions."""
    kind, n, shift, farther, repeats = cell
    rng = np.random.default_rng([n, KINDS.index(kind), round(10 * shift), round(100 * farther)])
    signs = np.where(np.arange(D) % 2, 1.0, -1.0)
    ps: dict[str, list[float]] = defaultdict(list)
    for _ in range(repeats):
        real = list(volumes(rng, kind, n))
        first = list(volumes(rng, kind, n) + shift * DEVIATIONS)
        second = list(volumes(rng, kind, n) + (shift + farther) * DEVIATIONS * signs)
        a, b = (stats.frechet_jackknife(samples, real) for samples in (first, second))
        ps["fid before"].append(stats.paired_jackknife(a, b).p)
        ps["fid after"].append(stats.paired_jackknife(a, b, squared=True).p)
        kids = (stats.kernel_distance(samples, real, 0, 0) for samples in (first, second))
        ps["kid"].append(stats.paired_jackknife(*kids).p)
    rates = {name: float(np.mean(np.array(values) <= 0.05)) for name, values in ps.items()}
    return {"kind": kind, "n": n, "shift": shift, "farther": farther, "repeats": repeats, **rates}


def checks(rows: list[dict[str, Any]], tests: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Targets for normal features, and for the size of every test, by Wilson's interval at 99.9 %."""
    for row in rows:
        if row["kind"] == "normal":
            name, value = f"coverage_{row['difference']}_n_{row['n']}", row["fid after"]
            low, high = _judged(value, row["repeats"])
            yield check(name, value, "0.93 to 0.98", high >= 0.93 and low <= 0.98)
            value = row["fid alarms"]
            low, _ = _judged(value, row["repeats"])
            yield check(f"false_alarms_{row['difference']}_n_{row['n']}", value, "<= 0.05", low <= 0.05)
    for row in tests:
        if not row["farther"]:
            value = row["fid after"]
            low, _ = _judged(value, row["repeats"])
            yield check(f"size_{row['kind']}_shift_{row['shift']:g}_n_{row['n']}", value, "<= 0.05", low <= 0.05)


def _judged(rate: float, repeats: int) -> tuple[float, float]:
    return stats.wilson(round(rate * repeats), repeats, 0.999)


def table(rows: list[Mapping[str, Any]]) -> str:
    """Markdown."""
    if not rows:
        return ""
    lines = ["| " + " | ".join(rows[0]) + " |", "|---" * len(rows[0]) + "|"]
    for row in rows:
        lines.append("| " + " | ".join(f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values()) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print the checks as JSON")
    parser.add_argument("--quick", action="store_true", help="few draws: seconds, and rough rates")
    parser.add_argument("--only", choices=("coverage", "paired"))
    arguments = parser.parse_args()
    repeats, apart = (40, 200) if arguments.quick else (300, 2500)
    cells = [(kind, n, how, repeats, apart) for kind in KINDS for n in (8, 24, 60) for how in ("shifted", "wider")]
    tests = [(kind, n, 0.7, 0.0, repeats) for kind in ("normal", "log-normal") for n in PAIRED]
    tests += [("normal", n, 0.0, 0.0, repeats) for n in PAIRED]
    tests += [("normal", n, 0.7, farther, repeats) for n, farther in PAIRED.items()]
    with ProcessPoolExecutor() as pool:
        rows = [] if arguments.only == "paired" else list(pool.map(coverage, cells))
        found = [] if arguments.only == "coverage" else list(pool.map(paired, tests))
    print(table(rows), table(found), sep="\n\n", file=sys.stderr)
    done = list(checks(rows, found))
    return concluded(done, arguments.json)


if __name__ == "__main__":
    sys.exit(main())
