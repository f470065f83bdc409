"""The settings of `downstream`: arms, trainer, measurement."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from medlord_bench.contracts import DataProtocol, FrozenConfig

ArmName = Literal["real", "synthetic", "real+synthetic", "mixed", "real-longer", "real-other-seed"]
ARMS: tuple[ArmName, ...] = ("real", "synthetic", "real+synthetic", "real-longer", "real-other-seed", "mixed")
MOST_MULTIPLE = 3  # times as many samples as real cases, at most
TrainerName = Literal["tiny", "nnunet"]


class DownstreamConfig(FrozenConfig):
    """What is trained on which cases, and how it is measured."""

    regions: tuple[str, ...] | None = Field(None, description="regions to segment; unset: the data set's")
    arms: tuple[ArmName, ...] = Field(
        ("real", "synthetic", "real+synthetic"), description="training sets; `real` is always among them"
    )
    doses: tuple[float, ...] = Field(
        (), description="fractions of the real training patients for a dose-response, e.g. 0.1,0.25,0.5,1"
    )
    multiples: tuple[int, ...] = Field(
        (0, 1, 2), description="samples of a dose-response for each of its real cases, each on its mask"
    )
    seeds: int = Field(1, ge=1, description="trainings of each arm, with seeds 0, 1, ...")
    trainer: TrainerName | None = Field(
        None,
        description="tiny: a small network for a few minutes of a CPU; nnunet: nnU-Net's own; unset: tiny for a data "
        "set that a program generates, else nnunet",
    )
    epochs: int | None = Field(None, ge=1, description="of the arms of base length; unset: the trainer's (12, 1000)")
    iterations: int | None = Field(None, ge=1, description="of one epoch; unset: the trainer's (25, 250)")
    planner_gb: float | None = Field(
        None, gt=0, description="memory in GB that nnU-Net plans patch and batch for; unset: nnU-Net's own 8"
    )
    on_samples: bool = Field(True, description="also let `real` predict the conditional samples of the test masks")
    budget_hours: float | None = Field(
        None,
        gt=0,
        description="train the first arms that fit into so many hours of training, by a probe on this machine: arms in "
        "their stated order, then doses from the largest",
    )
    external: str | None = Field(
        None, description="another data set with manual labels that all models are also tested on, by its name"
    )
    external_settings: dict[str, Any] = Field(
        default_factory=dict, description="settings of that data set, e.g. {data_root: DIR, label_names: {...}}"
    )
    over_budget: tuple[str, ...] = Field((), description="arms and doses left out by `budget_hours`; the bench sets it")
    tolerance_mm: float = Field(3.0, gt=0, description="of NSD")

    @field_validator("arms")
    @classmethod
    def _ordered(cls, arms: tuple[ArmName, ...]) -> tuple[ArmName, ...]:
        """In their stated order, each once, with `real`."""
        return tuple(name for name in ARMS if name in {*arms, "real"})

    @field_validator("doses")
    @classmethod
    def _fractions(cls, doses: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < dose <= 1 for dose in doses):
            raise ValueError("expected fractions above 0, up to 1")
        return tuple(sorted(set(doses)))

    @field_validator("multiples")
    @classmethod
    def _whole(cls, multiples: tuple[int, ...]) -> tuple[int, ...]:
        if any(not 0 <= multiple <= MOST_MULTIPLE for multiple in multiples) or 0 not in multiples:
            raise ValueError(f"expected whole numbers from 0 to {MOST_MULTIPLE}, and 0 among them")
        return tuple(sorted(set(multiples)))

    def for_data(self, data: DataProtocol) -> DownstreamConfig:
        """Fill unset fields from the data set's protocol."""
        trainer = self.trainer or ("tiny" if data.synthetic else "nnunet")
        regions = data.adherence_regions if self.regions is None else self.regions
        return self.model_copy(update={"regions": regions, "trainer": trainer})
