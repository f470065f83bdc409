"""The embedded default data set: procedural contrast CT of the thorax, with its true masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from medlord_bench.contracts import Case, DataProtocol, FrozenConfig, Grid, LabelMap, Split, Volume
from medlord_bench.contracts.regions import CARDIAC
from medlord_bench.util.hashing import digest

FIELD_OF_VIEW = (352.0, 352.0, 264.0)  # mm along R, A, S; any grid covers it
Edge = Annotated[int, Field(ge=8)]


class PhantomConfig(FrozenConfig):
    """Which phantoms, on which grid."""

    shape: tuple[Edge, Edge, Edge] = Field((64, 64, 48), description="voxels along R, A, S; the field of view is fixed")
    n_train: int = Field(24, ge=0, description="patients to train on")
    n_val: int = Field(8, ge=0, description="patients for checkpoint selection")
    n_test: int = Field(8, ge=0, description="test patients")
    seed: int = Field(0, description="seed of the cohort: another seed, other patients")
    noise: float = Field(1.0, ge=0, description="factor on the scanner's noise (9 to 18 HU); 0 for none")
    hu_window: tuple[int, int] = Field((-1000, 1000), description="lowest and highest HU kept")


class PhantomDataset:
    """Procedural contrast CT of the thorax with true masks; synthetic, needs nothing.

    Regions: body, ribs (with sternum), spine, both lungs (with their vessels), four chambers, left ventricular
    myocardium, aorta, pulmonary artery. Anatomy, pose and contrast vary by patient.
    """

    Config: ClassVar[type[PhantomConfig]] = PhantomConfig
    version: ClassVar[int] = 1

    def __init__(self, config: PhantomConfig) -> None:
        self.config = config
        self._counts: dict[Split, int] = {"train": config.n_train, "val": config.n_val, "test": config.n_test}

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in mm: the field of view over the shape."""
        x, y, z = (length / n for length, n in zip(FIELD_OF_VIEW, self.config.shape, strict=True))
        return x, y, z

    @property
    def protocol(self) -> DataProtocol:
        config = self.config
        facts = {"seed": config.seed, "noise": config.noise, "version": self.version}
        return DataProtocol(
            name="phantom",
            grid=Grid(shape=config.shape, spacing=self.spacing, hu_window=config.hu_window),
            fit="crop-pad",
            split=f"generated patients in order: train, val, test; seed {config.seed}",
            split_sha256=digest(facts | {"counts": self._counts}),
            counts={str(split): n for split, n in self._counts.items()},
            masks="dataset",
            segmenter="phantom",
            synthetic=True,
            rvr_regions=(*CARDIAC, "lungs"),
            condition_regions=(*CARDIAC[:6], "lungs"),
            adherence_regions=(*CARDIAC[:6], "lungs"),
        )

    def cases(self, split: Split) -> Sequence[Case]:
        order: tuple[Split, ...] = ("train", "val", "test")
        start = sum(self._counts[earlier] for earlier in order[: order.index(split)])
        return [self._case(index) for index in range(start, start + self._counts[split])]

    def _case(self, index: int) -> Case:
        config = self.config
        facts = {"seed": config.seed, "noise": config.noise, "shape": config.shape, "version": self.version}
        name = f"phantom-{index:04d}"
        return Case(id=name, patient=name, sha256=digest(facts | {"index": index}))

    def load(self, case: Case) -> tuple[Volume, LabelMap | None]:
        import numpy as np

        from medlord_bench.plugins.phantom.anatomy import render
        from medlord_bench.plugins.phantom.labels import LABELS
        from medlord_bench.plugins.phantom.patient import draw

        patient = draw(self.config.seed, int(case.id.removeprefix("phantom-")))
        hu, labels = render(patient, self.config.shape, self.spacing, self.config.noise)
        affine = np.diag([*self.spacing, 1.0])
        affine[:3, 3] = [-(n - 1) / 2 * h for n, h in zip(self.config.shape, self.spacing, strict=True)]
        volume = Volume(np.rint(hu).clip(-1024, 3071).astype(np.int16), affine)
        return volume, LabelMap(labels, affine, LABELS)
