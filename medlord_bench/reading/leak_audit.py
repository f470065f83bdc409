"""Whether a number of a file that is not its picture says which source made it: exact tests over the cases."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medlord_bench.errors import UserError
from medlord_bench.stats import separation
from medlord_bench.stats.paired import holm

from .leak_files import Leak

P = 0.001  # a leak: p below it, after Holm; at 0.01 one clean pack in a hundred would be refused
AREA, P_SUSPECT = 0.9, 0.01  # worth a note: an AUC or a p that chance reaches now and then in few cases
PADDING = 0.05  # worth a note: the share of a source's voxels that is padding
PADDED = (
    "padding",
    "border_share",
    "equal_planes",
)  # quantities of padding: perfect separation is worth a note in few cases
REPEATS = ("first reading", "hidden repeat")
LARGEST = 2**31  # bytes of a volume that is read
CHUNK = 2**22  # values at a time, since an index takes 8 bytes of each
Values = NDArray[Any]
Quantities = Mapping[str, float]


@dataclass(frozen=True)
class Finding:
    """One quantity and one source against all others. p: after Holm over all quantities and sources."""

    quantity: str
    source: str
    auc: float
    p: float

    @property
    def leak(self) -> bool:
        return self.p < P

    @property
    def suspect(self) -> bool:
        return not self.leak and (self.p < P_SUSPECT or max(self.auc, 1 - self.auc) >= AREA)

    def __str__(self) -> str:
        return f"{self.quantity} tells source {self.source!r} from the others (AUC {self.auc:.2f}, p {self.p:.2g})"


def audit(quantities: Mapping[str, Quantities], labels: Mapping[str, str], waived: Sequence[str] = ()) -> list[Finding]:
    """Every quantity that varies, and every source against the others. quantities: of each case, by its code.

    Cases without a label are left out. A quantity that some cases lack is compared as whether a case has it.
    """
    codes = [code for code in quantities if code in labels]
    sources = sorted({labels[code] for code in codes})
    if len(sources) < 2:
        return []
    tests: list[tuple[str, str, float, float]] = []
    names = sorted({name for code in codes for name in quantities[code]} - set(waived))
    for name in names:
        values = np.array([quantities[code].get(name, math.nan) for code in codes])
        values = np.isnan(values).astype(float) if np.isnan(values).any() else values
        if len(np.unique(values)) < 2:
            continue
        for source in sources[: 1 if len(sources) == 2 else None]:
            own = np.array([labels[code] == source for code in codes])
            found = separation(values[own], values[~own])
            tests.append((name, source, found.auc, found.p))
    if not tests:
        return []
    adjusted = holm([p for *_, p in tests]).tolist()
    return [Finding(name, source, auc, p) for (name, source, auc, _), p in zip(tests, adjusted, strict=True)]


def leaks_of(findings: Sequence[Finding]) -> list[Leak]:
    """The strongest finding of each quantity that is a leak."""
    found: dict[str, Finding] = {}
    for one in sorted(findings, key=lambda one: one.p):
        if one.leak:
            found.setdefault(one.quantity, one)
    return [Leak("cases", str(one)) for one in found.values()]


def repeat_leaks(
    quantities: Mapping[str, Quantities], repeated: Mapping[str, bool], waived: Sequence[str] = ()
) -> list[Leak]:
    """Quantities that tell hidden repeats from first readings. repeated: of each code. The order is left out: repeats come
    later by design."""
    labels = {code: REPEATS[repeat] for code, repeat in repeated.items()}
    found = audit(quantities, labels, (*waived, "order"))
    return [
        Leak("cases", f"{one.quantity} tells hidden repeats from first readings (AUC {one.auc:.2f}, p {one.p:.2g})")
        for one in found
        if one.leak
    ]


def padding_notes(
    quantities: Mapping[str, Quantities], labels: Mapping[str, str], findings: Sequence[Finding]
) -> list[str]:
    """Padding that says something even in few cases: much of it in a source, or a share that separates sources perfectly."""
    shares: dict[str, list[float]] = {}
    for code, own in quantities.items():
        if code in labels and "padding" in own:
            shares.setdefault(labels[code], []).append(own["padding"])
    medians = {source: float(np.median(found)) for source, found in sorted(shares.items())}
    notes = [
        f"source {source!r}: {median:.0%} of the voxels of a case are padding (median)"
        for source, median in medians.items()
        if median > PADDING
    ]
    perfect = [one for one in findings if one.quantity in PADDED and one.auc in (0, 1) and not one.leak]
    return [
        *notes,
        *(
            f"{one.quantity} separates source {one.source!r} from the others perfectly: padding is visible"
            for one in perfect
        ),
    ]


def too_few(labels: Mapping[str, str], quantities: int) -> str:
    """A note if even perfect separation of the largest source could not be found."""
    counts = [list(labels.values()).count(source) for source in set(labels.values())]
    if len(counts) < 2:
        return "all cases are of one source: the audit needs two"
    best = min(2 / math.comb(sum(counts), count) for count in counts)
    tests = quantities * (1 if len(counts) == 2 else len(counts))
    if best * tests >= P:
        return f"{sum(counts)} cases are too few for the audit: even a perfect separation could be chance; it needs about 20"
    return ""


def quantities_of(values: Values, spacing: Sequence[float] = ()) -> dict[str, float]:
    """Quantities of a volume that are not its picture, (X, Y, Z) or flat if its shape is unknown."""
    numbers = values.astype(np.float64) if values.dtype.kind == "f" else values
    finite = numbers[np.isfinite(numbers)] if values.dtype.kind == "f" else numbers.ravel()
    if not finite.size:
        return {"not_finite": 1.0}
    found = {
        "minimum": float(finite.min()),
        "maximum": float(finite.max()),
        "unique": float(_different(finite)),
        "non_integer": float((finite != np.rint(finite)).mean()) if values.dtype.kind == "f" else 0.0,
        "not_finite": 1.0 - finite.size / numbers.size,
    }
    found |= {f"shape_{axis}": float(n) for axis, n in zip("xyz", values.shape, strict=False)}
    found |= {f"spacing_{axis}": float(step) for axis, step in zip("xyz", spacing, strict=False)}
    if values.ndim == 3:
        shell, counts = np.unique(np.concatenate([one.ravel() for one in _faces(numbers)]), return_counts=True)
        found |= {"border": float(shell[counts.argmax()]), "border_share": float(counts.max() / counts.sum())}
        found |= {"padding": _padding(numbers), "equal_planes": float(_equal_planes(numbers))}
    return found


def _padding(values: Values) -> float:
    """Share of voxels outside the smallest box that has all voxels above the minimum."""
    above = values > values[np.isfinite(values)].min()
    box = 1
    for axis in range(3):
        at = np.flatnonzero(above.any(axis=tuple(other for other in range(3) if other != axis)))
        box *= int(at[-1] - at[0] + 1) if at.size else 0
    return 1 - box / values.size


def _equal_planes(values: Values) -> int:
    """How many of the six outermost planes are equal to their neighbours, as copied or padded ones are."""
    return sum(
        bool(np.array_equal(values.take(end, axis), values.take(inner, axis)))
        for axis in range(3)
        if values.shape[axis] > 1
        for end, inner in ((0, 1), (-1, -2))
    )


def _different(values: Values) -> int:
    """How many different values there are; 16-bit ones are marked and not sorted, which is ten times as fast."""
    if values.dtype not in (np.int16, np.uint16):
        return len(np.unique(values))
    seen = np.zeros(2**16, dtype=bool)
    flat = values.ravel().view(np.uint16)
    for start in range(0, flat.size, CHUNK):
        seen[flat[start : start + CHUNK]] = True
    return int(np.count_nonzero(seen))


def _faces(values: Values) -> list[Values]:
    """The outermost voxels; those of edges more than once."""
    return [values.take(end, axis) for axis in range(3) for end in (0, -1)]


def read_values(
    paths: Sequence[Path], shape: Sequence[int], spacing: Sequence[float]
) -> tuple[Values, Sequence[float]]:
    """Voxels and voxel size of a case from the first format that can be read safely. shape: of raw files, if known.

    Raises `UserError` if there is none.
    """
    for path in paths:
        if path.suffix == ".i16":
            values = np.fromfile(path, dtype="<i2", count=LARGEST // 2)
            return (values.reshape(shape) if math.prod(shape) == values.size else values), spacing
    for path in paths:
        name = path.name.lower()
        if name.endswith((".nii", ".nii.gz")):
            return _nifti(path)
        if name.endswith(".mha"):
            return _mha(path)
    series = [path for path in paths if path.suffix.lower() not in (".png", ".json", ".txt")]
    if series:
        return _dicom(series)
    raise UserError(f"{paths[0]}: no volume that can be read; expected i16, NIfTI, MetaImage or DICOM")


def _nifti(path: Path) -> tuple[Values, Sequence[float]]:
    import nibabel as nib

    try:
        image = nib.load(path)
        _size(path, math.prod(image.shape) * max(image.get_data_dtype().itemsize, 4))
        values = np.asanyarray(image.dataobj)
        return values.reshape(values.shape[:3]), [float(step) for step in image.header.get_zooms()[:3]]
    except UserError:
        raise
    except Exception as error:  # nibabel raises many kinds for a damaged file
        raise UserError(f"{path}: cannot be read ({type(error).__name__})") from None


def _mha(path: Path) -> tuple[Values, Sequence[float]]:
    import SimpleITK as sitk

    with open(path, "rb") as file:
        head, _, place = file.read(2**16).decode("latin-1").partition("ElementDataFile")
    fields = {name.strip(): value.split() for name, _, value in (line.partition("=") for line in head.splitlines())}
    if not place.lstrip(" =").startswith("LOCAL"):
        raise UserError(f"{path}: its voxels are in another file; expected ElementDataFile = LOCAL")
    voxels = math.prod(int(size) for size in fields.get("DimSize", []) if size.isdigit())
    packed = fields.get("CompressedData") == ["True"]
    _size(path, voxels * 8 if packed else path.stat().st_size)
    if not packed and voxels > path.stat().st_size:
        raise UserError(f"{path}: its header asks for more voxels than the file has")
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError:
        raise UserError(f"{path}: cannot be read; the file is damaged") from None
    return sitk.GetArrayFromImage(image).T, image.GetSpacing()


def _dicom(paths: Sequence[Path]) -> tuple[Values, Sequence[float]]:
    from .dicom import require_pydicom

    pydicom = require_pydicom()
    try:
        _size(paths[0], sum(path.stat().st_size for path in paths))
        slices = [pydicom.dcmread(path) for path in paths]
        if any(one.file_meta.TransferSyntaxUID.is_compressed for one in slices):
            raise UserError(f"{paths[0]}: compressed DICOM; expected uncompressed: decompress the series")
        slices.sort(key=lambda one: float(one.ImagePositionPatient[2]))
        first = slices[0]
        slope, intercept = float(first.get("RescaleSlope", 1)), float(first.get("RescaleIntercept", 0))
        values = np.stack([one.pixel_array.T for one in slices], axis=-1)
        if (slope, intercept) != (1.0, 0.0):
            values = values * slope + intercept
        thickness = first.get("SpacingBetweenSlices", first.get("SliceThickness", 0))
        return values, [float(first.PixelSpacing[1]), float(first.PixelSpacing[0]), float(thickness)]
    except UserError:
        raise
    except Exception as error:  # pydicom raises many kinds for a damaged file
        raise UserError(f"{paths[0]}: DICOM cannot be read ({type(error).__name__})") from None


def _size(path: Path, size: int) -> None:
    if size > LARGEST:
        raise UserError(f"{path}: {size / 1e9:.1f} GB, expected at most {LARGEST / 1e9:.1f} GB in one volume")
