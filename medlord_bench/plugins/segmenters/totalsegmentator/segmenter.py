"""TotalSegmentator (Wasserthal et al. 2023): its own unmodified API, in a separate process and home folder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import ClassVar

from pydantic import Field

from medlord_bench.contracts import Failure, FrozenConfig, LabelMap, Run, Volume
from medlord_bench.contracts.weights import NeededWeights
from medlord_bench.plugins.segmenters.subprocess.child import Launch, segment
from medlord_bench.plugins.segmenters.totalsegmentator import tasks as tasks_of
from medlord_bench.plugins.segmenters.totalsegmentator import weights
from medlord_bench.plugins.segmenters.totalsegmentator.tasks import Speed
from medlord_bench.util.interpreter import module_command


class TotalSegmentatorConfig(FrozenConfig):
    """The tasks, and their resolution."""

    tasks: tuple[str, ...] = Field(
        ("total",),
        min_length=1,
        description="TotalSegmentator's CT tasks, merged; if two find different regions in a voxel the later one "
        "takes precedence. heartchambers_highres (chambers, myocardium, pulmonary artery) needs a licence",
    )
    speed: Speed = Field("default", description="default (1.5 mm), fast (3 mm) or fastest (6 mm), for `total`")
    timeout_s: float = Field(3600.0, gt=0, description="seconds for one volume; after it the volume counts as failed")


class TotalSegmentatorSegmenter:
    """117 structures of CT, by the free weights of task `total`; the heart's parts with a licence."""

    Config: ClassVar[type[TotalSegmentatorConfig]] = TotalSegmentatorConfig
    version: ClassVar[int] = 1
    licence: ClassVar[str] = "weights: Apache-2.0; heartchambers_highres and some others need a licence number"

    def __init__(self, config: TotalSegmentatorConfig) -> None:
        self.config = config

    @property
    def names(self) -> Mapping[int, str]:
        """Label value to region. Raises `MissingError` if TotalSegmentator is not installed, `UserError` for an
        unknown task."""
        self._check_tasks()
        return tasks_of.names(self.config.tasks)

    def needed_weights(self) -> Sequence[NeededWeights]:
        """The models of the tasks. Raises as `names` does."""
        self._check_tasks()
        return weights.needed(self.config.tasks, self.config.speed)

    def fingerprint(self, case_ids: Sequence[str]) -> Mapping[str, str]:
        """Versions of TotalSegmentator and nnU-Net, which change its labels, and the sha256 of all its weights.

        Raises `MissingError` if the package, a licence or weights are missing.
        """
        self._check_tasks()
        tasks_of.check_licence(self.config.tasks)
        return weights.fingerprint(self.config.tasks, self.config.speed, weights.folder())

    def segment(self, volumes: Iterable[tuple[str, Volume]], run: Run) -> Iterator[LabelMap | Failure]:
        """One merged label map for each volume, on its own grid. Raises as `fingerprint` does, and as
        `child.segment`."""
        self._check_tasks()
        tasks_of.check_licence(self.config.tasks)
        models = weights.model_folders(self.config.tasks, self.config.speed, weights.folder(run.weights_dir))
        tables = tasks_of.label_tables(self.config.tasks)
        settings = {
            "tasks": [
                {
                    "task": task,
                    "speed": self.config.speed if tasks_of.has_speeds(task) else "default",
                    "labels": list(tables[task].items()),
                }
                for task in self.config.tasks
            ],
            "models": [str(model.resolve()) for model in models],
            "licence_from": str(tasks_of.own_home()) if any(map(tasks_of.licensed, self.config.tasks)) else None,
        }
        command = module_command("medlord_bench.plugins.segmenters.totalsegmentator.child")
        launch = Launch("totalsegmentator", command, settings, self.config.timeout_s)
        yield from segment(volumes, launch, self.names, run)

    def _check_tasks(self) -> None:
        tasks_of.check_installed()
        tasks_of.check_tasks(self.config.tasks)
