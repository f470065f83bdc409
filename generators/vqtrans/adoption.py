"""Weights instead of training: of an earlier run, or a VQVAE and a DecoderOnlyTransformer of MONAI's.

Values that MONAI's files do not contain are taken from the configuration, logged and written to `model.json`
("assumed").
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from math import prod
from pathlib import Path

from torch import Tensor

from medlord_bench.contracts import Cohort, Run, Stage
from medlord_bench.errors import UserError
from medlord_bench.nn.adoption import only_one
from medlord_bench.nn.checkpoints import load_model, load_strict, read_torch, stored_models
from medlord_bench.nn.vqgan.network import VQGAN, config_from_state
from medlord_bench.nn.vqgan.training import KIND as AUTOENCODER
from medlord_bench.nn.vqgan.training import hu_window, load_autoencoder, save_autoencoder
from medlord_bench.util.hashing import file_sha256

from .configs import TransformerNetConfig, VQTransConfig
from .tokens import TokensFacts, facts_of, read_facts
from .transformer import KIND as TRANSFORMER
from .transformer import Transformer, load_transformer, save_transformer

KINDS = {"autoencoder": AUTOENCODER, "transformer": TRANSFORMER}
NAMES = {"autoencoder": ("vqvae", "vqgan", "autoencoder"), "transformer": ("transformer",)}  # of MONAI's files
ENDINGS = (".pt", ".pth", ".ckpt")
WRAPPED = ("state_dict", "model_state_dict", "model")
MASK = re.compile(r"blocks\.\d+\.attn\.causal_mask")  # a buffer of MONAI's: n x n, without information


def adopt(
    config: VQTransConfig, stage: Stage, source: Path, data: Cohort, inputs: Mapping[str, Path], out: Path, run: Run
) -> Path:
    """One stage's weights from `source`; see `contracts.Generator.adopt`.

    source: a run's `weights` folder or a folder of ``<stage>/model.json``, or a folder of MONAI's files, named so that
    they can be distinguished (``*vqvae*.pt``, ``*transformer*.pt``). Nothing is encoded, since no later stage is
    trained.
    """
    folder = out / "adopted"
    shutil.rmtree(folder, ignore_errors=True)
    if stage.name == "tokens":
        facts_of(config, load_autoencoder(inputs["autoencoder"], "cpu"), data).write(folder)
        return folder
    path = _find(source, stage.name)
    if stage.name == "autoencoder":
        return _adopt_autoencoder(config, path, data, folder, run)
    return _adopt_transformer(config, path, read_facts(inputs["tokens"]), folder, run)


def _find(source: Path, stage: str) -> Path:
    """A stage's weights in the path of `--weights`. Raises `MissingError` or `UserError` unless there is exactly
    one."""
    expected = f"a folder with {stage}/model.json, a run's weights folder, or MONAI's *{NAMES[stage][0]}*.pt"
    found = [*stored_models(source, stage, KINDS[stage]), *_theirs(source, stage)]
    return only_one(found, source, stage, expected)


def _theirs(source: Path, stage: str) -> list[Path]:
    files = [source] if source.is_file() else sorted(p for p in source.glob("*") if p.suffix in ENDINGS)
    return [path for path in files if _named(path) == stage]


def _named(path: Path) -> str | None:
    name = path.name.lower()  # test for the transformer first: "vqvae_transformer.pt" is one
    return next((s for s in ("transformer", "autoencoder") if any(part in name for part in NAMES[s])), None)


def _state(path: Path) -> dict[str, Tensor]:
    """The state dict in a file, bare or under a usual name, without the stored causal masks."""
    found = read_torch(path)
    for name in WRAPPED:
        if isinstance(found, dict) and isinstance(found.get(name), dict):
            found = found[name]
            break
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise UserError(f"{path}: no state dict; expected tensors by name, bare or under {', '.join(WRAPPED)}")
    return {name: tensor for name, tensor in found.items() if not MASK.fullmatch(name)}


def _origin(path: Path, assumed: Mapping[str, object], run: Run) -> dict[str, object]:
    """Record and log the origin of a converted file."""
    told = "; ".join(f"{name} {value}" for name, value in assumed.items())
    run.log.warning("converted from %s; assumed, since the file does not state it: %s", path, told)
    return {"converted_from": {"file": path.name, "sha256": file_sha256(path)}, "assumed": dict(assumed)}


# ------------------------------------------------------------------------------------------------------------ the
# stages
def _adopt_autoencoder(config: VQTransConfig, path: Path, data: Cohort, folder: Path, run: Run) -> Path:
    if path.is_dir():
        net, window = load_autoencoder(path, "cpu"), hu_window(path)
    else:
        state = _state(path)
        net, window = VQGAN(config_from_state(state)), data.protocol.grid.hu_window
        load_strict(net, state, str(path))
    facts_of(config, net, data)  # checks the grid
    if path.is_dir():
        shutil.copytree(path, folder)
    else:
        save_autoencoder(folder, net, window, _origin(path, {"hu_window": list(window)}, run))
    return folder


def _adopt_transformer(config: VQTransConfig, path: Path, facts: TokensFacts, folder: Path, run: Run) -> Path:
    if path.is_dir():
        trained = load_transformer(path)
        described, _ = load_model(path, TRANSFORMER)
        _check(trained.net, facts, path)
        theirs = (trained.shape, tuple(described["grid"]), described["fit"])
        if theirs != (facts.shape, facts.grid, facts.fit):
            raise UserError(
                f"{path / 'model.json'}: trained on the grid {theirs[1]} by {theirs[2]}, the configuration asks for "
                f"{facts.grid} by {facts.fit}; set grid and fit to the weights'"
            )
        shutil.copytree(path, folder)
        return folder
    state = _state(path)
    net = Transformer(*_architecture(state, config.transformer.net, path))
    load_strict(net, state, str(path))
    _check(net, facts, path)
    assumed = {"heads": net.config.heads, "order": "raster", "grid": list(facts.grid), "fit": facts.fit}
    on_grid = {"grid": list(facts.grid), "fit": facts.fit}
    save_transformer(folder, net, net.state_dict(), facts.shape, {**on_grid, **_origin(path, assumed, run)})
    return folder


def _architecture(
    state: Mapping[str, Tensor], like: TransformerNetConfig, path: Path
) -> tuple[TransformerNetConfig, int, int]:
    """Network, codes and positions, inferred from shapes. like: provides the heads, which shapes do not show."""
    try:
        tokens, dim = state["token_embeddings.weight"].shape
        positions = len(state["position_embeddings.embedding.weight"])
    except (KeyError, ValueError):
        raise UserError(
            f"{path}: not a transformer in MONAI's layout; expected token_embeddings.weight and "
            "position_embeddings.embedding.weight: give the state dict of a DecoderOnlyTransformer"
        ) from None
    depth = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
    if not depth or dim % like.heads:
        raise UserError(
            f"{path}: {depth} blocks of width {dim}, expected at least one, and a multiple of heads = {like.heads}; "
            "set transformer.net.heads to the number used in its training"
        )
    return like.model_copy(update={"dim": dim, "depth": depth}), tokens - 1, positions


def _check(net: Transformer, facts: TokensFacts, where: Path) -> None:
    if net.codes != facts.codes:
        raise UserError(
            f"{where}: a transformer on {net.codes} codes, the autoencoder has {facts.codes}; "
            "give a pair that was trained together"
        )
    length = prod(facts.shape)
    if net.positions not in (length, length + 1):  # the reference's has one unused position
        raise UserError(
            f"{where}: a transformer for {net.positions} tokens, the grid {facts.grid} has {length}; "
            "set grid to the one it was trained on"
        )
