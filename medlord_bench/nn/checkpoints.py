"""Weights on disk: `model.safetensors`, and `model.json` with all facts needed to use the weights.

Loading is always strict: a missing tensor, a surplus tensor or a wrong shape is an error with the tensor's name.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from medlord_bench.errors import MissingError, UserError
from medlord_bench.util.documents import parse_json
from medlord_bench.util.files import publish, write_json

if TYPE_CHECKING:
    import torch
    from torch import nn

Net = TypeVar("Net", bound="nn.Module")
Facts = TypeVar("Facts")

FORMAT = 1


def save_model(folder: Path, kind: str, config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
    """Write weights and description to `folder`, each file atomically, `model.json` last.

    kind: e.g. "medlord.autoencoder". config: values for JSON; the facts that sampling needs besides the tensors.
    """
    from safetensors.torch import save_file

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    publish(folder / "model.safetensors", lambda path: save_file(plain, path))
    write_json(folder / "model.json", {"format": FORMAT, "kind": kind, "config": config})


def load_model(folder: Path, kind: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Config and tensors that `save_model` wrote. Raises `MissingError` or `UserError` with the path of the file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    description = folder / "model.json"
    if not description.exists():
        raise MissingError(f"{description}: not found; expected the weights of {kind}: train them or give --weights")
    try:
        found = parse_json(description.read_text())
    except ValueError as error:
        raise UserError(f"{description}: not JSON ({error}); the file is damaged: restore it or train again") from None
    if not isinstance(found, dict) or not isinstance(found.get("config"), dict):
        raise UserError(f"{description}: expected an object with a field config: restore it or train again")
    if found.get("kind") != kind or found.get("format") != FORMAT:
        raise UserError(
            f"{description}: contains {found.get('kind')!r} in format {found.get('format')!r}, "
            f"expected {kind!r} in format {FORMAT}; give the weights of that model"
        )
    try:
        tensors = load_file(folder / "model.safetensors")
    except FileNotFoundError:
        raise MissingError(f"{folder / 'model.safetensors'}: not found, but model.json exists; restore it") from None
    except SafetensorError as error:
        raise UserError(f"{folder / 'model.safetensors'}: unreadable ({error}); restore it or train again") from None
    return found["config"], tensors


def load_frozen(folder: Path, kind: str, build: Callable[[dict[str, Any]], tuple[Net, Facts]]) -> tuple[Net, Facts]:
    """Load a network that `save_model` wrote, frozen and in evaluation mode, with further facts of its description.

    build: makes, from the "config" of `model.json`, the network with any weights on its device, and the further facts.
    Raises `MissingError` or `UserError` with the path of the file; a KeyError, ValueError or TypeError of `build` means
    that `model.json` is damaged.
    """
    described, tensors = load_model(folder, kind)
    try:
        net, facts = build(described)
    except (KeyError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{folder / 'model.json'}: damaged ({reason}); restore it or train again") from None
    load_strict(net, tensors, str(folder / "model.safetensors"))
    return net.eval().requires_grad_(False), facts


def stored_models(source: Path, stage: str, kind: str) -> list[Path]:
    """Folders written by `save_model` at the path of `--weights`: of a run, by stage, or of a single stage.

    A folder with a damaged `model.json` is included; its loader reports the damage.
    """
    if source.is_file():
        return []
    places = [source / stage, source / stage / "weights", *sorted(source.glob(f"*_{stage}/weights"))]
    found = [place for place in places if (place / "model.json").exists()]
    return [source] if not found and _holds(source / "model.json", kind) else found


def _holds(description: Path, kind: str) -> bool:
    try:
        return bool(parse_json(description.read_text()).get("kind") == kind)
    except OSError:
        return False
    except (ValueError, AttributeError):
        return True


def load_strict(module: nn.Module, tensors: Mapping[str, torch.Tensor], where: str) -> None:
    """Load `tensors` into `module`. Names and shapes must equal those of the module.

    where: the file, for the error message. Raises `UserError` with the first invalid names.
    """
    own = module.state_dict()
    problems = [f"missing tensor {name!r}" for name in own if name not in tensors]
    problems += [f"surplus tensor {name!r}" for name in tensors if name not in own]
    problems += [
        f"tensor {name!r} is {tuple(tensors[name].shape)}, expected {tuple(value.shape)}"
        for name, value in own.items()
        if name in tensors and tensors[name].shape != value.shape
    ]
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise UserError(f"{where}: {'; '.join(problems[:3])}{more}; these weights belong to another architecture")
    module.load_state_dict(dict(tensors), strict=True)


def read_torch(path: Path) -> Any:
    """Read a `.pth`, `.pt` or `.ckpt` file of plain tensors and containers to the CPU. No code in it is executed.

    Raises `MissingError` if the file does not exist, and `UserError` if loading would require its code.
    """
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise MissingError(f"{path}: not found; expected a PyTorch checkpoint") from None
    except IsADirectoryError:
        raise UserError(f"{path}: a folder; expected a PyTorch checkpoint file") from None
    except Exception as error:  # of many types: a damaged pickle calls what it names with what it has
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{path}: not a checkpoint of plain tensors ({reason}); save its state_dict again with torch.save"
        ) from None


def load_numbers(path: Path) -> Any:
    """A checkpoint of torch with tensors, plain values and NumPy scalars, as nnU-Net writes; no code in it can run.

    Raises `pickle.UnpicklingError`, `RuntimeError` or `EOFError` for any other file.
    """
    import numpy as np
    import torch
    from numpy._core.multiarray import scalar

    dtypes = [type(np.dtype(kind)) for kind in "?bhilqBHILQefd"]
    harmless: list[Any] = [scalar, (scalar, "numpy.core.multiarray.scalar"), np.dtype, *dtypes]  # NumPy 2 and 1
    with torch.serialization.safe_globals(harmless):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def more_than_numbers(path: Path) -> str | None:
    """Why `load_numbers` refuses a checkpoint; None if it does not."""
    import torch

    try:
        load_numbers(path)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        try:
            named = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError):
            return f"not a checkpoint that torch can check ({str(error).splitlines()[0][:100]})"
        known = {"numpy._core.multiarray.scalar", "numpy.core.multiarray.scalar", "numpy.dtype"}
        others = [name for name in named if name not in known]
        return f"contains more than numbers ({', '.join(others[:3]) or 'an unknown object'})"
    return None
