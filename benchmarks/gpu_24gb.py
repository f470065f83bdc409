"""Predicted and measured memory and time of every `24gb` preset at full size on a GPU limited to 24 GiB.

    python benchmarks/gpu_24gb.py [--only medlord@24gb] [--part stretches] [--json] [--out FILE]
    python benchmarks/gpu_24gb.py --device cpu --tiny        # the same on any machine, in one or two minutes

A stretch is the workload of one dry run of a generator: training steps, encoding, denoising steps, decoding or
reconstructing. Each stretch is executed on random tensors with random weights, on a GPU in a separate process with the
memory limit of `run`. Seconds are those of one repeat: the difference between six repeats and two, divided by four, so
that building the networks does not count. Then `medlord-bench run` samples one 512x512x256 volume with the preset's
untrained weights, from noise to NIfTI; its memory and time are read from the store.

The exit code is 1 if a row fails, needs more than the usable memory of a 24 GiB GPU, or allocates more than predicted.
On a GPU larger than 24 GiB the result shows that the limit is kept, but not that all kernels of a smaller GPU would use
the same workspace. The result contains the name of the GPU.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from targets import check

from medlord_bench.contracts import DataProtocol, DryRun, Grid, HasDryRuns, Run, registry, specs
from medlord_bench.contracts.regions import CARDIAC
from medlord_bench.engine import resolve
from medlord_bench.engine.memory_forecast import forecast
from medlord_bench.engine.plan import read_plan
from medlord_bench.memory.budget import GIB, usable_gib
from medlord_bench.memory.hold import held
from medlord_bench.memory.measured import PeakMemory
from medlord_bench.util.progress import SilentProgress

BUDGET = 24.0  # GiB
FULL, TINY = (512, 512, 256), (64, 64, 48)
FEW, MORE = 2, 6  # repeats
LIMIT_S = 590


def protocol(tiny: bool) -> DataProtocol:
    """Grid and condition regions of the paper's PCCTA experiment; tiny: a grid for two cores."""
    grid = Grid(shape=TINY if tiny else FULL)
    counts = {"train": 1, "val": 1, "test": 1}
    return DataProtocol(
        name="benchmark", grid=grid, fit="crop-pad", split="", split_sha256="", counts=counts, masks="dataset",
        condition_regions=CARDIAC[:6],
    )  # fmt: skip


def contestants(tiny: bool) -> list[str]:
    """All registered generators with dry runs in their `24gb` preset, with and without each variant."""
    found = []
    preset = "smoke" if tiny else "24gb"
    for entry in registry.entries("generators"):
        plugin = registry.load("generators", entry.name)
        if hasattr(plugin, "dry_runs") and preset in plugin.presets:
            variants = [] if tiny else [f":{name}" for name in plugin.variants if name != "untrained"]
            found += [f"{entry.name}{variant}@{preset}" for variant in ("", *variants)]
    return found


def dry_runs(text: str, data: DataProtocol) -> Sequence[DryRun]:
    generator = specs.make("generators", resolve.contestant(text, "", {}))
    assert isinstance(generator, HasDryRuns)
    return generator.dry_runs(data)


def predicted(text: str, device: str, tiny: bool) -> dict[str, dict[str, float]]:
    """stretch -> predicted GiB by the rule of `medlord-bench memory`: in total, and of tensors."""
    return {
        one.name: {"predicted": one.need.total, "predicted_allocated": one.need.allocated} if one.need else {}
        for one in forecast(resolve.contestant(text, "", {}), protocol(tiny), BUDGET, device=device)
    }


def workload(text: str, name: str, device: str, tiny: bool) -> dict[str, Any]:
    """Execute one stretch in this process. Returns its peaks in GiB and the seconds of one repeat."""
    data = protocol(tiny)
    (dry_run,) = [one for one in dry_runs(text, data) if one.name == name]
    run = Run(device, 0, SilentProgress(), logging.getLogger("medlord_bench"), Path(tempfile.mkdtemp()))
    limit = BUDGET if device.startswith("cuda") else None
    with held(device, limit, f"{text} {name}"), PeakMemory(device, limited=limit is not None) as peak:
        timed(dry_run, run, FEW)  # warm-up: kernels are selected and loaded at their first call
        few, more = timed(dry_run, run, FEW), timed(dry_run, run, MORE)
    return {**peak.facts(), "seconds": (more - few) / (MORE - FEW)}


def timed(dry_run: DryRun, run: Run, times: int) -> float:
    start = time.perf_counter()
    dry_run.workload(run, times)
    if run.device.startswith("cuda"):
        torch.cuda.synchronize(run.device)
    return time.perf_counter() - start


def measured(text: str, name: str, device: str, tiny: bool) -> dict[str, Any]:
    """`workload` in a separate process, so that it starts with an empty GPU; on a CPU in this process."""
    if device == "cpu":
        return workload(text, name, device, tiny)
    command = [sys.executable, __file__, "--piece", text, name, "--device", device, *(["--tiny"] if tiny else [])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    if done.returncode != 0:
        return {"error": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def whole_sample(text: str, device: str, tiny: bool) -> dict[str, Any]:
    """Sample one volume with untrained weights by `medlord-bench run`. Returns memory and seconds of its sidecar."""
    name, _, preset = text.partition("@")
    shape = ",".join(map(str, TINY if tiny else FULL))
    sets = [f"dataset.shape={shape}", *(f"dataset.n_{split}=1" for split in ("train", "val", "test"))]
    with tempfile.TemporaryDirectory() as store:
        command = [sys.executable, "-m", "medlord_bench", "run", "--generator", f"{name}:untrained@{preset}"]
        command += ["--dataset", "phantom", "--samples", "1", "--no-conditional", "--metric", "axes", "--no-report"]
        command += [word for setting in sets for word in ("--set", setting)]
        command += ["--store", store, "--device", device]
        command += [] if device == "cpu" else ["--memory-limit", f"{BUDGET:g}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
        if done.returncode != 0:
            return {"error": (done.stderr.strip().splitlines() or ["no message"])[-1]}
        (plan,) = Path(store).glob("runs/*/plan.json")  # the plan also contains the samples of the resampling control
        key = read_plan(plan.parent).step(f"samples:{name}:untrained@{preset}").key
        sidecar = json.loads((Path(store) / f"objects/samples/{key}/items/sample-00000.json").read_text())
    found = {**sidecar["facts"].get("memory", {}), "seconds": sidecar["facts"]["seconds"]}
    return found | ({"error": sidecar["failed"]} if sidecar["failed"] else {})


def rows(arguments: argparse.Namespace, device: str) -> Iterator[dict[str, Any]]:
    """One row per stretch of each contestant, and one for its whole sample."""
    named = arguments.only or contestants(arguments.tiny)
    stretched = named if arguments.part != "sample" else []
    with ProcessPoolExecutor(4, get_context("spawn")) as pool:  # minutes of CPU work, in parallel to the GPU
        forecasts = {text: pool.submit(predicted, text, device, arguments.tiny) for text in stretched}
        for text in stretched:
            for one in dry_runs(text, protocol(arguments.tiny)):
                row = {"contestant": text, "stretch": one.name, **measured(text, one.name, device, arguments.tiny)}
                yield row | forecasts[text].result()[one.name]
    for text in [text for text in named if ":" not in text] if arguments.part != "stretches" else []:
        yield {"contestant": text, "stretch": "one whole sample", **whole_sample(text, device, arguments.tiny)}


def show(row: dict[str, Any]) -> None:
    def gib(name: str) -> str:
        return f"{row[name]:9.2f}" if row.get(name) is not None else f"{'-':>9}"

    figures = " ".join(gib(name) for name in ("predicted", "allocated", "reserved", "device", "resident"))
    ending = row["error"] if "error" in row else f"{row['seconds']:8.2f} s  {row.get('evidence', '')}"
    print(f"{row['contestant']:22} {row['stretch']:18} {figures}  {ending}", file=sys.stderr, flush=True)


def checks(made: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Checks of each row: peak memory within the usable memory of the GPU, and tensors within the prediction.

    The prediction is compared with allocated memory, including cuDNN's workspaces, not with reserved memory: the
    allocator keeps freed blocks while the limit allows it, and releases them before an allocation fails.
    """
    found = []
    for row in made:
        name = f"{row['contestant']}, {row['stretch']}"
        peak = row.get("device") or row.get("reserved") or row.get("resident")
        if "error" in row or peak is None:
            found.append(check(f"{name}: ran ({row.get('error', 'no peak')})", 0, "1", False))
            continue
        found.append(check(f"{name}: GiB", peak, f"<= {usable_gib(BUDGET):g}", peak <= usable_gib(BUDGET)))
        if row.get("predicted") is not None:
            taken, target = row.get("allocated") or peak, f"<= {row['predicted']:.2f} predicted"
            found.append(check(f"{name}: GiB as predicted", taken, target, taken <= row["predicted"]))
    return found


def machine(device: str) -> dict[str, Any]:
    import monai

    facts = {"python": platform.python_version(), "torch": torch.__version__, "monai": monai.__version__}
    if device.startswith("cuda"):
        free, total = torch.cuda.mem_get_info(device)
        facts |= {"card": torch.cuda.get_device_name(device), "card_gib": f"{total / GIB:.1f}"}
        facts |= {"cuda": str(torch.version.cuda), "cudnn": str(torch.backends.cudnn.version())}
    return facts | {"date": date.today().isoformat(), "budget_gib": f"{BUDGET:g}"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--tiny", action="store_true", help="smoke presets on a small grid")
    parser.add_argument("--only", nargs="*", metavar="CONTESTANT", help="e.g. medlord@24gb medlord:ds8@24gb")
    parser.add_argument("--part", choices=("stretches", "sample"), help="only the stretches, or only the whole samples")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path, help="write machine, rows and checks to this file")
    parser.add_argument("--piece", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")  # as `medlord-bench` sets it
    if arguments.piece:
        print(json.dumps(workload(*arguments.piece, arguments.device, arguments.tiny)))
        return 0
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        print("no CUDA device found; test the benchmark with --device cpu --tiny", file=sys.stderr)
        return 3
    print(
        f"{'':41} {'predicted':>9} {'allocated':>9} {'reserved':>9} {'device':>9} {'resident':>9}  GiB", file=sys.stderr
    )
    made: list[dict[str, Any]] = []
    answer: dict[str, Any] = {}
    for row in rows(arguments, arguments.device):
        show(row)
        made.append(row)
        answer = {"machine": machine(arguments.device), "rows": made, "checks": checks(made)}
        if arguments.out:  # after every row, so that no measurement is lost if the machine stops
            arguments.out.write_text(json.dumps(answer, indent=1) + "\n")
    if arguments.json:
        print(json.dumps(answer))
    else:
        for one in answer["checks"]:
            print(f"{'ok' if one['ok'] else 'MISSED':7} {one['name']}: {one['value']} (target {one['target']})")
    return 0 if all(one["ok"] for one in answer["checks"]) else 1


if __name__ == "__main__":
    sys.exit(main())
