"""Speed and values of the Fréchet distance against the usual matrix square root and two libraries.

    python benchmarks/frechet.py [--json] [--quick]

Peers: scipy.linalg.sqrtm of the product of the covariances, as pytorch-fid and MONAI compute it; torchmetrics; and
torch-fidelity. All compute the distance of the same rows in the same process: d = 2,048, n rows per set. --quick uses
smaller features (d = 256) and has no target for speed. The exit code is 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import sqrtm
from targets import check, concluded

from medlord_bench.stats import frechet_distance

Matrix = NDArray[np.float64]
MAX_RELATIVE_DIFFERENCE = 1e-6  # at full rank
REPEATS = 3  # of the bench; the peer runs once, after the first


def features(n: int, axes: Matrix, seed: int, shift: float = 0.0) -> Matrix:
    """n rows (n, d) with a decaying spectrum on rotated axes, similar to the features of a network."""
    rng = np.random.default_rng(seed)
    scale = np.arange(1, len(axes) + 1) ** -0.5
    return (rng.standard_normal((n, len(axes))) * scale + shift) @ axes


def moments(rows: Matrix) -> tuple[Matrix, Matrix]:
    return rows.mean(0), np.cov(rows, rowvar=False)


def square_root_distance(x: Matrix, y: Matrix) -> float:
    """The distance as the peer computes it."""
    (mean1, covariance1), (mean2, covariance2) = moments(x), moments(y)
    root = sqrtm(covariance1 @ covariance2)
    means = ((mean1 - mean2) ** 2).sum()
    return float(means + np.trace(covariance1) + np.trace(covariance2) - 2 * np.trace(root).real)


def torchmetrics_distance(x: Matrix, y: Matrix) -> float:
    from torchmetrics.image.fid import _compute_fid

    parts = [torch.from_numpy(np.asarray(part)) for rows in (x, y) for part in moments(rows)]
    return float(_compute_fid(*parts))


def torch_fidelity_distance(x: Matrix, y: Matrix) -> float:
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    first, second = (fid_features_to_statistics(torch.from_numpy(rows)) for rows in (x, y))
    return float(fid_statistics_to_metric(first, second, verbose=False)["frechet_inception_distance"])


def timed(call: Callable[[], float]) -> tuple[float, float]:
    start = time.perf_counter()
    value = call()
    return time.perf_counter() - start, value


def relative(value: float, reference: float) -> float:
    return abs(value - reference) / abs(reference)


def speed(x: Matrix, y: Matrix, least: float | None) -> tuple[list[dict[str, Any]], float]:
    """Measure the bench, the peer and the bench again, under the same load. Returns also the peer's value."""
    n, d = x.shape
    frechet_distance(x, y)  # starts threads and libraries
    quick = [timed(lambda: frechet_distance(x, y))]
    slow, expected = timed(lambda: square_root_distance(x, y))
    quick += [timed(lambda: frechet_distance(x, y)) for _ in range(REPEATS - 1)]
    seconds = statistics.median(one for one, _ in quick)
    print(f"n={n:,}, d={d:,}: {seconds:.2f} s, sqrtm {slow:.1f} s; {quick[0][1]!r}, {expected!r}", file=sys.stderr)
    target, ok = (f">= {least:g}", slow >= least * seconds) if least else ("none", True)
    return [check(f"speedup_n_{n}", slow / seconds, target, ok)], expected


def values(x: Matrix, y: Matrix, square_root: float) -> list[dict[str, Any]]:
    """Relative differences to the peers at full rank, where all formulas are exact."""
    ours = frechet_distance(x, y)
    peers = {
        "sqrtm": square_root,
        "torchmetrics": torchmetrics_distance(x, y),
        "torch_fidelity": torch_fidelity_distance(x, y),
    }
    differences = {f"relative_difference_{name}": relative(ours, value) for name, value in peers.items()}
    return [
        check(name, value, f"<= {MAX_RELATIVE_DIFFERENCE:g}", value <= MAX_RELATIVE_DIFFERENCE)
        for name, value in differences.items()
    ]


def closed_form(axes: Matrix) -> dict[str, Any]:
    """Two Gaussians with equal axes: |m1 - m2|^2 + sum (s1 - s2)^2, s: standard deviations along the axes."""
    rng = np.random.default_rng(7)
    first, second = (rng.uniform(0.5, 1.5, len(axes)) * np.arange(1, len(axes) + 1) ** -0.5 for _ in range(2))
    shift = 0.1 * rng.standard_normal(len(axes))
    expected = float((shift**2).sum() + ((first - second) ** 2).sum())
    noise = rng.standard_normal((2 * len(axes), len(axes)))
    white, _ = np.linalg.qr(noise - noise.mean(0))  # columns are orthonormal and sum to 0: covariance I / (n - 1)
    white *= np.sqrt(len(white) - 1)
    found = frechet_distance(white * first @ axes, (white * second + shift) @ axes)
    difference = relative(found, expected)
    return check(
        "relative_difference_closed_form",
        difference,
        f"<= {MAX_RELATIVE_DIFFERENCE:g}",
        difference <= MAX_RELATIVE_DIFFERENCE,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print the checks as JSON")
    parser.add_argument(
        "--quick", action="store_true", help="small features, seconds instead of minutes, no target for speed"
    )
    arguments = parser.parse_args()
    d, few, many = (256, 64, 500) if arguments.quick else (2048, 500, 4000)
    axes, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((d, d)))
    checks, square_root = [], 0.0
    for n, least in ((few, 40.0), (many, 4.0)):
        x, y = features(n, axes, 1), features(n, axes, 2, shift=0.02)
        found, square_root = speed(x, y, None if arguments.quick else least)
        checks += found
    checks += [*values(x, y, square_root), closed_form(axes)]
    return concluded(checks, arguments.json)


if __name__ == "__main__":
    sys.exit(main())
