"""FID and seconds against the number of sampling steps and the share of fresh noise (`sampling.eta`).

Runs `medlord-bench run` on the phantom in one store, so that the generator is trained once. "null" steps are all, by DDPM.
Seconds are those of the step that draws the samples, on this machine at this moment: compare them within one table.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

SETTINGS = (("10", "0"), ("25", "0"), ("50", "0"), ("100", "0"), ("10", "1"), ("25", "1"), ("50", "1"), ("100", "1"))


def measured(generator: str, store: Path, samples: int, steps: str, eta: str) -> tuple[str, float]:
    """FID against the test split with its interval, and the seconds in which the samples were drawn."""
    command = [str(Path(sys.executable).with_name("medlord-bench")), "run", "--generator", generator]
    command += ["--dataset", "phantom", "--metric", "fid", "--samples", str(samples), "--no-conditional"]
    command += ["--set", f"generator.sampling.steps={steps}", "--set", f"generator.sampling.eta={eta}"]
    command += ["--store", str(store)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    run = Path(done.stdout.strip().splitlines()[-1]).parent.parent
    line = next(line for line in done.stderr.splitlines() if "  fid (test): " in line)
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    drawn = [e["seconds"] for e in events if e["step"].startswith("samples:") and e["event"] == "done"]
    return line.partition("fid (test): ")[2].partition(", floor")[0], sum(drawn)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generator", default="medlord@tiny", help="a Gaussian diffusion: medlord or voldit")
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--store", type=Path, default=Path("medlord-bench-store"))
    parser.add_argument("--ddpm", action="store_true", help="also all steps of the schedule")
    arguments = parser.parse_args()
    print("| steps | eta | FID to test | seconds |\n|---|---|---|---|")
    for steps, eta in (*SETTINGS, *([("null", "0")] if arguments.ddpm else [])):
        fid, seconds = measured(arguments.generator, arguments.store, arguments.samples, steps, eta)
        print(f"| {steps} | {eta} | {fid} | {seconds:.1f} |")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
