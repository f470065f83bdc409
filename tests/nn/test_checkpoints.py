import json
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from medlord_bench.errors import MissingError, UserError
from medlord_bench.nn.checkpoints import load_frozen, load_model, load_strict, read_torch, save_model


def test_weights_come_back_bit_equal_with_their_config(tmp_path: Path) -> None:
    net = nn.Linear(3, 2)
    save_model(tmp_path, "kind", {"width": 3}, net.state_dict())
    config, tensors = load_model(tmp_path, "kind")
    assert config == {"width": 3}
    assert all(torch.equal(tensors[name], value) for name, value in net.state_dict().items())


def test_a_network_to_be_used_comes_back_frozen_with_its_facts(tmp_path: Path) -> None:
    def build(described):
        return nn.Sequential(nn.Linear(described["width"], 2), nn.Dropout()), described["names"]

    net, _ = build({"width": 3, "names": None})
    save_model(tmp_path, "kind", {"width": 3, "names": ["a"]}, net.state_dict())
    found, facts = load_frozen(tmp_path, "kind", build)
    assert facts == ["a"] and not found.training and not any(value.requires_grad for value in found.parameters())
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in found.state_dict().items())
    with pytest.raises(UserError, match="expected 'another'"):
        load_frozen(tmp_path, "another", build)
    save_model(tmp_path, "kind", {"width": 4, "names": []}, net.state_dict())
    with pytest.raises(UserError, match=r"model\.safetensors: tensor '0\.weight' is \(2, 3\), expected \(2, 4\)"):
        load_frozen(tmp_path, "kind", build)


@pytest.mark.parametrize(("described", "reason"), [({"width": 3}, "'names'"), ({"width": "x", "names": []}, ".*")])
def test_a_description_that_makes_no_network_is_named(tmp_path: Path, described, reason: str) -> None:
    save_model(tmp_path, "kind", described, nn.Linear(3, 2).state_dict())
    with pytest.raises(UserError, match=rf"model\.json: damaged \({reason}\); restore it or train again"):
        load_frozen(tmp_path, "kind", lambda found: (nn.Linear(found["width"], 2), found["names"]))


def test_weights_of_another_kind_are_refused_by_name(tmp_path: Path) -> None:
    save_model(tmp_path, "medlord.diffusion", {}, {})
    with pytest.raises(UserError, match="contains 'medlord.diffusion'.*expected 'medlord.autoencoder'"):
        load_model(tmp_path, "medlord.autoencoder")


def test_absent_weights_are_exit_3(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="model.json: not found"):
        load_model(tmp_path, "kind")


def test_a_truncated_weights_file_is_named(tmp_path: Path) -> None:
    save_model(tmp_path, "kind", {}, {"a": torch.zeros(100)})
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:50])
    with pytest.raises(UserError, match="model.safetensors: unreadable"):
        load_model(tmp_path, "kind")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("bias"), "missing tensor 'bias'"),
        (lambda t: t.update(extra=torch.zeros(1)), "surplus tensor 'extra'"),
        (lambda t: t.update(bias=torch.zeros(7)), r"tensor 'bias' is \(7,\), expected \(2,\)"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(change, message: str) -> None:
    tensors = dict(nn.Linear(3, 2).state_dict())
    change(tensors)
    with pytest.raises(UserError, match=message):
        load_strict(nn.Linear(3, 2), tensors, "file.pth")


class Harm:
    def __reduce__(self):
        return (print, ("executed",))


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.pth"
    torch.save({"model": Harm()}, path)
    with pytest.raises(UserError, match="bad.pth: not a checkpoint of plain tensors"):
        read_torch(path)
    path.write_bytes(pickle.dumps(Harm()))
    with pytest.raises(UserError, match="bad.pth"):
        read_torch(path)
    assert "executed" not in capsys.readouterr().out


def test_a_damaged_description_is_named(tmp_path: Path) -> None:
    save_model(tmp_path, "kind", {}, {})
    (tmp_path / "model.json").write_text(json.dumps({"format": 1})[:-3])
    with pytest.raises(UserError, match="model.json: not JSON"):
        load_model(tmp_path, "kind")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"not a checkpoint", b"\x80\x02K"])
def test_a_file_that_is_no_checkpoint_is_one_line_not_a_traceback(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match="bad.pth"):
        read_torch(path)
    with pytest.raises(UserError, match="a folder"):
        read_torch(tmp_path)
