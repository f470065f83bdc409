"""`phantom`: segments the regions of the embedded phantom in phantom-like volumes, from HU and a procedural atlas
alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import ClassVar

from pydantic import Field

from medlord_bench.contracts import Failure, FrozenConfig, LabelMap, Run, Volume
from medlord_bench.plugins.phantom.labels import LABELS
from medlord_bench.util.hashing import digest


class PhantomSegmenterConfig(FrozenConfig):
    """The atlas: phantoms of a seed that no cohort should use."""

    atlases: int = Field(48, ge=8, description="number of phantoms in the atlas")
    seed: int = Field(918_273, description="seed of the atlas's phantoms; must differ from the cohort's")


class PhantomSegmenter:
    """Heart chambers, vessels, lungs and bone of generated phantoms; needs no weights, and is meaningless on real CT.

    A region without its own contrast at the expected position is missing from the map, even if the atlas expects it."""

    Config: ClassVar[type[PhantomSegmenterConfig]] = PhantomSegmenterConfig
    version: ClassVar[int] = 1
    names: ClassVar[Mapping[int, str]] = LABELS

    def __init__(self, config: PhantomSegmenterConfig) -> None:
        self.config = config

    def fingerprint(self, case_ids: Sequence[str]) -> Mapping[str, str]:
        """Only the version of the phantoms in the atlas."""
        from medlord_bench.plugins.datasets.phantom.dataset import PhantomDataset

        return {"phantom": str(PhantomDataset.version)}

    def segment(self, volumes: Iterable[tuple[str, Volume]], run: Run) -> Iterator[LabelMap | Failure]:
        """One label map per volume; a volume must show the phantom's whole field of view, on any grid."""
        from medlord_bench.plugins.segmenters.phantom.atlas import Atlas
        from medlord_bench.plugins.segmenters.phantom.fusion import segment

        decides = [self.version, *self.fingerprint(()).values(), self.config.model_dump()]
        path = run.scratch / f"phantom-atlas-{digest(decides)[:8]}.npz"
        atlas = Atlas.stored(path, self.config.atlases, self.config.seed)
        for _, volume in volumes:
            yield LabelMap(segment(volume.hu, atlas), volume.affine, self.names)
