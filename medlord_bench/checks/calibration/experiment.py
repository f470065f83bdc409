"""The run of `calibrate`: every control through every metric, on the phantom or on a user's own data set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medlord_bench.contracts import DataProtocol, specs
from medlord_bench.engine import resolve
from medlord_bench.engine.run_file import RunFile
from medlord_bench.errors import MissingError, UserError

REGIONS = ("aorta", "left_ventricle", "lungs")  # the dropped regions: a vessel, a chamber, and the largest
STRENGTHS = {"blur": ("0.5", "1", "2"), "hu-shift": ("25", "50", "100", "200")}
FAULTS = (  # of the control `fault`
    *("gain-1.05", "gamma-0.9", "bias-50", "noise-2", "soft-bones-40"),
    *("coarse-2", "jitter-3", "shuffled-slabs-8", "slice-offsets-30", "checkerboard-30"),
    *("octants-60", "tiles-30", "nodules-12", "no-vessels-1"),
)
CONTROLS = (
    *("holdout", "copycat", "noise", "mode-collapse", "flip"),
    *(f"{name}:{strength}" for name, strengths in STRENGTHS.items() for strength in strengths),
    *("implant:low", "implant:high", "oracle"),
    *(f"fault:{name}" for name in FAULTS),
    "magnify:heart",
    *(f"drop-region:{region}" for region in REGIONS),
)
# Sixteen patients a side, which precision and recall require; HU up to 2000, so that clipping has an effect.
PHANTOM: Mapping[str, Any] = {
    "dataset.n_train": 24,
    "dataset.n_val": 16,
    "dataset.n_test": 16,
    "dataset.hu_window": [-1000, 2000],
    "fid.features.slices": 16,
    "fid.features.size": 128,
    "frd.features.spacing": [6, 6, 6],  # about its voxels: at 2 mm each volume takes a minute
    "frd:hu.features.spacing": [6, 6, 6],
}


def experiment(file: RunFile) -> tuple[RunFile, dict[str, str]]:
    """The run of all controls that the data set of `file` supports, and for the others the reason why not."""
    own = {path: value for path, value in PHANTOM.items() if path.split(".")[0] in ("dataset", *file.metrics)}
    sets = (own if file.dataset == "phantom" else {}) | file.set
    protocol = _protocol(file.dataset, sets)
    left_out: dict[str, str] = {}
    for name in CONTROLS:
        try:
            specs.make("generators", resolve.contestant(name, file.dataset, sets)).check(protocol)
        except MissingError:
            raise
        except UserError as error:
            left_out[name] = str(error)
    fits = tuple(name for name in CONTROLS if name not in left_out)
    samples = min(protocol.counts["val"], protocol.counts["test"])
    return file.model_copy(update={"generators": fits, "samples": samples, "set": sets}), left_out


def _protocol(dataset: str, sets: Mapping[str, Any]) -> DataProtocol:
    own = {path: value for path, value in sets.items() if path.startswith("dataset.")}
    spec = resolve.resolve(RunFile(generators=("noise",), dataset=dataset, metrics=(), samples=1, set=own))
    protocol: DataProtocol = specs.dataset(spec.dataset).protocol
    return protocol
