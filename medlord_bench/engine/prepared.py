"""The prepared images of a run, as training and metrics see them: on the protocol's grid, memory-mapped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from medlord_bench.contracts import DataProtocol, LabelMap, Split, Volume
from medlord_bench.engine.store import StoredObject
from medlord_bench.errors import UserError
from medlord_bench.volumes.arrays import read_hu

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

HU, LABELS = ".npy", ".labels.npy"


class StoredCohort:
    """`contracts.Cohort` over the store's `images` object. Case ids are item ids."""

    def __init__(self, images: StoredObject, protocol: DataProtocol, splits: Mapping[Split, Sequence[str]]) -> None:
        self.images, self.protocol, self.splits = images, protocol, splits

    def ids(self, split: Split) -> Sequence[str]:
        return self.splits[split]

    def hu_path(self, case_id: str) -> Path:
        """The prepared image: int16 `.npy`, HU."""
        return self.images.file(case_id, HU)

    def mask_path(self, case_id: str) -> Path | None:
        """The prepared mask: uint8 `.npy`; None if the case has none."""
        path = self.images.file(case_id, LABELS)
        return path if path.exists() else None

    def hu(self, case_id: str) -> NDArray[np.int16]:
        return read_hu(self.hu_path(case_id))

    def labels(self, case_id: str) -> NDArray[np.uint8] | None:
        import numpy as np

        path = self.mask_path(case_id)
        return None if path is None else np.load(path, mmap_mode="r", allow_pickle=False)

    @cached_property
    def label_names(self) -> Mapping[int, str]:
        """Label value to region name; the same for every case of a data set."""
        names: dict[int, str] = {}
        for split in self.splits.values():
            for case_id in split:
                for value, name in self.images.sidecar(case_id).facts["names"].items():
                    if names.setdefault(int(value), name) != name:
                        raise UserError(
                            f"case {case_id}: label {value} is {name!r} here and {names[int(value)]!r} in another case; "
                            "one data set needs one label table"
                        )
        return names

    def case_of(self, item: str) -> str:
        """The data set's own id of the case that an item is."""
        return str(self.images.sidecar(item).facts["case"])

    def affine(self, case_id: str) -> NDArray[np.float64]:
        import numpy as np

        return np.array(self.images.sidecar(case_id).facts["affine"], dtype=np.float64)

    def spacing(self, case_id: str) -> tuple[float, float, float]:
        """Voxel size of the prepared image in mm: the case's own where the protocol has no nominal one."""
        x, y, z = ((self.affine(case_id)[:3, :3] ** 2).sum(axis=0) ** 0.5).tolist()
        return x, y, z

    def volume(self, case_id: str) -> Volume:
        """The prepared image as a `Volume`."""
        import numpy as np

        return Volume(np.asarray(self.hu(case_id)), self.affine(case_id))

    def label_map(self, case_id: str) -> LabelMap:
        """The prepared mask as a `LabelMap`. Raises `UserError` if the case has none."""
        import numpy as np

        labels = self.labels(case_id)
        if labels is None:
            raise UserError(
                f"case {case_id}: no mask, but conditional sampling needs one; give masks or --no-conditional"
            )
        return LabelMap(np.asarray(labels), self.affine(case_id), self.label_names)
