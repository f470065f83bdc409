"""HU statistics of each labelled tissue, painting it, and painting over a region."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medlord_bench.contracts import Cohort, LabelMap, Run, Shape
from medlord_bench.errors import Stopped, UserError
from medlord_bench.util import seeds
from medlord_bench.volumes.arrays import load_state, save_state
from medlord_bench.volumes.noise import noise_of

BODY = "body"  # the label of unlabelled tissue inside the skin; label 0 is then outside
FILE = "tissue.safetensors"
SOFT_TISSUE_HU = (-150, 150)  # HU of fat, muscle and blood without contrast
SHELL_VOXELS = 4  # width of a region's surroundings in voxels
MIN_SOFT_VOXELS = 50  # smallest number of voxels of soft tissue for its statistics


@dataclass(frozen=True)
class Tissue:
    """HU of the labels of a label table, 256 entries each; NaN where no training case has the label.

    level: mean over the cases of the label's median. between: standard deviation of those medians over the cases.
    noise: median over the cases of the standard deviation of the noise, from differences of neighbours inside the
    label. Medians and differences, since a label contains more than its tissue: vessels in the lungs, fat and muscle in
    the body, the table outside it. background: if no label is `body`, the mean of label 0 at each voxel
    (X, Y, Z), since label 0 is then both air and tissue; None if there is one.
    """

    level: NDArray[np.float64]
    between: NDArray[np.float64]
    noise: NDArray[np.float64]
    background: NDArray[np.float32] | None

    @classmethod
    def read(cls, folder: Path) -> Tissue:
        state = load_state(folder / FILE)
        return cls(state["level"], state["between"], state["noise"], state.get("background"))

    def paint(self, labels: LabelMap, seed: int) -> NDArray[np.float32]:
        """HU (X, Y, Z) that follow the labels to the voxel: one draw of the level of each label, and white noise.

        Raises `UserError` for a label that no training case has.
        """
        unknown = [value for value in np.unique(labels.labels).tolist() if np.isnan(self.level[value])]
        if unknown:
            names = ", ".join(str(labels.names.get(value, value)) for value in unknown)
            raise UserError(f"no training case has the label {names}, so its HU are unknown; exclude such cases")
        rng = seeds.numpy_rng(seed, "oracle")
        level = self.level + self.between * rng.standard_normal(256)
        hu = level.astype(np.float32)[labels.labels]
        if self.background is not None:
            outside = labels.labels == 0
            hu[outside] = self.background[outside]
        white = rng.standard_normal(labels.shape, dtype=np.float32)
        painted: NDArray[np.float32] = hu + self.noise.astype(np.float32)[labels.labels] * white
        return painted


def measure(data: Cohort, ids: Sequence[str], folder: Path, run: Run) -> Path:
    """HU statistics of the labels of these cases. Raises `UserError` if one has no mask."""
    medians, noises = np.full((2, len(ids), 256), np.nan)
    background = None if BODY in data.label_names.values() else _Background(data.protocol.grid.shape)
    for row, case_id in enumerate(ids):
        if run.stop():
            raise Stopped(f"stopped before case {case_id}; run the same command again")
        labels, hu = data.labels(case_id), data.hu(case_id)
        if labels is None:
            raise UserError(f"case {case_id}: no mask, but this control paints masks; give masks, or remove it")
        for value in np.unique(labels).tolist():
            inside = labels == value
            medians[row, value] = np.median(hu[inside])
            noises[row, value] = noise_of(hu, inside)
        if background is not None:
            background.add(hu, labels == 0)
    known = ~np.isnan(medians).all(axis=0)
    state: dict[str, NDArray[Any]] = {name: np.full(256, np.nan) for name in ("level", "between", "noise")}
    state["level"][known] = np.nanmean(medians[:, known], axis=0)
    state["between"][known] = np.nanstd(medians[:, known], axis=0)
    state["noise"][known] = np.nanmedian(noises[:, known], axis=0)
    if background is not None:
        state["background"] = background.mean()
    save_state(folder / FILE, state)
    return folder


class _Background:
    """The mean of label 0 at each voxel; 0 HU, as water, if no case has label 0."""

    def __init__(self, shape: Shape) -> None:
        self.total, self.count = np.zeros(shape, np.float32), np.zeros(shape, np.int32)

    def add(self, hu: NDArray[np.int16], outside: NDArray[np.bool_]) -> None:
        self.total[outside] += hu[outside]
        self.count += outside

    def mean(self) -> NDArray[np.float32]:
        return (self.total / np.maximum(self.count, 1)).astype(np.float32)


def mask_of(labels: LabelMap, region: str) -> NDArray[np.bool_]:
    """A region's mask. Raises `UserError` if the label table does not define it."""
    try:
        return labels.region(region)
    except KeyError:
        known = ", ".join(labels.names.values())
        raise UserError(f"region {region!r}: not in the data set's label table ({known}); expected one of it") from None


def without_label(labels: LabelMap, region: str) -> LabelMap:
    """The label map with a region assigned to the body, or to the background if no label is `body`."""
    body = next((value for value, name in labels.names.items() if name == BODY), 0)
    return LabelMap(np.where(mask_of(labels, region), body, labels.labels), labels.affine, labels.names)


def painted_over(hu: NDArray[np.int16], labels: LabelMap, region: str, seed: int) -> NDArray[Any] | None:
    """The volume with a region and its rim painted with the soft tissue around it; None if there is no soft tissue.

    The rim is one voxel, which contains the region's partial volume. Voxels of other named regions are unchanged.
    Mean and standard deviation are those of soft tissue of no named region within four voxels of the rim; if there
    is almost none, of the whole volume.
    """
    from scipy.ndimage import binary_dilation

    target = mask_of(labels, region)
    if not target.any():
        return hu
    body = [value for value, name in labels.names.items() if name == BODY]
    free = np.isin(labels.labels, [0, *body])
    box = tuple(
        slice(max(int(where.min()) - SHELL_VOXELS - 2, 0), int(where.max()) + SHELL_VOXELS + 3)
        for where in np.nonzero(target)
    )
    rim = binary_dilation(target[box])
    shell = binary_dilation(rim, iterations=SHELL_VOXELS) & ~rim
    soft = free[box] & (hu[box] > SOFT_TISSUE_HU[0]) & (hu[box] < SOFT_TISSUE_HU[1])
    around = hu[box][shell & soft]
    if around.size < MIN_SOFT_VOXELS:
        around = hu[free & ~target & (hu > SOFT_TISSUE_HU[0]) & (hu < SOFT_TISSUE_HU[1])]
    if around.size < MIN_SOFT_VOXELS:
        return None
    out = np.array(hu, dtype=np.float64)
    paint = rim & (target[box] | free[box])
    noise = seeds.numpy_rng(seed, "drop-region").standard_normal(int(paint.sum()))
    out[box][paint] = around.mean() + around.std() * noise
    return out
