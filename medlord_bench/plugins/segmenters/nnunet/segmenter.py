"""A trained nnU-Net v2 model folder (Isensee et al. 2021), run by nnU-Net's own predictor in a separate process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from medlord_bench.contracts import Failure, FrozenConfig, LabelMap, LabelNames, Run, Volume
from medlord_bench.errors import MissingError, UserError
from medlord_bench.plugins.segmenters.nnunet.model import check_checkpoint, check_dataset, checkpoints, label_names
from medlord_bench.plugins.segmenters.subprocess.child import Launch, segment
from medlord_bench.plugins.segmenters.subprocess.model_files import sha256
from medlord_bench.util.interpreter import module_command


class NnUNetConfig(FrozenConfig):
    """The trained model, and the orientation of its images."""

    folder: Path | None = Field(
        None, description="the trained model: TRAINER__PLANS__CONFIGURATION with dataset.json, plans.json, fold_*"
    )
    folds: tuple[int | Literal["all"], ...] | None = Field(None, description="folds to average; unset: all existing")
    checkpoint: str = Field("checkpoint_final.pth", pattern=r"^[\w.-]+\.pth$", description="file in each fold's folder")
    label_names: LabelNames | None = Field(None, description="label value to region; unset: from dataset.json")
    orientation: str = Field(
        "RAS",
        pattern="^[RL][AP][SI]$",
        description="axes of its training images; nnU-Net does not reorient images",
    )
    mirroring: bool = Field(True, description="average over mirrored images, as nnU-Net does by default; slower")
    trust: bool = Field(False, description="load checkpoints that contain more than numbers, and so can run code")
    timeout_s: float = Field(3600.0, gt=0, description="seconds for one volume; after it the volume counts as failed")


class NnUNetSegmenter:
    """Your own trained nnU-Net v2 model folder, one CT channel, one label for each voxel."""

    Config: ClassVar[type[NnUNetConfig]] = NnUNetConfig
    version: ClassVar[int] = 1

    def __init__(self, config: NnUNetConfig) -> None:
        self.config = config

    @property
    def names(self) -> Mapping[int, str]:
        """Label value to region. Raises as `fingerprint` does if the model folder does not define it."""
        return label_names(self._folder()) if self.config.label_names is None else dict(self.config.label_names)

    def fingerprint(self, case_ids: Sequence[str]) -> Mapping[str, str]:
        """nnU-Net's version, and the sha256 of the model's files.

        Raises `MissingError` if nnU-Net or one of them is missing, and `UserError` if the model takes more than
        one channel, has overlapping labels without `label_names`, or an untrusted checkpoint contains code.
        """
        if find_spec("nnunetv2") is None:
            raise MissingError("segmenter nnunet: nnU-Net is not installed; pip install 'medlord-bench[nnunet]'")
        folder, found = self._folder(), self._checkpoints()
        check_dataset(folder, self.names)
        if not self.config.trust:
            for checkpoint in found:
                check_checkpoint(checkpoint)
        files = [folder / "dataset.json", folder / "plans.json", *found]
        return {"nnunetv2": version("nnunetv2"), **{p.relative_to(folder).as_posix(): sha256(p) for p in files}}

    def segment(self, volumes: Iterable[tuple[str, Volume]], run: Run) -> Iterator[LabelMap | Failure]:
        """One label map for each volume, on its own grid. Raises as `fingerprint` and `child.segment` do."""
        self.fingerprint([])
        settings = {
            "folder": str(self._folder().resolve()),
            "folds": [checkpoint.parent.name.removeprefix("fold_") for checkpoint in self._checkpoints()],
            "checkpoint": self.config.checkpoint,
            "orientation": self.config.orientation,
            "mirroring": self.config.mirroring,
        }
        launch = Launch(
            "nnunet", module_command("medlord_bench.plugins.segmenters.nnunet.child"), settings, self.config.timeout_s
        )
        yield from segment(volumes, launch, self.names, run)

    def _folder(self) -> Path:
        if self.config.folder is None:
            raise UserError("segmenter nnunet: folder is not given; expected --set nnunet.folder=TRAINED_MODEL_FOLDER")
        return self.config.folder

    def _checkpoints(self) -> list[Path]:
        return checkpoints(self._folder(), self.config.folds, self.config.checkpoint)
