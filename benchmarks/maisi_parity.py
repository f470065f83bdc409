"""`maisi-compat` features and their Fréchet distance compared with the MAISI script on the same volumes.

    python benchmarks/maisi_parity.py --script compute_fid_2-5d_ct.py [--hub resnet.py] [--ratio 0.4] [--size 96]
        [--json]

The script is not part of this project: fetch `generation/maisi/scripts/compute_fid_2-5d_ct.py` of
Project-MONAI/tutorials or `scripts/compute_fid_2-5d_ct.py` of NVIDIA-Medtech/NV-Generate-CTMR. The script requires a
GPU and internet access. This benchmark replaces a few expressions, so that the script runs offline on a CPU and loads
its network from a local file, and prints the replacements as a patch. --hub: the file that defines the script's
network, `radimagenet_models/models/resnet.py` of Warvito/radimagenet-models or `radimagenet/resnet.py` of
Project-MONAI/perceptual-models; without it the script uses the bench's network before batch norms are folded. Both
sides read one file of random weights in the layout of the real file. The volumes are cut from real CT
(MEDLORD_BENCH_TEST_DATA): four from one patient against four from another, in the orientation of their files. The exit
code is 1 if the distances of a plane differ by more than 1e-4 (relative).
"""

from __future__ import annotations

import argparse
import difflib
import importlib.util
import logging
import os
import re
import socket
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from features import ours, random_weights
from targets import check, concluded
from torch import Tensor, nn

from medlord_bench import stats
from medlord_bench.nn import pretrained
from medlord_bench.nn.checkpoints import load_strict, read_torch
from medlord_bench.plugins.extractors.radimagenet.extractor import WEIGHTS, RadImageNetExtractor
from medlord_bench.plugins.extractors.radimagenet.network import ResNet50

PLANES = {"XY": "axial", "YZ": "sagittal", "ZX": "coronal"}  # name in the script -> name in the bench
PATIENTS = {"real": "thorax_cta/ct.nii.gz", "synth": "chest_lung1/ct.nii.gz"}
PATCHES = 4
CHANGES = (
    (r"^import fire$", "# import fire"),
    (r'backend="nccl"', 'backend="gloo"'),
    (r'torch\.device\("cuda", local_rank\)', 'torch.device("cpu")'),
    (r"torch\.cuda\.set_device\(device\)", "pass"),
    (r"num_workers=6", "num_workers=0"),
    (r"torch\.hub\.load\(", "LOCAL_HUB("),
)


def patched(script: Path) -> str:
    """The script's text, changed for an offline CPU; prints the patch to stderr. Every pattern must match."""
    text = script.read_text()
    changed = text
    for pattern, replacement in CHANGES:
        changed, count = re.subn(pattern, replacement, changed, flags=re.MULTILINE)
        if not count:
            sys.exit(f"{script}: no match for {pattern!r}; expected compute_fid_2-5d_ct.py of MAISI")
    lines = difflib.unified_diff(text.splitlines(), changed.splitlines(), script.name, "patched", "", "", 0, "")
    print("\n".join(lines), file=sys.stderr)
    return changed


class Plain(nn.Module):
    """The bench's network with the interface of the script: not folded, output with spatial axes."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.network = ResNet50()
        load_strict(self.network, read_torch(file), str(file))

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)[:, :, None, None]  # (N, C) -> (N, C, 1, 1)


def their_network(hub: Path | None, file: Path) -> nn.Module:
    if hub is None:
        return Plain(file)
    sys.modules.setdefault("gdown", types.ModuleType("gdown"))  # the file imports gdown, but only downloads use it
    spec = importlib.util.spec_from_file_location("their_resnet", hub)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network: nn.Module = module.radimagenet_resnet50(str(file.parent), file.name)
    return network


def cut(folder: Path, size: int) -> dict[str, list[Path]]:
    """Cubes of at most `size` voxels, one from each quarter of each patient's volume, in the files' orientation."""
    data = os.environ.get("MEDLORD_BENCH_TEST_DATA")
    if not data:
        sys.exit("MEDLORD_BENCH_TEST_DATA is not set; set it to the folder of real CT")
    found: dict[str, list[Path]] = {}
    for side, name in PATIENTS.items():
        image = nib.load(Path(data) / name)
        for index in range(PATCHES):
            corner = [
                (length - min(size, length)) * part // 4
                for length, part in zip(
                    image.shape, (1 + 2 * (index % 2), 1 + 2 * (index // 2), 1 + index // 2), strict=True
                )
            ]
            part = image.slicer[tuple(slice(start, start + size) for start in corner)]
            path = folder / side / f"{index}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(np.asarray(part.dataobj).astype(np.int16), part.affine), path)
            found.setdefault(side, []).append(path)
    return found


class Distances(logging.Handler):
    """Reads the FID per plane from the script's log, at full precision."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        match = re.fullmatch(r"FID (XY|YZ|ZX): (.+)", record.getMessage())
        if match:
            self.found[match[1]] = float(match[2])


def theirs(
    script: Path, hub: Path | None, file: Path, paths: dict[str, list[Path]], ratio: float | None, folder: Path
) -> tuple[dict[str, float], dict[str, list[dict[str, np.ndarray]]]]:
    """The script's distances, and the features that the script writes to files."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {
        "RANK": "0",
        "WORLD_SIZE": "1",
        "LOCAL_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    module: dict[str, Any] = {"__name__": "maisi", "LOCAL_HUB": lambda *_, **__: their_network(hub, file)}
    exec(compile(patched(script), str(script), "exec"), module)
    module["logger"].setLevel(logging.INFO)
    module["logger"].propagate = False
    module["logger"].handlers = [log := Distances()]
    settings: dict[str, Any] = {}
    for side, files in paths.items():
        (folder / f"{side}.txt").write_text("\n".join(path.name for path in files))
        settings |= {
            f"{side}_dataset_root": str(folder / side),
            f"{side}_filelist": str(folder / f"{side}.txt"),
            f"{side}_features_dir": side,
        }
    output = folder / "features"
    module["main"](
        **settings,
        enable_center_slices_ratio=ratio,
        enable_padding=False,
        enable_center_cropping=False,
        output_root=str(output),
    )
    features = {
        side: [
            {plane: tensor.numpy() for plane, tensor in zip(PLANES.values(), torch.load(path), strict=True)}
            for path in sorted((output / side).glob("*.pt"))
        ]
        for side in paths
    }
    return log.found, features


def compare(arguments: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    file = random_weights(folder / WEIGHTS.repo / WEIGHTS.file)
    os.environ |= {pretrained.ENVIRONMENT: str(folder), pretrained.OFFLINE: "1"}
    paths = cut(folder, arguments.size)
    expected, their_features = theirs(arguments.script, arguments.hub, file, paths, arguments.ratio, folder)
    settings = {**RadImageNetExtractor.variants["maisi-compat"], "centre_ratio": arguments.ratio or 1.0}
    found = {side: ours(files, settings, folder) for side, files in paths.items()}
    checks = []
    for theirs_name, plane in PLANES.items():
        real, synth = (np.concatenate([state[plane] for state in found[side]]) for side in ("real", "synth"))
        differences = [
            np.abs(mine[plane] - other[plane]).max() / np.abs(other[plane]).max()
            for side in paths
            for mine, other in zip(found[side], their_features[side], strict=True)
        ]
        distance = stats.frechet_distance(synth, real)
        relative = abs(distance - expected[theirs_name]) / expected[theirs_name]
        print(
            f"{theirs_name}: script {expected[theirs_name]:.9g}, bench {distance:.9g}; {len(synth)} and {len(real)} "
            f"slices; features differ by at most {max(differences):.1e} of the largest",
            file=sys.stderr,
        )
        row = check(f"fid_{theirs_name}_relative_difference", 0, "<= 1e-4", relative <= 1e-4)
        checks.append({**row, "value": float(f"{relative:.2g}")})
    return checks


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--script", type=Path, required=True, help="compute_fid_2-5d_ct.py")
    parser.add_argument("--hub", type=Path, help="resnet.py of the hub repository that the script loads")
    parser.add_argument("--ratio", type=float, help="the script's --enable_center_slices_ratio; not given: all slices")
    parser.add_argument("--size", type=int, default=96, help="voxels per side of the volumes, at most 128")
    parser.add_argument("--json", action="store_true", help="print the checks as JSON")
    arguments = parser.parse_args()
    if not 32 <= arguments.size <= 128:
        parser.error("--size: expected 32 to 128")
    with tempfile.TemporaryDirectory() as folder:
        checks = compare(arguments, Path(folder))
    return concluded(checks, arguments.json)


if __name__ == "__main__":
    sys.exit(main())
