"""Label maps that already exist on disk, one file for each case."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from medlord_bench.contracts import Failure, FrozenConfig, LabelMap, LabelNames, Run, Volume
from medlord_bench.errors import MissingError, UserError
from medlord_bench.util.hashing import file_sha256
from medlord_bench.volumes.formats import SUFFIXES


class FilesConfig(FrozenConfig):
    """The folder of the label maps, and the meaning of their values."""

    folder: Path | None = Field(None, description="folder with one label map for each case, `<case id>.nii.gz`")
    label_names: LabelNames = Field({}, description="label value to region name")


class FilesSegmenter:
    """Label maps that already exist on disk.

    They must be on the same grid as the volumes."""

    Config: ClassVar[type[FilesConfig]] = FilesConfig
    version: ClassVar[int] = 1

    def __init__(self, config: FilesConfig) -> None:
        self.config = config
        self.names: Mapping[int, str] = dict(config.label_names)

    def fingerprint(self, case_ids: Sequence[str]) -> Mapping[str, str]:
        """sha256 of every label file. Raises as `segment` does if one is missing."""
        return {case_id: file_sha256(self._path(case_id)) for case_id in case_ids}

    def segment(self, volumes: Iterable[tuple[str, Volume]], run: Run) -> Iterator[LabelMap | Failure]:
        """Raises `MissingError` if a case has no file, `UserError` if it is unreadable or on another grid."""
        from medlord_bench.volumes.checks import check_same_grid
        from medlord_bench.volumes.io import read_labels

        for case_id, volume in volumes:
            path = self._path(case_id)
            labels = read_labels(path, self.names)
            check_same_grid(volume, labels, f"case {case_id}", path)
            yield labels

    def _path(self, case_id: str) -> Path:
        folder = self.config.folder
        if folder is None or not self.names:
            field = "folder" if folder is None else "label_names"
            raise UserError(f"segmenter files: {field} is not given; expected --set files.{field}=...")
        for suffix in SUFFIXES:
            path = folder / f"{case_id}{suffix}"
            if path.exists():
                return path
        raise MissingError(f"{folder / case_id}.nii.gz: not found; expected the label map of case {case_id}: add it")
