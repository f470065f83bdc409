"""``medlord-bench doctor``: what this machine has, what is wrong, and the command that fixes it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import click

from medlord_bench.cli.options import json_option, store_option
from medlord_bench.errors import ExitCode
from medlord_bench.nn.pretrained import ENVIRONMENT, weights_folder
from medlord_bench.util import provenance
from medlord_bench.util.provenance import Driver

State = Literal["ok", "warn", "fail"]
# A torch build runs on every driver that knows its CUDA major version (minor version compatibility), so one index
# for each major version is enough: its oldest CUDA for which the lowest supported torch is published.
INDEXES = {
    13: ("'torch>=2.6,!=2.9.*' torchvision", "cu130"),
    12: ("'torch>=2.6,!=2.9.*' torchvision", "cu126"),
    11: ("'torch>=2.6,<2.8' 'torchvision<0.23'", "cu118"),
}
BUDGET_GIB = 24.0  # the card size of the paper
OPTIONAL = {
    "totalsegmentator": ("TotalSegmentator", "masks of real and sampled volumes: `pip install TotalSegmentator`"),
    "nnunetv2": ("nnunetv2", "the metric downstream, and your own trained nnU-Net: `pip install nnunetv2`"),
}


@dataclass(frozen=True)
class Row:
    """One finding. advice: how to fix it, empty if nothing is needed."""

    name: str
    state: State
    found: str
    advice: str = ""


@click.command()
@store_option
@click.option(
    "--weights-dir",
    type=click.Path(file_okay=False, path_type=Path),
    envvar=ENVIRONMENT,
    help="Offline folder of pretrained weights.",
)
@json_option
@click.pass_context
def doctor(context: click.Context, store: Path, weights_dir: Path | None, as_json: bool) -> None:
    """Check this machine and say what to install.

    Ends with exit code 3 if a requirement of a run fails.
    """
    rows = examine(store, weights_dir)
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows]))
    else:
        width = max(len(row.name) for row in rows)
        for row in rows:
            click.echo(f"{row.state:<5} {row.name:<{width}}  {row.found}")
            if row.advice:
                click.echo(f"{'':<6}{'':<{width}}  -> {row.advice}")
    if any(row.state == "fail" for row in rows):
        context.exit(ExitCode.MISSING)


def examine(store: Path, weights_dir: Path | None) -> list[Row]:
    """Every check, in the order in which a user would fix problems."""
    driver = provenance.nvidia_driver()
    return [
        check_python(sys.version_info[:3]),
        *check_torch(driver),
        check_memory(_ram_gib()),
        check_disk(store),
        check_weights(weights_folder(weights_dir)),
        check_xformers(),
        *(check_optional(module, *about) for module, about in OPTIONAL.items()),
    ]


def check_python(version: Sequence[int]) -> Row:
    text = ".".join(map(str, version))
    if tuple(version[:2]) < (3, 11):
        return Row("python", "fail", text, "install Python 3.11 or newer and create the environment again with it")
    return Row("python", "ok", text)


def check_torch(driver: Driver | None) -> list[Row]:
    """Torch itself, whether its CUDA fits the driver, and every card."""
    try:
        version = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return [Row("torch", "fail", "not installed", install_line(driver))]
    build = provenance.torch_cuda_build()
    rows = [Row("torch", "ok", f"{version}, {f'built for CUDA {build}' if build else 'without CUDA'}")]
    if driver is None or not driver.gpus:
        return [*rows, check_no_card(_mps_available())]
    fits = check_driver(build, driver)
    works = "" if fits.state == "fail" else _cuda_fault()
    if works:
        advice = f"check CUDA_VISIBLE_DEVICES, free the card or, if torch has no kernels for it, {install_line(driver)}"
        fits = Row("driver", "fail", f"{fits.found}; a first computation on the card failed: {works}", advice)
    return [*rows, fits, *check_cards(driver)]


def check_driver(build: str | None, driver: Driver) -> Row:
    """The CUDA that the driver supports against the CUDA that torch was built for.

    build: e.g. "12.8", None for a torch without CUDA. Raises nothing; a driver that is too old is a failure with the
    exact install command.
    """
    release = driver.gpus[0].driver if driver.gpus else "unknown"
    found = f"{release}, supports CUDA {driver.cuda or 'of an unknown version'}"
    if build is None:
        return Row("driver", "fail", f"{found}; torch is a build without CUDA", install_line(driver))
    if driver.cuda is None:
        return Row("driver", "warn", found, "nvidia-smi prints no CUDA version: compare it manually with torch's")
    if _major(build) > _major(driver.cuda):
        problem = f"{found}; too old for torch built for CUDA {build}"
        return Row("driver", "fail", problem, f"update the driver, or {install_line(driver)}")
    return Row("driver", "ok", found)


def install_line(driver: Driver | None) -> str:
    """The pip command for a torch that this driver can run."""
    if driver is None:
        return "install it: `pip install torch torchvision --index-url https://download.pytorch.org/whl/cpu`"
    newest = _major(driver.cuda or "12")
    major = next((known for known in INDEXES if known <= newest), None)
    if major is None:
        return "update the NVIDIA driver to 525 or newer: no supported torch runs on this one"
    packages, index = INDEXES[major]
    return f"install: `pip install --force-reinstall {packages} --index-url https://download.pytorch.org/whl/{index}`"


def check_cards(driver: Driver) -> list[Row]:
    rows = []
    for number, gpu in enumerate(driver.gpus):
        memory = "memory unknown" if gpu.memory_gib is None else f"{gpu.memory_gib:.1f} GiB"
        small = gpu.memory_gib is not None and gpu.memory_gib < 0.95 * BUDGET_GIB
        advice = f"below {BUDGET_GIB:.0f} GiB: the `tiny` preset fits, `24gb` may not" if small else ""
        rows.append(Row(f"gpu {number}", "warn" if small else "ok", f"{gpu.name}, {memory}", advice))
    return rows


def check_no_card(mps: bool) -> Row:
    if mps:
        advice = "use `--device mps` only for first tries: its numbers may differ from a CUDA card's"
        return Row("gpu", "warn", "no NVIDIA card; Apple's MPS is available", advice)
    advice = "enough for the phantom (`tiny`, minutes); real CT at full size needs an NVIDIA card of 24 GiB"
    return Row("gpu", "warn", "none found by nvidia-smi: everything runs on the CPU", advice)


def check_memory(gib: float | None) -> Row:
    if gib is None:
        return Row("memory", "warn", "unknown on this system", "the phantom needs about 4 GiB")
    if gib < 4:
        return Row("memory", "warn", f"{gib:.1f} GiB", "the phantom needs about 4 GiB: close other programs")
    return Row("memory", "ok", f"{gib:.1f} GiB")


def check_disk(store: Path) -> Row:
    """Free space and write access at the store's present or future location."""
    place = store.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free / 2**30
    found = f"{free:.1f} GiB free at {store}"
    if not place.is_dir() or not os.access(place, os.W_OK):
        return Row(
            "store", "fail", f"{place} is not writable", "name another folder with --store or MEDLORD_BENCH_STORE"
        )
    if free < 5:
        return Row(
            "store",
            "warn",
            found,
            "a phantom run takes about 1 GiB, real CT hundreds: choose another disk with --store",
        )
    return Row("store", "ok", found)


def check_weights(folder: Path) -> Row:
    if not folder.is_dir():
        advice = (
            f"only needed for pretrained weights without a network: name the folder with --weights-dir or {ENVIRONMENT}"
        )
        return Row("weights", "ok", f"no folder at {folder}", advice)
    files = [path for path in folder.glob("*/*/**/*") if path.is_file() and ".cache" not in path.parts]
    weights = [path for path in files if not path.name.endswith(".lock.json")]
    return Row("weights", "ok", f"{len(weights)} files in {folder}")


def check_xformers() -> Row:
    """xformers is used only if a first call succeeds; torch's own `sdpa` is equivalent."""
    if importlib.util.find_spec("xformers") is None:
        return Row("xformers", "ok", "not installed (optional; torch's own attention is used)")
    from medlord_bench.errors import UserError
    from medlord_bench.nn.attention import resolve

    try:
        import torch

        resolve("xformers", "cuda" if torch.cuda.is_available() else "cpu")
    except UserError as error:
        advice = "nothing: torch's own attention is used; to use xformers, install the release made for this torch"
        return Row("xformers", "warn", str(error), advice)
    return Row("xformers", "ok", "a first call succeeded")


def check_optional(module: str, distribution: str, purpose: str) -> Row:
    if importlib.util.find_spec(module) is None:
        return Row(module, "ok", "not installed (optional)", purpose)
    try:
        version = importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        version = "of unknown version"
    return Row(module, "ok", version)


def _major(version: str) -> int:
    return int(version.partition(".")[0])


def _ram_gib() -> float | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, ValueError, OSError):
        return None


def _mps_available() -> bool:
    if platform.system() != "Darwin":
        return False
    import torch

    return torch.backends.mps.is_available()


def _cuda_fault() -> str:
    """Why a first computation on the card fails; empty if it works."""
    import torch

    try:
        (torch.ones(1, device="cuda") + 1).item()
    except (RuntimeError, AssertionError) as error:
        return (str(error).splitlines() or ["no reason given"])[0]
    return ""
