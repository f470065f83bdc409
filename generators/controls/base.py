"""Code shared by the controls: they keep some volumes of the cohort as weights, and return them, degraded or not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from medlord_bench.contracts import (
    Capability,
    Cohort,
    DataProtocol,
    Dependencies,
    Failure,
    FrozenConfig,
    Purpose,
    Request,
    Run,
    Split,
    Stage,
    Volume,
)
from medlord_bench.contracts.regions import members
from medlord_bench.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .kept import Kept

VOLUMES = "volumes"  # the one training stage of most controls


class ControlConfig(FrozenConfig):
    """The settings of every control that keeps volumes."""

    volumes: int = Field(64, ge=1, description="largest number of volumes kept, the first in order of case id")


class Control:
    """A generator whose weights are volumes of one split of the cohort.

    A control implements `draw`. name: of its entry point. split: the split whose volumes it keeps; "val" is real and
    unseen, and not the reference of any metric.
    """

    name: ClassVar[str]
    Config: ClassVar[type[ControlConfig]] = ControlConfig
    version: ClassVar[int] = 1
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    capabilities: frozenset[Capability] = frozenset({"unconditional"})
    control: ClassVar[bool] = True
    split: ClassVar[Split] = "val"
    with_labels: ClassVar[bool] = False

    def __init__(self, config: Any) -> None:
        self.config = config

    def check(self, data: DataProtocol) -> None:
        """Raises `UserError` if the split of its volumes is empty."""
        if not data.counts.get(self.split):
            raise UserError(
                f"control {self.name}: the {self.split} split of {data.name} has no case; expected at least one: "
                "raise dataset.n_val, dataset.split.fractions or dataset.split.counts"
            )

    def available(self, data: DataProtocol) -> int | None:
        """One sample per kept volume; none is returned twice."""
        return min(data.counts[self.split], self.config.volumes)

    def stages(self) -> Sequence[Stage]:
        return (Stage(VOLUMES, ("volumes",)),)

    def dependencies(self, purpose: Purpose) -> Dependencies:
        return Dependencies((VOLUMES,), tuple(name for name in type(self.config).model_fields if name != "volumes"))

    def train(self, stage: Stage, data: Cohort, inputs: Mapping[str, Path], out: Path, run: Run) -> Path:
        """Keep the first volumes of the split, in order of case id."""
        from .kept import keep

        return keep(data, sorted(data.ids(self.split))[: self.config.volumes], self.with_labels, out / "weights", run)

    def adopt(self, stage: Stage, source: Path, data: Cohort, inputs: Mapping[str, Path], out: Path, run: Run) -> Path:
        raise UserError(f"--weights {source}: control {self.name} has no weights to load; remove --weights")

    def sample(self, weights: Mapping[str, Path], requests: Sequence[Request], run: Run) -> Iterator[Volume | Failure]:
        from .kept import Kept, on_grid

        kept = Kept.read(weights[VOLUMES])
        for request in requests:
            made = self.draw(kept, request)
            yield made if isinstance(made, Failure) else on_grid(made, request.grid)

    def draw(self, kept: Kept, request: Request) -> NDArray[Any] | Failure:
        """One sample in HU (X, Y, Z), of any number type; it is rounded and clipped to the grid's window afterwards."""
        raise NotImplementedError

    def reconstruct(
        self, weights: Mapping[str, Path], volumes: Iterable[tuple[str, Volume]], run: Run
    ) -> Iterator[Volume | Failure]:
        raise UserError(f"control {self.name} has no autoencoder")


class Degraded(Control):
    """A control that degrades unseen real volumes, and reconstructions of the test volumes in the same way.

    A control implements `degrade`.
    """

    capabilities: frozenset[Capability] = frozenset({"unconditional", "reconstructs"})

    def degrade(self, hu: NDArray[Any]) -> NDArray[Any]:
        """The degraded volume: HU (X, Y, Z) to HU of the same shape."""
        raise NotImplementedError

    def draw(self, kept: Kept, request: Request) -> NDArray[Any] | Failure:
        return self.degrade(kept.hu(request.index))

    def reconstruct(
        self, weights: Mapping[str, Path], volumes: Iterable[tuple[str, Volume]], run: Run
    ) -> Iterator[Volume | Failure]:
        from .kept import Kept, rounded

        window = Kept.read(weights[VOLUMES]).hu_window
        for _, volume in volumes:
            yield Volume(rounded(self.degrade(volume.hu), window), volume.affine)


def require_region(name: str, region: str, data: DataProtocol) -> None:
    """Raises `UserError` if the data set has no masks of a region. name: of the control, for the message."""
    known = dict.fromkeys((*data.rvr_regions, *data.condition_regions, *data.adherence_regions))
    if data.masks == "none" or not any(part in known for part in members(region)):
        found = ", ".join(known) if known and data.masks != "none" else "no masks"
        raise UserError(
            f"control {name}: {data.name} has no mask of {region!r} (it has {found}); "
            f"expected one: set {name}.region, or remove this control"
        )
