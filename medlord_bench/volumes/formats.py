"""Recognises image files by name. Imports nothing, so that data sets can be listed fast."""

from __future__ import annotations

from pathlib import Path

NIFTI = (".nii.gz", ".nii")
ITK = (".mha", ".mhd", ".nrrd", ".nhdr")
SUFFIXES = NIFTI + ITK


def suffix_of(path: Path) -> str:
    """The image suffix of a path, ".nii.gz" counted as one; empty if it cannot be read."""
    name = path.name.lower()
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")


def stem_of(path: Path) -> str:
    """The file name without its image suffix; a DICOM folder's whole name."""
    return path.name[: len(path.name) - len(suffix_of(path))]


def data_file(path: Path) -> Path | None:
    """The file that a MetaImage or NRRD header (.mhd, .nhdr) names for its values; None for other files and for a header
    that names several, or itself."""
    if path.suffix.lower() not in (".mhd", ".nhdr"):
        return None
    keys = ("elementdatafile", "data file", "datafile")
    for line in path.read_text(errors="replace").splitlines():
        key, _, value = line.partition("=" if path.suffix.lower() == ".mhd" else ":")
        if key.strip().lower() in keys and value.strip().upper() not in ("LOCAL", "LIST", ""):
            return path.parent / value.strip()
    return None
