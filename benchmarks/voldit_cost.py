"""The cost of a VolDiT volume: FLOP of its sizes at 512x512x256, and whether a CPU's time follows them.

    python benchmarks/voldit_cost.py [--json] [--rate TFLOPS]

FLOP of one denoising step are counted on tensors without values (torch's FlopCounterMode: two for each multiplication
and addition of a matrix product); a volume takes 300 steps. Seconds are FLOP over `--rate`, a card's sustained rate,
which the reader must know: 50 TFLOP/s is an assumption. The peer of the count is the closed form
`24 T C^2 + 4 T^2 C` of each block with T tokens of C channels: queries, keys, values, projection and MLP, and attention.
The CPU check measures two sizes on small latents in one process: the ratio of their times to the ratio of their FLOP.
The exit code is 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

import torch
from targets import check
from torch.utils.flop_counter import FlopCounterMode

from medlord_bench.contracts import Shape
from medlord_bench.generators.voldit.configs import SIZES, DiTConfig
from medlord_bench.generators.voldit.transformer import DiT

STEPS, FULL, SMALL = 300, (64, 64, 32), (16, 16, 16)
SHOWN = (("l", 2), ("l", 4), ("b", 2), ("b", 4), ("s", 2), ("xs", 2))
MEASURED = (("b", 2), ("s", 2))  # both have 512 tokens on SMALL, and four times the FLOP in linears


def network(size: str, patch: int, shape: Shape, device: str) -> DiT:
    """A transformer in evaluation mode; "math" is attention that FLOP counters see on every device."""
    with torch.device(device):
        return DiT(DiTConfig(**SIZES[size], patch=patch), shape, "math").to(device).eval().requires_grad_(False)


def flop(size: str, patch: int, shape: Shape) -> float:
    """FLOP of one step for one volume."""
    net = network(size, patch, shape, "meta")
    with FlopCounterMode(display=False) as counter:
        net(torch.empty(1, 8, *shape, device="meta"), torch.zeros(1, dtype=torch.int64, device="meta"))
    return float(counter.get_total_flops())


def closed_form(size: str, patch: int, shape: Shape) -> float:
    """The same from the formula: queries, keys, values, projection and MLP of every token, and attention."""
    config = DiTConfig(**SIZES[size], patch=patch)
    tokens, width = int(torch.tensor(shape).prod()) // patch**3, config.hidden
    return float(config.depth * (2 * tokens * 12 * width**2 + 4 * tokens**2 * width))


def seconds(size: str, patch: int, shape: Shape, repeats: int) -> float:
    """The fastest of some steps on the CPU, in float32."""
    net = network(size, patch, shape, "cpu")
    x, times, best = torch.randn(1, 8, *shape), torch.zeros(1, dtype=torch.int64), float("inf")
    for _ in range(repeats):
        start = time.process_time()
        net(x, times)
        best = min(best, time.process_time() - start)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rate", type=float, default=50.0, help="TFLOP/s that a card sustains")
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for size, patch in SHOWN:
        step = flop(size, patch, FULL)
        rows.append(
            {
                "size": f"{size.upper()}/{patch}",
                "TFLOP a step": round(step / 1e12, 2),
                "of the closed form": round(step / closed_form(size, patch, FULL), 3),
                "seconds a volume": round(STEPS * step / 1e12 / given.rate),
            }
        )
    torch.set_num_threads(1)
    times = [seconds(size, patch, SMALL, 5) for size, patch in MEASURED]
    counts = [flop(size, patch, SMALL) for size, patch in MEASURED]
    checks = [
        check(
            f"counted over closed form, {row['size']}",
            row["of the closed form"],
            "1 to 1.05",
            1 <= row["of the closed form"] <= 1.05,
        )
        for row in rows
    ]
    ratio = times[0] / times[1] / (counts[0] / counts[1])
    checks.append(check("time over FLOP on the CPU, B/2 against S/2", ratio, "0.5 to 1.5", 0.5 <= ratio <= 1.5))
    rates = [round(count / one / 1e9, 1) for count, one in zip(counts, times, strict=True)]
    if given.json:
        print(json.dumps({"checks": checks, "rows": rows, "cpu GFLOP/s": rates}))
    else:
        for row in rows:
            print("  ".join(f"{name} {value}" for name, value in row.items()))
        print(f"CPU, one thread, {SMALL}: GFLOP/s {rates}, seconds a step {[round(one, 3) for one in times]}")
        for one in checks:
            print(one)
    sys.exit(any(not one["ok"] for one in checks))


if __name__ == "__main__":
    main()
