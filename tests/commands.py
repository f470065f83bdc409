"""`medlord-bench` in processes of its own, without paying for the imports each time.

Run as a script this is a process that imports what the bench uses once and forks a child for each command it is told:
what a test starts, signals and waits for is a real process with its own exit code, standard output and error.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HEAVY = (
    *("torch", "torch.utils.tensorboard", "monai.losses", "nibabel", "SimpleITK", "scipy.stats", "matplotlib.figure"),
    *(
        "medlord_bench.cli.run",
        "medlord_bench.engine.runner",
        "medlord_bench.engine.steps.kinds",
        "medlord_bench.engine.executors.inline",
    ),
    *("medlord_bench.plugins.phantom.anatomy", "medlord_bench.plugins.extractors.imagenet.network"),
    *("medlord_bench.generators.medlord.training", "medlord_bench.generators.medlord.sampling"),
    *("medlord_bench.generators.medlord.plugin", "medlord_bench.generators.controls.noise"),
    *("medlord_bench.metrics.fid.metric", "medlord_bench.metrics.reconstruction.metric"),
)


# A prelude: what a checkpoint is selected by has no settings, and its defaults take 5 seconds a volume.
SMALL_FEATURES = """
from medlord_bench.plugins.extractors.imagenet.extractor import ImageNetConfig
for name, value in (("slices", 4), ("size", 32)):
    ImageNetConfig.model_fields[name].default = value
ImageNetConfig.model_rebuild(force=True)
"""
SETTINGS = ("dataset.shape=32,32,16", "dataset.n_train=4", "dataset.n_val=1", "dataset.n_test=3")
SETTINGS += ("fid.features.size=32", "fid.features.slices=4", "fid.minimum=2")
PHANTOM = (
    "--dataset",
    "phantom",
    "--metric",
    "fid",
    "--metric",
    "reconstruction",
    *(word for setting in SETTINGS for word in ("--set", setting)),
)


@dataclass(frozen=True)
class Done:
    """A command that ended: exit code (negative: the signal), standard output and error."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Started:
    """A command under way."""

    commands: Commands
    pid: int
    out: Path
    err: Path

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def ended(self) -> bool:
        """Whether it has ended, its parent not having asked for its exit code yet."""
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"

    def wait(self) -> Done:
        code = self.commands.ask({"wait": self.pid})["code"]
        return Done(code, self.out.read_text(), self.err.read_text())


class Commands:
    """Starts commands. `folder`: their working directory and where their output goes."""

    small_features = SMALL_FEATURES
    phantom = PHANTOM  # options for a cohort of eight small patients, measured in seconds

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MEDLORD_BENCH_")}
        environment |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}  # same threads, same bytes
        self.server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self.server.stdin is not None and self.server.stdout is not None
        self.server.stdin.write(json.dumps(question) + "\n")
        self.server.stdin.flush()
        answer: dict[str, Any] = json.loads(self.server.stdout.readline())
        return answer

    def start(self, *arguments: str | Path, env: dict[str, str] | None = None, prelude: str = "") -> Started:
        """Start ``medlord-bench ARGUMENTS``. prelude: Python that the process executes first, to simulate a fault."""
        self.count += 1
        out, err = (self.folder / f"{self.count}.{name}" for name in ("out", "err"))
        question = {"arguments": [str(a) for a in arguments], "cwd": str(self.folder), "env": env or {}}
        answer = self.ask(question | {"out": str(out), "err": str(err), "prelude": prelude})
        return Started(self, answer["pid"], out, err)

    def __call__(self, *arguments: str | Path, env: dict[str, str] | None = None, prelude: str = "") -> Done:
        """Run ``medlord-bench ARGUMENTS`` to its end."""
        return self.start(*arguments, env=env, prelude=prelude).wait()

    def close(self) -> None:
        assert self.server.stdin is not None
        self.server.stdin.close()
        self.server.wait(timeout=60)


def wait_for(happened: Any, process: Started, seconds: float = 240.0) -> bool:
    """Poll until `happened()`; False where the process ended before."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if happened():
            return True
        if process.ended():
            return bool(happened())
        time.sleep(0.002)
    raise TimeoutError(f"waited {seconds} s in vain; standard error so far: {process.err.read_text()[-1000:]}")


# ------------------------------------------------------------------------------------------------- the forking process
def _serve() -> None:
    for module in HEAVY:
        importlib.import_module(module)
    for line in sys.stdin:
        question = json.loads(line)
        if "wait" in question:
            answer = {"code": os.waitstatus_to_exitcode(os.waitpid(question["wait"], 0)[1])}
        else:
            answer = {"pid": _fork(question)}
        print(json.dumps(answer), flush=True)


def _fork(question: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        _redirect(question)
        exec(question["prelude"], {})
        from medlord_bench.cli import main

        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _redirect(question: dict[str, Any]) -> None:
    os.chdir(question["cwd"])
    os.environ.update(question["env"])
    sys.argv = ["medlord-bench", *question["arguments"]]
    devnull = os.open(os.devnull, os.O_RDONLY)
    os.dup2(devnull, 0)
    for number, path in ((1, question["out"]), (2, question["err"])):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), number)


if __name__ == "__main__":
    _serve()
