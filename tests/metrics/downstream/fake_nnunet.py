"""In place of `child`: takes the same settings, writes what it writes, trains nothing. FAKE chooses how it ends."""

import json
import os
import signal
import sys
import time
from pathlib import Path

RAW = "nnUNet_raw"
settings = json.loads(Path(sys.argv[1]).read_text())
out, ending = Path(settings["out"]), os.environ.get("FAKE", "")
if ending == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if ending == "workers":
    print("RuntimeError: One or more background workers are no longer alive. Exiting.")
    sys.exit(1)
if ending == "disk":
    print("OSError: [Errno 28] No space left on device: '/x'")
    sys.exit(1)
if ending == "error":
    print("ValueError: something else\n")
    sys.exit(3)
if ending == "memory":
    print("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB")
    sys.exit(1)
if ending == "endless":
    (out.parent / "pid").write_text(str(os.getpid()))
    time.sleep(60)
out.mkdir(parents=True, exist_ok=True)
raw = Path(os.environ[RAW]) / "Dataset001_Arm"
cases = sorted(path.name.removesuffix(".nii.gz") for path in (raw / "labelsTr").iterdir())
if settings["work"] == "plan":
    (out / "bench.json").write_text(json.dumps({"cases": cases}))
    (out / "dataset_fingerprint.json").write_text("{}")
else:
    trainer = json.loads(os.environ["MEDLORD_BENCH_TRAINER"])
    for epoch in range(trainer["epochs"]):
        line = {"epoch": epoch, "epochs": trainer["epochs"], "seconds": 1.0, "loss": 1.0, "dice": [0.5]}
        line |= {"iteration": 0.2 - 0.1 * epoch, "validation": 0.05, "saving": 0.5}
        with open(trainer["progress"], "a") as file:
            file.write(json.dumps(line) + "\n")
    if "times" in settings:
        Path(settings["times"]).write_text(json.dumps({"preprocessing": 3.0, "cases": 3}))
    facts = {
        "split": settings["split"],
        "seed": trainer["seed"],
        "plan": json.loads((Path(settings["shared"]) / "bench.json").read_text()),
    }
    (out / "model.json").write_text(json.dumps(facts))
