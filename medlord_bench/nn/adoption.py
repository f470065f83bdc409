"""Adoption of weights that others trained: checkpoints of a trainer, read strictly, and the facts in `model.json`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from medlord_bench.contracts import Cohort, Run
from medlord_bench.errors import MissingError, UserError
from medlord_bench.nn.checkpoints import read_torch
from medlord_bench.nn.diffusion.latents import FACTS, LATENT, latent_facts
from medlord_bench.nn.vqgan.config import LatentsConfig, VQGANConfig
from medlord_bench.nn.vqgan.latents import encode_cohort
from medlord_bench.util.documents import parse_json
from medlord_bench.util.files import write_json
from medlord_bench.volumes.arrays import load_state

State = Mapping[str, torch.Tensor]


# ----------------------------------------------------------------------------------------------------------- the files
def only_one(found: Sequence[Path], source: Path, stage: str, expected: str) -> Path:
    """The one place of a stage's weights at the path of `--weights`. expected: what may be there, for the error.

    Raises `MissingError` if there is none, and `UserError` if there are several.
    """
    if len(found) > 1:
        names = ", ".join(str(path.relative_to(source)) for path in found)
        raise UserError(f"--weights {source}: {len(found)} weights for the stage {stage} ({names}); keep only one")
    if not found:
        raise MissingError(f"--weights {source}: nothing for the stage {stage}; expected {expected}")
    return found[0]


def authors_files(source: Path, stage: str, names: Mapping[str, str]) -> list[Path]:
    """The authors' files of a stage at the path of `--weights`: `source` itself, or its ``*.pth``.

    names: stage -> the part of a file's name that says so. A name that contains several parts is of the first of them. A
    single file whose name says no stage is treated as the stage's.
    """

    def stage_of(path: Path) -> str | None:
        return next((one for one, part in names.items() if part in path.name.lower()), None)

    if source.is_file():
        return [source] if stage_of(source) in (stage, None) else []
    return [path for path in sorted(source.glob("*.pth")) if stage_of(path) == stage]


class Checkpoint(NamedTuple):
    """A trainer's file. shadow: averaged weights, perhaps only of trained parameters. source: the field of `model`."""

    model: State
    shadow: State | None
    source: str


def read_checkpoint(path: Path) -> Checkpoint:
    """Read ``{"model": ..., "ema": {"shadow": ...}}``, ``{"state_dict": ...}`` or bare tensors.

    Raises `MissingError` if the file does not exist, and `UserError` for another content. No code in it is executed.
    """
    found = _read(path)
    if not isinstance(found, Mapping):
        raise UserError(f"{path}: contains a {type(found).__name__}, expected a dictionary of tensors")
    source = next((name for name in ("model", "state_dict") if name in found), "the file itself")
    model = found.get(source, found)
    ema = found.get("ema")
    shadow = ema.get("shadow") or None if isinstance(ema, Mapping) else None
    for state, name in ((model, source), (shadow or {}, "ema.shadow")):
        if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
            raise UserError(
                f"{path}: {name} is not a dictionary of tensors; expected a checkpoint of the authors' code"
            )
    return Checkpoint(model, shadow, source)


def _read(path: Path) -> Any:
    """The content of a file. torch raises many types of errors for a truncated file or another file format."""
    try:
        return read_torch(path)
    except (UserError, PermissionError):
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__} {error}".split())
        raise UserError(f"{path}: truncated or not a PyTorch checkpoint ({reason}); copy or fetch it again") from None


def renamed(
    state: State,
    expected: State,
    upstream_name: Callable[[str], str],
    path: Path,
    is_unused: Callable[[str], bool] = lambda name: False,
) -> dict[str, torch.Tensor]:
    """`state` under the bench's names, which are those of `expected`. upstream_name: the file's name of each.

    Raises `UserError` with the file's names if a tensor is missing, surplus (and not `is_unused`) or of another shape.
    """
    theirs = {name: upstream_name(name) for name in expected}
    problems = [f"missing tensor {name!r}" for name in theirs.values() if name not in state]
    known = set(theirs.values())
    problems += [f"surplus tensor {name!r}" for name in state if name not in known and not is_unused(name)]
    problems += [
        f"tensor {theirs[name]!r} is {tuple(state[theirs[name]].shape)}, expected {tuple(value.shape)}"
        for name, value in expected.items()
        if theirs[name] in state and state[theirs[name]].shape != value.shape
    ]
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise UserError(f"{path}: {'; '.join(problems[:3])}{more}; use an unchanged checkpoint of one network")
    return {name: state[theirs[name]].to(value.dtype) for name, value in expected.items()}


# ---------------------------------------------------------------------------------------------------------- model.json
def description(folder: Path) -> dict[str, Any]:
    """The field "config" of a `model.json`. Raises `UserError` with the path of a damaged file."""
    path = folder / "model.json"
    try:
        config = parse_json(path.read_text())["config"]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path}: damaged; expected JSON with a field config: restore it or train again") from None
    return dict(config)


def describe(folder: Path, facts: Mapping[str, Any]) -> None:
    """Add facts to a `model.json`."""
    path = folder / "model.json"
    found = json.loads(path.read_text())
    write_json(path, found | {"config": found["config"] | dict(facts)})


def vqgan_config(folder: Path) -> VQGANConfig:
    """The architecture of a stored VQ-GAN."""
    return VQGANConfig.model_validate(description(folder)["net"])


# ---------------------------------------------------------------------------------------------------- the latent scale
class LatentFacts(NamedTuple):
    """scale: factor on the latents. measured: on the training latents, or given. channels: of a latent."""

    scale: float
    measured: bool
    channels: int

    @property
    def origin(self) -> str:
        return "measured on the training latents" if self.measured else "given"


def read_latent_facts(folder: Path) -> LatentFacts:
    """The facts of a latents folder."""
    facts = latent_facts(folder)
    channels = facts.get("channels")
    if channels is None:
        channels = load_state(next(iter(sorted(folder.glob("*.safetensors")))))[LATENT].shape[0]
    return LatentFacts(facts["scale"], facts["measured"], channels)


def adopt_latents(
    config: LatentsConfig, diffusion: Path, data: Cohort, inputs: Mapping[str, Path], out: Path, run: Run
) -> Path:
    """Write `latents.json` only if the scale is known, since no stage is trained; otherwise encode the cohort.

    diffusion: the denoiser's weights; a folder's `model.json` may contain the scale.
    """
    scale = config.scale
    if diffusion.is_dir():
        scale = description(diffusion).get("latent_scale") or scale
    if scale is None:
        return encode_cohort(config, data, inputs, out, run)
    folder = out / "latents"
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"scale": scale, "quantised": config.quantised, "measured": False}
    write_json(folder / FACTS, facts | {"channels": vqgan_config(inputs["autoencoder"]).dim})
    return folder
