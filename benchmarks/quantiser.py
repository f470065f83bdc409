"""Speed, exactness and memory of the VQ-GAN's nearest codes and code statistics, against the usual formulas.

    python benchmarks/quantiser.py [--json]

Peers: distances |x|^2 + |e|^2 - 2xe per 1,024 rows and the maximum of their negatives, and statistics by one-hot rows,
as in MedLoRD's and MONAI's quantisers. Both sides run alternately in one process; medians are compared. The exit code
is 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from targets import check, concluded
from torch import Tensor

from medlord_bench.nn.vqgan.quantiser import code_statistics, nearest_codes

K, D = 16_384, 8
MIB = 2**20


def plain_nearest(flat: Tensor, codebook: Tensor, chunk: int = 1024) -> Tensor:
    """The peer's search: flat (N, d), codebook (K, d) -> indices (N,)."""
    found = []
    for rows in flat.split(chunk):
        distances = (rows**2).sum(1, keepdim=True) + (codebook.t() ** 2).sum(0, keepdim=True) - 2 * rows @ codebook.t()
        found.append(torch.max(-distances, dim=1)[1])
    return torch.cat(found)


def one_hot_statistics(flat: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    """The peer's statistics: flat (N, d), indices (N,) -> counts (K,), sums (K, d)."""
    encodings = torch.nn.functional.one_hot(indices, K).float()
    return encodings.sum(0), encodings.t() @ flat


def interleaved(ours: Callable[[], Any], peer: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Median seconds of both, measured alternately, so that both have the same load."""
    times: tuple[list[float], list[float]] = ([], [])
    ours(), peer()
    for _ in range(repeats):
        for call, taken in zip((ours, peer), times, strict=True):
            start = time.perf_counter()
            call()
            taken.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def draw(seed: int, n: int = 16_384, scale: float = 1.0, shift: float = 0.0) -> tuple[Tensor, Tensor]:
    """Vectors (n, d) and codes (K, d) from N(shift, scale^2)."""
    generator = torch.Generator().manual_seed(seed)
    flat, codebook = (torch.randn(rows, D, generator=generator).mul_(scale).add_(shift) for rows in (n, K))
    return flat, codebook


def speed() -> list[dict[str, Any]]:
    flat, codebook = draw(0)
    ours, peer = interleaved(lambda: nearest_codes(flat, codebook), lambda: plain_nearest(flat, codebook), 7)
    print(f"nearest codes, N=16,384: {ours:.3f} s, plain loop {peer:.3f} s", file=sys.stderr)
    few = flat[:8192]
    indices = nearest_codes(few, codebook)
    quick, slow = interleaved(lambda: code_statistics(few, indices, K), lambda: one_hot_statistics(few, indices), 7)
    print(f"statistics, N=8,192: {1e3 * quick:.2f} ms, one-hot {1e3 * slow:.0f} ms", file=sys.stderr)
    return [
        check("nearest_codes_speedup", peer / ours, ">= 3", peer >= 3 * ours),
        check("code_statistics_speedup", slow / quick, ">= 50", slow >= 50 * quick),
    ]


def exactness() -> list[dict[str, Any]]:
    differing = 0
    for seed in (1, 2):
        flat, codebook = draw(seed)
        differing += int((nearest_codes(flat, codebook) != plain_nearest(flat, codebook)).sum())
    checks = [check("indices_differing_normal", differing, "= 0", differing == 0)]
    flat, codebook = draw(3, n=4096, scale=1e-3, shift=5.0)
    chosen = [(flat.double() - codebook[i].double()).square().sum(1) for i in
              (nearest_codes(flat, codebook), plain_nearest(flat, codebook))]  # fmt: skip
    worse, better = int((chosen[0] > chosen[1]).sum()), int((chosen[0] < chosen[1]).sum())
    print(f"codes 5 +- 1e-3: bench nearer in {better} of 4,096 rows, farther in {worse}", file=sys.stderr)
    return [*checks, check("distances_larger_offset", worse, "= 0", worse == 0)]


def resident_mib(peak: bool) -> float:
    """Resident memory of this process in MiB: current, or its peak."""
    status = Path("/proc/self/status")
    if status.exists():  # unlike ru_maxrss, this peak is not inherited from the parent
        field = "VmHWM:" if peak else "VmRSS:"
        line = next(line for line in status.read_text().splitlines() if line.startswith(field))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB  # macOS: bytes, and only the peak


def measure_memory() -> None:
    """Print the increase of memory by the search and the statistics for N=1,048,576. Runs in a separate process.

    Resident memory includes the internal memory of the kernels, which the sizes of tensors do not show.
    """
    flat, codebook = draw(4, n=1_048_576)
    nearest_codes(flat[:64], codebook, chunk=8)  # load the kernels
    before = resident_mib(peak=False)
    code_statistics(flat, nearest_codes(flat, codebook), K)
    print(resident_mib(peak=True) - before)


def memory() -> dict[str, Any]:
    child = subprocess.run([sys.executable, __file__, "--memory"], check=True, capture_output=True, text=True)
    grown = float(child.stdout)
    return check("extra_mib_n_1048576", grown, "< 256", grown < 256)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print the checks as JSON")
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory:
        measure_memory()
        return 0
    checks = [*speed(), *exactness(), memory()]
    return concluded(checks, arguments.json)


if __name__ == "__main__":
    sys.exit(main())
