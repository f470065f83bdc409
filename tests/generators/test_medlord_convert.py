"""The authors' checkpoints: that ours have the same tensors under known names, and that nothing else is taken."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from medlord_bench.errors import MissingError, UserError
from medlord_bench.generators.medlord.configs import UNETS, ControlUNetConfig, UNetConfig
from medlord_bench.generators.medlord.controlnet import build_controlnet
from medlord_bench.generators.medlord.convert import Unstored, convert_upstream
from medlord_bench.generators.medlord.unet import build_unet
from medlord_bench.nn.checkpoints import load_strict
from medlord_bench.nn.vqgan.network import VQGAN

SMALL: dict[str, Any] = {"channels": (32, 64), "attends": (False, True), "res_blocks": 1}
SMALL_UNSTORED = Unstored(head_channels=16, norm_num_groups=8)
SMALL_UNET = {**UNETS["smoke"], "num_head_channels": (0, 16), "norm_num_groups": 8}


@pytest.fixture(scope="module")
def keys() -> ModuleType:
    """`upstream_keys.py` beside this file."""
    spec = importlib.util.spec_from_file_location("upstream_keys", Path(__file__).with_name("upstream_keys.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _filled(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """A state dict in which every tensor holds a number of its own, so that a mix-up shows."""
    return {name: torch.full(shape, float(i + 1)) for i, (name, shape) in enumerate(shapes.items())}


def _saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def _trainer(state: dict[str, torch.Tensor], shadow: dict[str, torch.Tensor] | None) -> dict[str, Any]:
    """A checkpoint as the authors' trainers write it."""
    ema = None if shadow is None else {"decay": 0.999, "shadow": shadow}
    return {"epoch": 3, "best_loss": 0.1, "model": state, "optimizer": {"state": {}}, "lr_scheduler": None, "ema": ema}


# ------------------------------------------------------------------------------------------------------------ layouts
@pytest.mark.parametrize("channels", [(16, 24), (16, 24, 32)], ids=["ds4", "ds8"])
def test_a_vqgan_checkpoint_is_ours_tensor_by_tensor(keys: ModuleType, tmp_path: Path, channels: tuple) -> None:
    state = _filled(keys.vqgan(channels, codes=64, dim=8))
    path = _saved(tmp_path / "a.pth", {"model": state, "discriminator": {}, "optimizer_g": {}, "best_loss": 1.0})
    config, tensors, source = convert_upstream(path, "vqgan")
    assert (config.channels, config.codes, config.dim, source) == (channels, 64, 8, "model")
    load_strict(VQGAN(config), tensors, str(path))
    assert all(torch.equal(tensors[name], value) for name, value in state.items())


@pytest.mark.parametrize("preset", ["medlord", "3level"])
def test_the_published_unets_are_recognised_from_their_tensors(keys: ModuleType, tmp_path: Path, preset: str) -> None:
    expected = UNetConfig(**UNETS[preset])
    with torch.device("meta"):
        shapes = keys.unet(expected.channels, expected.attention_levels, expected.num_res_blocks)
        ours = build_unet(expected, "meta")
    unused = [name for name in shapes if ".proj_attn." in name]
    assert len(shapes) == len(ours.state_dict()) + len(unused)
    state = {name: torch.zeros(1).expand(shape) for name, shape in shapes.items()}  # no memory behind it
    config, tensors, _ = convert_upstream(_saved(tmp_path / "b.pth", {"model": state}), "ldm")
    assert config == expected
    assert {name: value.shape for name, value in tensors.items()} == {
        name: value.shape for name, value in ours.state_dict().items()
    }


def test_each_level_keeps_its_own_heads(keys: ModuleType, tmp_path: Path) -> None:
    """Heads are not in the tensors: a U-Net with other heads at each level would load without an error and be wrong."""
    wanted = UNetConfig(
        channels=(16, 24, 48), num_res_blocks=1, attention_levels=(False, True, True), num_head_channels=(0, 24, 16),
        norm_num_groups=8,
    )  # fmt: skip
    path = _saved(
        tmp_path / "h.pth", _filled(keys.unet(wanted.channels, wanted.attention_levels, wanted.num_res_blocks))
    )
    for unstored in (Unstored(like=wanted), Unstored(head_channels=(0, 24, 16), norm_num_groups=8)):
        config, _, _ = convert_upstream(path, "ldm", unstored)
        assert config.num_head_channels == (0, 24, 16)


def test_every_unet_tensor_lands_where_it_belongs(keys: ModuleType, tmp_path: Path) -> None:
    state = _filled(keys.unet(**SMALL))
    path = _saved(tmp_path / "c.pth", state)
    config, tensors, source = convert_upstream(path, "ldm", SMALL_UNSTORED)
    assert source == "the file itself"
    assert config == UNetConfig(**SMALL_UNET)
    load_strict(build_unet(config), tensors, str(path))
    moved = {
        "out.2.conv.weight": "out.1.conv.weight",
        "up_blocks.0.upsampler.postconv.conv.bias": "up_blocks.0.upsampler.conv.conv.bias",
        "down_blocks.1.attentions.0.attn.to_k.weight": "down_blocks.1.attentions.0.to_k.weight",
        "middle_block.attention.attn.to_q.bias": "middle_block.attention.to_q.bias",
    }
    for name, value in tensors.items():
        theirs = moved.get(name, name.replace(".attn.", ".").replace("postconv", "conv").replace("out.2", "out.1"))
        assert torch.equal(value, state[theirs]), name


@pytest.mark.parametrize("with_conditioning", [False, True])
@pytest.mark.parametrize(("stride", "embedding"), [(2, (8, 12)), (1, (8, 12, 16)), (2, (8, 12, 16))])
def test_every_controlnet_layout_is_recognised(
    keys: ModuleType, tmp_path: Path, with_conditioning: bool, stride: Any, embedding: tuple
) -> None:
    shapes = keys.controlnet((32, 64), 0.5, (False, True), 1, embedding, 6, with_conditioning)
    state = _filled(shapes)
    path = _saved(tmp_path / "d.pth", _trainer(state, state))
    unstored = Unstored(head_channels=16, norm_num_groups=8, mask_stride=stride)
    (net, unet, masks), tensors, _ = convert_upstream(path, "controlnet", unstored)
    assert net == ControlUNetConfig(
        ratio=0.5,
        norm_num_groups=8,
        embedding_channels=embedding,
        initial_stride=stride,
        with_conditioning=with_conditioning,
    )
    assert unet == UNetConfig(**SMALL_UNET)
    ours = build_controlnet(net, unet, masks, net.downsampling)
    load_strict(ours, tensors, str(path))
    attention = "middle_block.attention.transformer_blocks.0.attn2.to_out.0.bias"
    theirs = attention if with_conditioning else "middle_block.attention.to_v.bias"
    mine = attention.replace("to_out.0", "out_proj") if with_conditioning else "middle_block.attention.attn.to_v.bias"
    assert torch.equal(tensors[mine], state[theirs])
    assert torch.equal(ours.controlnet_mid_block.weight, state["controlnet_mid_block.weight"])


# ----------------------------------------------------------------------------------------------------- which weights
def test_averaged_weights_are_preferred_and_named(keys: ModuleType, tmp_path: Path) -> None:
    raw = _filled(keys.unet(**SMALL))
    shadow = {name: -value for name, value in raw.items()}
    path = _saved(tmp_path / "e.pth", _trainer(raw, shadow))
    averaged = convert_upstream(path, "ldm", SMALL_UNSTORED)
    assert averaged.source == "ema.shadow"
    assert torch.equal(averaged.tensors["out.2.conv.bias"], shadow["out.1.conv.bias"])
    plain = convert_upstream(path, "ldm", SMALL_UNSTORED, averaged=False)
    assert plain.source == "model"
    assert torch.equal(plain.tensors["out.2.conv.bias"], raw["out.1.conv.bias"])


def test_a_checkpoint_without_averaged_weights_gives_its_model(keys: ModuleType, tmp_path: Path) -> None:
    state = _filled(keys.unet(**SMALL))
    assert convert_upstream(_saved(tmp_path / "f.pth", _trainer(state, None)), "ldm", SMALL_UNSTORED).source == "model"
    again = _saved(tmp_path / "g.pth", {"state_dict": state})
    assert convert_upstream(again, "ldm", SMALL_UNSTORED).source == "state_dict"


def test_half_precision_weights_become_float32(keys: ModuleType, tmp_path: Path) -> None:
    state = {name: value.half() for name, value in _filled(keys.unet(**SMALL)).items()}
    tensors = convert_upstream(_saved(tmp_path / "h.pth", state), "ldm", SMALL_UNSTORED).tensors
    assert {value.dtype for value in tensors.values()} == {torch.float32}


# --------------------------------------------------------------------------------------------------------- bad input
@pytest.mark.parametrize("lost", ["down_blocks.1.attentions.0.to_q.bias", "out.1.conv.weight", "conv_in.conv.weight"])
def test_a_missing_tensor_is_named(keys: ModuleType, tmp_path: Path, lost: str) -> None:
    state = _filled(keys.unet(**SMALL))
    del state[lost]
    with pytest.raises(UserError, match="missing tensor") as caught:
        convert_upstream(_saved(tmp_path / "i.pth", state), "ldm", SMALL_UNSTORED)
    assert lost in str(caught.value) and "\n" not in str(caught.value)


def test_a_surplus_tensor_is_named(keys: ModuleType, tmp_path: Path) -> None:
    state = _filled(keys.unet(**SMALL)) | {"class_embedding.weight": torch.zeros(2, 128)}
    with pytest.raises(UserError, match=r"surplus tensor 'class_embedding\.weight'"):
        convert_upstream(_saved(tmp_path / "j.pth", state), "ldm", SMALL_UNSTORED)


def test_a_misshapen_tensor_is_named_with_both_shapes(keys: ModuleType, tmp_path: Path) -> None:
    state = _filled(keys.unet(**SMALL)) | {"time_embed.2.bias": torch.zeros(7)}
    with pytest.raises(UserError, match=r"'time_embed\.2\.bias' is \(7,\), expected \(128,\)"):
        convert_upstream(_saved(tmp_path / "k.pth", state), "ldm", SMALL_UNSTORED)


def test_the_checkpoint_of_another_network_is_refused(keys: ModuleType, tmp_path: Path) -> None:
    path = _saved(tmp_path / "l.pth", {"model": _filled(keys.vqgan((16, 24), 64, 8))})
    for kind in ("ldm", "controlnet"):
        with pytest.raises(UserError, match=str(path)):
            convert_upstream(path, kind)  # type: ignore[arg-type]
    unet = _saved(tmp_path / "m.pth", _filled(keys.unet(**SMALL)))
    with pytest.raises(UserError, match="missing tensor 'controlnet_down_blocks.1.weight'"):
        convert_upstream(unet, "controlnet", SMALL_UNSTORED)
    with pytest.raises(UserError):
        convert_upstream(unet, "vqgan")


def test_heads_that_do_not_fit_are_refused(keys: ModuleType, tmp_path: Path) -> None:
    path = _saved(tmp_path / "n.pth", _filled(keys.unet(**SMALL)))
    with pytest.raises(UserError, match="does not divide"):
        convert_upstream(path, "ldm", Unstored(head_channels=48, norm_num_groups=8))


@pytest.mark.parametrize("content", [[1, 2], {"model": 3}, {"model": {"a": "b"}}])
def test_a_file_without_tensors_is_refused(tmp_path: Path, content: Any) -> None:
    with pytest.raises(UserError, match="dictionary of tensors"):
        convert_upstream(_saved(tmp_path / "o.pth", content), "ldm")


def test_an_absent_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="not found"):
        convert_upstream(tmp_path / "p.pth", "ldm")
