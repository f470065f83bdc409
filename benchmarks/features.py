"""Speed, agreement and memory of ResNet-50's slice features from .nii.gz, against eager PyTorch with nibabel.

    python benchmarks/features.py [--json] [--quick]

The bench runs the `radimagenet` extractor as in a run. The peer runs the same network as usual, with batch norms, on
contiguous (N, C, H, W) batches of 16 slices; each slice is cut from nibabel's float array and resized separately. Both
read the same files alternately in one process; medians are compared. Weights are random, in the layout of the real
file, since neither speed nor memory depends on them. Images are those of MEDLORD_BENCH_TEST_DATA; if it is not set, a
generated volume. `--quick` uses fewer slices and one repeat; do not cite its numbers. The exit code is 1 if a target is
missed.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray
from quantiser import interleaved, resident_mib
from targets import check, concluded
from torch import Tensor, nn
from torch.nn import functional as F

from medlord_bench.contracts import Run
from medlord_bench.nn import pretrained
from medlord_bench.nn.checkpoints import load_strict, read_torch
from medlord_bench.plugins.extractors.imagenet import extractor as imagenet
from medlord_bench.plugins.extractors.radimagenet.extractor import (
    MEAN,
    WEIGHTS,
    RadImageNetConfig,
    RadImageNetExtractor,
)
from medlord_bench.plugins.extractors.radimagenet.network import ResNet50
from medlord_bench.plugins.extractors.slices import PLANES, slice_indices
from medlord_bench.util.progress import SilentProgress
from medlord_bench.volumes.io import read_volume

IMAGES = ("chest_lung1/ct.nii.gz", "thorax_cta/ct.nii.gz", "abdomen/ct.nii.gz")
BATCH = 16  # of the peer, which is slower with 32
LARGE_SHAPE = (512, 512, 256)
LIMIT_MIB = 2.5 * 1024


@torch.no_grad()
def random_weights(path: Path, seed: int = 0) -> Path:
    """A file in the layout of the real weights. Batch norms have statistics of images, so that features differ."""
    torch.manual_seed(seed)
    network = ResNet50()
    for name, part in network.named_modules():
        if isinstance(part, nn.Conv2d) and part.bias is not None:
            nn.init.kaiming_normal_(part.weight)
            nn.init.normal_(part.bias, 0.0, 0.1)
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.weight, 0.3 if name.endswith("bn3") else 1.0, 0.1)
            nn.init.normal_(part.bias, 0.0, 0.1)
            part.momentum = 1.0
    blocks = torch.rand(4, 1, 9, 9).repeat_interleave(7, -1).repeat_interleave(7, -2)
    network.train()(blocks.expand(-1, 3, -1, -1) - 0.45)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), path)
    return path


def run_context(scratch: Path) -> Run:
    return Run(device="cpu", seed=0, progress=SilentProgress(), log=logging.getLogger("features"), scratch=scratch)


def ours(paths: Sequence[Path], settings: dict[str, Any], scratch: Path) -> list[dict[str, NDArray[np.float32]]]:
    """The features of the files by the extractor, called as in a run."""
    extractor = RadImageNetExtractor(RadImageNetConfig.model_validate(settings))
    return [dict(state) for state in extractor.features(map(read_volume, paths), run_context(scratch))]


@torch.no_grad()
def plain(paths: Sequence[Path], count: int, network: ResNet50) -> list[dict[str, NDArray[np.float32]]]:
    """The features of the files by the peer."""
    found = []
    for path in paths:
        hu = nib.as_closest_canonical(nib.load(path)).get_fdata(dtype=np.float32)
        state = {}
        for plane, axis in PLANES.items():
            images = []
            for index in slice_indices(hu.shape[axis], count):
                cut = np.ascontiguousarray(np.moveaxis(hu, axis, 0)[index].T[::-1, ::-1])
                grey = (torch.from_numpy(cut).clamp(-1000, 1000)[None, None] + 1000) / 2000  # (H, W) -> (1, 1, H, W)
                grey = F.interpolate(grey, (224, 224), mode="bilinear", align_corners=False, antialias=True)
                images.append(grey.repeat(1, 3, 1, 1) - torch.tensor(MEAN).view(1, 3, 1, 1))
            batches = torch.cat(images).split(BATCH)
            state[plane] = torch.cat([network(batch) for batch in batches]).numpy()
        found.append(state)
    return found


def images(folder: Path) -> list[Path]:
    """Real CT if available, else one generated volume of the size of a chest CT."""
    data = os.environ.get("MEDLORD_BENCH_TEST_DATA")
    if data:
        return [Path(data) / name for name in IMAGES]
    print("MEDLORD_BENCH_TEST_DATA is not set: uses a generated volume instead of real CT", file=sys.stderr)
    coarse = torch.randn((1, 1, 16, 16, 12), generator=torch.Generator().manual_seed(0)) * 400 - 300
    hu = F.interpolate(coarse, (512, 512, 134), mode="trilinear")[0, 0].round().short().numpy()
    path = folder / "made_up.nii.gz"
    nib.save(nib.Nifti1Image(hu, np.eye(4)), path)
    return [path]


def speed(folder: Path, quick: bool) -> list[dict[str, Any]]:
    paths, count = images(folder)[: 1 if quick else None], 8 if quick else 32
    network = ResNet50()
    file = pretrained.find(WEIGHTS).path
    load_strict(network, read_torch(file), str(file))
    network.eval()
    mine: Callable[[], Any] = lambda: ours(paths, {"slices": count}, folder)  # noqa: E731
    peer: Callable[[], Any] = lambda: plain(paths, count, network)  # noqa: E731
    pairs = [(a[plane], b[plane]) for a, b in zip(mine(), peer(), strict=True) for plane in PLANES]
    largest = max(float(np.abs(a - b).max()) for a, b in pairs) / max(float(np.abs(b).max()) for _, b in pairs)
    slices = sum(len(a) for a, _ in pairs)
    quicker, slower = interleaved(mine, peer, 1 if quick else 3)
    print(
        f"{len(paths)} files, {slices} slices: {slices / quicker:.1f} slices/s, plain PyTorch {slices / slower:.1f}",
        file=sys.stderr,
    )
    return [
        check("features_speedup", slower / quicker, ">= 1.5", slower >= 1.5 * quicker),
        check("largest_difference", largest, "<= 1e-4", largest <= 1e-4),
    ]


def default_network(folder: Path, quick: bool) -> list[dict[str, Any]]:
    """The default extractor, with the few slices at a time that it takes on a CPU, against sixteen: CPU seconds, one thread."""
    volume = read_volume(images(folder)[0])
    extractor = imagenet.ImageNetExtractor(imagenet.ImageNetConfig(slices=8 if quick else 32))
    few, threads = imagenet.CHUNK, torch.get_num_threads()
    torch.set_num_threads(1)
    seconds: dict[int, list[float]] = {few: [], BATCH: []}
    found = {}
    for _ in range(1 if quick else 4):
        for chunk, times in seconds.items():
            imagenet.CHUNK = chunk
            before = time.process_time()
            (state,) = extractor.features([volume], run_context(folder))
            times.append(time.process_time() - before)
            found[chunk] = np.concatenate([state[plane] for plane in PLANES])
    imagenet.CHUNK = few
    torch.set_num_threads(threads)
    count = len(found[few])
    rates = {chunk: count / min(times) for chunk, times in seconds.items()}
    print(
        f"default network, {few} at a time: {rates[few]:.1f} slices for each second of a core, {BATCH}: {rates[BATCH]:.1f}",
        file=sys.stderr,
    )
    apart = float(np.abs(found[few] - found[BATCH]).max() / np.abs(found[BATCH]).max())
    return [
        check(
            "default_network_speedup", rates[few] / rates[BATCH], ">= 1.2", quick or rates[few] >= 1.2 * rates[BATCH]
        ),
        check("default_network_difference", apart, "<= 1e-4", apart <= 1e-4),
    ]


def large_volume(folder: Path) -> Path:
    """The first image, resized to 512 x 512 x 256."""
    hu = torch.from_numpy(read_volume(images(folder)[0]).hu.astype(np.float32))
    grown: Tensor = F.interpolate(hu[None, None], LARGE_SHAPE, mode="trilinear")[0, 0]
    path = folder / "large.nii.gz"
    nib.save(nib.Nifti1Image(grown.round().short().numpy(), np.eye(4)), path)
    return path


def memory(folder: Path, quick: bool) -> list[dict[str, Any]]:
    """Peak memory of a separate process that extracts features of one large volume and reads the next one early."""
    path, checks = large_volume(folder), []
    few = {"slices": 16} if quick else {}
    # Beyond one chunk, memory does not depend on the number of slices: a tenth of the 512 x 512 planes is enough.
    maisi = {**RadImageNetExtractor.variants["maisi-compat"], "centre_ratio": 0.05 if quick else 0.2}
    for name, settings in (("peak_mib_fixed_window", few), ("peak_mib_maisi_compat", maisi)):
        command = [sys.executable, __file__, "--memory", str(path), json.dumps(settings)]
        child = subprocess.run(command, check=True, capture_output=True, text=True)
        peak = float(child.stdout)
        checks.append(check(name, peak, "< 2560", peak < LIMIT_MIB))
    return checks


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print the checks as JSON")
    parser.add_argument("--quick", action="store_true", help="fewer slices and one repeat: a test, not a measurement")
    parser.add_argument("--memory", nargs=2, metavar=("FILE", "SETTINGS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory:
        ours([Path(arguments.memory[0])] * 2, json.loads(arguments.memory[1]), Path())  # the second is read early
        print(resident_mib(peak=True))
        return 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        random_weights(folder / WEIGHTS.repo / WEIGHTS.file)
        os.environ |= {pretrained.ENVIRONMENT: str(folder), pretrained.OFFLINE: "1"}
        quick = arguments.quick
        checks = [*speed(folder, quick), *default_network(folder, quick), *memory(folder, quick)]
    return concluded(checks, arguments.json)


if __name__ == "__main__":
    sys.exit(main())
