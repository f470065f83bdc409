"""The control that memorises: training volumes, slightly augmented."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from medlord_bench.contracts import DataProtocol, Dependencies, Failure, LabelMap, Purpose, Request, Split, Stage
from medlord_bench.util import seeds

from .base import VOLUMES, Control, ControlConfig

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .kept import Kept


class CopycatConfig(ControlConfig):
    """The difference of a copy from its original."""

    rotation: float = Field(5.0, ge=0, description="largest angle about a random axis, degrees")
    shift: float = Field(2.0, ge=0, description="largest shift along each axis, voxels; never above 1/32 of the axis")
    flips: float = Field(0.5, ge=0, le=1, description="fraction of the copies that are flipped left to right")
    noise_hu: float = Field(10.0, ge=0, description="standard deviation of the added noise, HU")
    gain: float = Field(0.02, ge=0, lt=1, description="largest relative change of the attenuation (HU + 1000)")
    masks: bool = Field(
        False, description="also draw conditional samples: for a training mask a copy of its own volume"
    )


class Copycat(Control):
    """Training volumes, rotated, shifted, some flipped, with some noise and gain: near-perfect, and memorised."""

    name: ClassVar[str] = "copycat"
    Config: ClassVar[type[CopycatConfig]] = CopycatConfig
    split: ClassVar[Split] = "train"
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {"masks": {"masks": True}}

    def __init__(self, config: CopycatConfig) -> None:
        super().__init__(config)
        if config.masks:
            self.capabilities = frozenset({"unconditional", "conditional"})

    @property
    def with_labels(self) -> bool:  # type: ignore[override]
        return bool(self.config.masks)

    def stages(self) -> Sequence[Stage]:
        return (Stage(VOLUMES, ("volumes", "masks")),)

    def dependencies(self, purpose: Purpose) -> Dependencies:
        return Dependencies((VOLUMES,), ("rotation", "shift", "flips", "noise_hu", "gain"))

    def available(self, data: DataProtocol) -> int | None:
        """Any number: the training volumes are copied in turn, each time augmented anew."""
        return None

    def draw(self, kept: Kept, request: Request) -> NDArray[Any] | Failure:
        import numpy as np

        rng = seeds.numpy_rng(request.seed, "copycat")
        own = None if request.condition is None else _volume_of(kept, request.condition)
        hu = kept.hu(request.index % len(kept.ids) if own is None else own).astype(np.float32)
        if own is None:
            if rng.random() < self.config.flips:
                hu = hu[::-1]
            hu = self._moved(hu, request.grid.spacing or (1.0, 1.0, 1.0), rng)
        gain = 1 + rng.uniform(-self.config.gain, self.config.gain)
        noise = rng.standard_normal(hu.shape, dtype=np.float32)
        copy: NDArray[Any] = (hu + 1000) * gain - 1000 + self.config.noise_hu * noise
        return copy

    def _moved(
        self, hu: NDArray[np.float32], spacing: tuple[float, float, float], rng: np.random.Generator
    ) -> NDArray[np.float32]:
        """Rotated about the volume's centre in mm and shifted in voxels, with cubic splines, since linear
        interpolation blurs; edges are replicated."""
        import numpy as np
        from scipy.ndimage import affine_transform
        from scipy.spatial.transform import Rotation

        axis = rng.standard_normal(3)
        angle = np.deg2rad(rng.uniform(-self.config.rotation, self.config.rotation))
        turn = Rotation.from_rotvec(angle * axis / np.linalg.norm(axis)).as_matrix()
        matrix = turn * np.array(spacing) / np.array(spacing)[:, None]  # voxels to mm, rotated, back to voxels
        centre = (np.array(hu.shape) - 1) / 2
        most = np.minimum(self.config.shift, np.array(hu.shape) / 32)  # two voxels of a coarse grid are a large shift
        shift = rng.uniform(-most, most)
        moved: NDArray[np.float32] = affine_transform(
            hu, matrix, centre - matrix @ centre + shift, order=3, mode="nearest"
        )
        return moved


def _volume_of(kept: Kept, mask: LabelMap) -> int | None:
    """The kept volume that has this mask; None for a mask of no kept volume, which a copy cannot follow."""
    import numpy as np

    places = range(len(kept.ids))
    return next((place for place in places if np.array_equal(kept.label_map(place).labels, mask.labels)), None)
