"""`downstream`: does synthetic data train a segmenter as well as real data? nnU-Net on each training set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from medlord_bench.contracts import DataProtocol, Item, Made, MetricInputs, Need, Run, Source, State
from medlord_bench.contracts.arms import Arm, LabelledCase
from medlord_bench.contracts.metrics import MetricProtocol, Quantity
from medlord_bench.contracts.results import CaseRow, Score
from medlord_bench.errors import UserError

from .arms import LONGER, MEANING, Dose, define
from .config import ARMS, DownstreamConfig
from .quantities import MARGIN, QUANTITIES, name_of

if TYPE_CHECKING:
    from .nnunet import Training

NEEDS = (Need(Source.PREDICTIONS, Made.STATES), Need(Source.REAL_PREDICTIONS, Made.STATES))
RULES = {
    "plan": "nnU-Net's plan of the real arm (patch, spacing, network, intensities), used by all arms",
    "synthetic cases": "conditional samples on the training masks, with those masks, unperturbed",
    "checkpoint": "the last; nothing is chosen on the test set",
    "test": "the real test cases with their masks; a prediction that is missing or failed counts as DSC 0",
    "iterations": f"equal, or {LONGER:g} times where an arm has twice the cases (control: real-longer)",
    "patient": "the median of a patient's cases and of all seeds",
    "difference": f"by patient; Wilcoxon and TOST within {MARGIN:g}, both corrected by Holm",
}


class Downstream:
    """Segmenters trained on real, synthetic and both kinds of cases, tested on real ones (the paper's Table 2).

    DSC and NSD higher is better, HD95 (mm) lower. Differences to the real arm are tested by patient.
    """

    Config: ClassVar[type[DownstreamConfig]] = DownstreamConfig
    version: ClassVar[int] = 2
    default: ClassVar[int | None] = None
    quantities: ClassVar[tuple[Quantity, ...]] = QUANTITIES
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "doses": {"doses": [0.1, 0.25, 0.5, 1.0]},
        "controls": {"arms": ["real", "synthetic", "real+synthetic", "real-longer", "real-other-seed"]},
    }

    def __init__(self, config: DownstreamConfig) -> None:
        self.config = config

    def needs(self) -> Sequence[Need]:
        """The predictions of the arms with generated cases; then those of the real arms, which contestants share."""
        return NEEDS

    def plugin_config(self) -> Mapping[str, Any]:
        return {}

    # -------------------------------------------------------------------------------------------- contracts.arms
    @property
    def predicts_samples(self) -> str:
        return "real" if self.config.on_samples else ""

    @property
    def external(self) -> tuple[str, Mapping[str, Any]] | None:
        return None if self.config.external is None else (self.config.external, self.config.external_settings)

    def arms(self, cases: Sequence[tuple[str, str]]) -> Sequence[Arm]:
        """See `arms.define`."""
        return define(self.config.arms, self.config.seeds, cases, self._doses)

    @property
    def _doses(self) -> list[Dose]:
        return [Dose(real, multiple) for real in self.config.doses for multiple in self.config.multiples]

    def training(self) -> Mapping[str, Any]:
        """What decides the models: nnU-Net's version, trainer, planner and regions."""
        from .nnunet import installed

        made = self._training
        trainer = asdict(made.trainer)
        return {
            "nnunetv2": installed(),
            "trainer": trainer,
            "planner_gb": self.config.planner_gb,
            "regions": list(made.regions),
        }

    def plan_training(self, cases: Sequence[LabelledCase], out: Path, run: Run) -> Path:
        return self._training.plan(cases, out, run)

    def train_arm(
        self,
        arm: Arm,
        cases: Sequence[LabelledCase],
        validation: Sequence[LabelledCase],
        shared: Path,
        out: Path,
        run: Run,
    ) -> tuple[Path, Mapping[str, Any]]:
        return self._training.train(arm, cases, validation, shared, out, run)

    def probe(
        self, cases: Sequence[LabelledCase], validation: Sequence[LabelledCase], shared: Path, out: Path, run: Run
    ) -> Mapping[str, float]:
        return self._training.probe(cases, validation, shared, out, run)

    def hours(self, arm: Arm, validation: int, speeds: Mapping[str, float]) -> float:
        return self._training.hours(arm, validation, speeds)

    def within(self, fits: Callable[[Sequence[Arm]], bool], cases: Sequence[tuple[str, str]]) -> Mapping[str, Any]:
        """`real` and `synthetic` first, then each further arm, then doses from the largest fraction."""
        config = self.config
        first = [name for name in config.arms if name in ("real", "synthetic")]
        groups: list[tuple[str, dict[str, Any]]] = [(" and ".join(first), {"arms": first, "doses": []})]
        for name in config.arms[len(first) :]:
            groups.append((name, {**groups[-1][1], "arms": [*groups[-1][1]["arms"], name]}))
        for dose in reversed(config.doses):
            groups.append((f"dose {dose:g}", {**groups[-1][1], "doses": [dose, *groups[-1][1]["doses"]]}))
        kept = 0
        while kept < len(groups):
            tried = Downstream(config.model_copy(update=self._validated(groups[kept][1])))
            if not fits(tried.arms(cases)):
                break
            kept += 1
        if not kept:
            raise UserError(
                f"metric downstream: {groups[0][0]} do not fit into budget_hours {config.budget_hours:g}: give more hours, "
                "fewer seeds, or fewer iterations (medlord-bench plan --probe prints the hours)"
            )
        return {**groups[kept - 1][1], "over_budget": [name for name, _ in groups[kept:]], "budget_hours": None}

    def _validated(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        checked = DownstreamConfig.model_validate({**self.config.model_dump(), **changes})
        return {name: getattr(checked, name) for name in changes}

    def segmenter(self, model: Path) -> tuple[str, Mapping[str, Any]]:
        """nnU-Net's own predictor; mirrored images are averaged where they were trained on."""
        return "nnunet", {"folder": str(model), "mirroring": self._training.trainer.mirroring}

    @property
    def _training(self) -> Training:
        """Raises `UserError` if neither the user nor the data set names regions and a trainer."""
        from .nnunet import TRAINERS, Training

        config = self.config
        if not config.regions or config.trainer is None:
            field = "trainer" if config.regions else "regions"
            raise UserError(f"metric downstream: {field} is not given; expected it: set downstream.{field}")
        trainer = TRAINERS[config.trainer]
        trainer = replace(
            trainer, epochs=config.epochs or trainer.epochs, iterations=config.iterations or trainer.iterations
        )
        return Training(config.regions, trainer, config.planner_gb)

    # -------------------------------------------------------------------------------------------------- measuring
    def protocol(self, data: DataProtocol) -> MetricProtocol:
        """Everything that decides its numbers besides the data."""
        from medlord_bench.overlap.cases import POLICY

        text: dict[str, Any] = {
            "training": dict(self.training()),
            "arms": {arm: MEANING[arm] for arm in self.config.arms} | {one.arm: one.meaning for one in self._doses},
            "seeds": self.config.seeds,
            "masks of synthetic cases": "training",
            "tolerance_mm": self.config.tolerance_mm,
            "external": self.config.external,
            "rules": RULES,
            "policy": POLICY,
        }
        return MetricProtocol(label=str(self.config.trainer), text=text)

    def extract(self, items: Iterable[Item], run: Run) -> Iterable[State]:
        """Of each predicted label map: DSC, NSD, HD95 and voxels on both sides by region: see `overlap.compare`."""
        from medlord_bench.overlap.compare import compare
        from medlord_bench.volumes.checks import item_labels, item_reference

        for item in items:
            yield compare(
                item_labels(item),
                item_reference(item),
                self._training.regions,
                item.spacing,
                self.config.tolerance_mm,
            )

    def reduce(self, inputs: MetricInputs, run: Run) -> Iterable[Score | CaseRow]:
        """DSC, NSD and HD95 of each arm and region, differences to the real arm, and every case."""
        from .scores import reduced

        items = [item for need in NEEDS for item in inputs.items.get(need, ())]
        made = [item for item in items if item.path is not None]
        if not made:
            about = {"protocol": inputs.protocol_id, "generator": inputs.generator, "dataset": inputs.dataset}
            reason = "the generator has no conditional samples"
            if items:
                reason = f"all {len(items)} predictions failed, the first: {items[0].failed}"
            return [Score(metric=one.name, status="not_run", reason=reason, **about) for one in self.quantities]
        return (*reduced(inputs, items, self._training.regions, self._doses), *self._left_out(inputs))

    def _left_out(self, inputs: MetricInputs) -> Iterable[Score]:
        """Arms that the budget left out."""
        about = {"protocol": inputs.protocol_id, "generator": inputs.generator, "dataset": inputs.dataset}
        reason = f"over budget_hours: {', '.join(self.config.over_budget)}"
        for name in self.config.over_budget:
            metrics = [name_of("dsc", name)] if name in ARMS else []
            yield from (Score(metric=one, status="not_run", reason=reason, **about) for one in metrics)
