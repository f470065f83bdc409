"""A run that goes over its limit ends with exit 4 and loses nothing: the same run with a larger one goes on."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

SAMPLER = """
import array, random, sys
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
if given["--index"] == "1":
    taken = bytearray(1700 * 2**20)  # never written to: no machine's memory is filled
draw = random.Random(int(given["--index"]))
header = repr({"descr": "<i2", "fortran_order": False, "shape": (16, 16, 16)}).encode()
header += b" " * (-(len(header) + 11) % 64) + b"\\n"
data = array.array("h", [draw.randrange(-1000, 1000) for _ in range(16**3)]).tobytes()
open(given["--out"], "wb").write(b"\\x93NUMPY\\x01\\x00" + len(header).to_bytes(2, "little") + header + data)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA bounds allocations on Linux only")
def test_a_run_over_its_limit_ends_with_exit_4_and_goes_on_with_a_larger_one(bench: Any, tmp_path: Path) -> None:
    script = tmp_path / "sampler.py"
    script.write_text(SAMPLER)
    arguments = [
        "run",
        "--generator",
        "command",
        "--dataset",
        "phantom",
        "--metric",
        "reconstruction",
        "--samples",
        "3",
    ]
    arguments += ["--store", str(tmp_path / "store"), "--device", "cpu", "--no-report", "--no-conditional"]
    settings = ["dataset.shape=16,16,16", "dataset.n_train=2", "dataset.n_val=1", "dataset.n_test=2"]
    settings += [f"command.command={sys.executable} {script} --index {{index}} --out {{out}}", "command.output=.npy"]
    arguments += [word for setting in settings for word in ("--set", setting)]

    over = bench(*arguments, "--memory-limit", "1.6GiB")
    assert over.code == 4, over.err
    (line,) = [line for line in over.err.splitlines() if line.startswith("Error: ")]
    assert line.startswith("Error: step samples:command: the program python")
    assert "out of memory under the cap of 1.6 GiB" in line and line.endswith("published items are kept")
    (items,) = (tmp_path / "store" / "objects" / "samples").glob("*/items")
    assert sorted(path.name for path in items.iterdir()) == ["sample-00000.json", "sample-00000.nii.gz"]
    made = (items / "sample-00000.nii.gz").stat().st_mtime_ns

    done = bench(*arguments, "--memory-limit", "3")
    assert done.code == 0, done.err
    assert (items / "sample-00000.nii.gz").stat().st_mtime_ns == made
    sidecars = [json.loads((items / f"sample-0000{index}.json").read_text()) for index in range(3)]
    assert [sidecar["failed"] for sidecar in sidecars] == [None] * 3
    memory = sidecars[2]["facts"]["memory"]
    assert memory["evidence"] == "measured-on-cpu" and memory["card"]
    assert memory["resident"] > 0 and memory["programs"] > 0 and memory["predicted"] is None
    (run,) = (tmp_path / "store" / "runs").iterdir()
    events = [json.loads(text) for text in (run / "events.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events if event["step"] == "samples:command"] == [
        "start",
        "stopped",
        "start",
        "done",
    ]
    assert events[-1]["memory"]["evidence"] == "measured-on-cpu"


def test_a_size_that_is_none_is_a_mistake_said_before_any_work(bench: Any, tmp_path: Path) -> None:
    done = bench("plan", *bench.phantom, "--generator", "noise", "--memory-limit", "much", "--store", str(tmp_path))
    assert done.code == 2
    assert done.err.startswith("Error: --memory-limit much: expected a size such as 24, 24GB")
