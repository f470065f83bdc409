"""`ctfm`: CT-FM's published layout, files of its names found offline, and the input of its training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from safetensors.torch import save_file

from medlord_bench.contracts import Run, Volume
from medlord_bench.errors import MissingError, UserError
from medlord_bench.nn import pretrained
from medlord_bench.plugins.extractors.ctfm import network
from medlord_bench.plugins.extractors.ctfm.extractor import WEIGHTS, CTFMConfig, CTFMExtractor

SMALL = {**network.LAYOUT, "init_filters": 4}
MM = (1.0, 1.0, 3.0)


def test_the_layout_is_the_published_one() -> None:
    """77,760,992 parameters in 161 tensors, counters of batch norms included: as others report of the file."""
    with torch.device("meta"):
        encoder = network.build()
    assert sum(value.numel() for value in encoder.parameters()) == 77_760_992
    state = encoder.state_dict()
    assert len(state) == 161 and state["layers.4.blocks.3.conv2.weight"].shape == (512, 512, 3, 3, 3)


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """A weights folder with a file of a narrower network of the same names; returns its tensors."""
    monkeypatch.setattr(network, "LAYOUT", SMALL)
    monkeypatch.setenv(pretrained.ENVIRONMENT, str(tmp_path))
    monkeypatch.setenv(pretrained.OFFLINE, "1")
    torch.manual_seed(0)
    encoder = network.build().train()
    with torch.no_grad():
        encoder(torch.rand(2, 1, 32, 32, 32))  # batch norms with a mean and a variance of their own
    state = encoder.state_dict()
    path = tmp_path / WEIGHTS.repo / WEIGHTS.file
    path.parent.mkdir(parents=True)
    save_file(state, path)
    return state


def features(run: Run, *volumes: Volume, **settings: object) -> list[np.ndarray]:
    extractor = CTFMExtractor(CTFMConfig.model_validate(settings))
    return [dict(state)["volume"] for state in extractor.features(iter(volumes), run)]


def volume(shape: tuple[int, int, int] = (40, 36, 33), mm: tuple[float, float, float] = MM) -> Volume:
    coarse = np.random.default_rng(0).integers(-1200, 1500, [-(-n // 8) for n in shape])
    hu = np.kron(coarse, np.ones((8, 8, 8)))[tuple(slice(n) for n in shape)]
    return Volume(hu.astype(np.int16), np.diag([*mm, 1.0]))


def by_hand(state: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """The encoder from functions: pre-activated residual blocks, then convolutions of stride 2 (Myronenko 2018)."""

    def normed(x: torch.Tensor, name: str) -> torch.Tensor:
        mean, variance, weight, bias = (
            state[f"{name}.{end}"] for end in ("running_mean", "running_var", "weight", "bias")
        )
        return F.relu(F.batch_norm(x, mean, variance, weight, bias))

    x = F.conv3d(x, state["conv_init.weight"], padding=1)
    for level, blocks in enumerate((1, 2, 2, 4, 4)):
        for block in range(blocks):
            name = f"layers.{level}.blocks.{block}"
            inner = F.conv3d(normed(x, f"{name}.norm1"), state[f"{name}.conv1.weight"], padding=1)
            x = x + F.conv3d(normed(inner, f"{name}.norm2"), state[f"{name}.conv2.weight"], padding=1)
        if level < 4:
            x = F.conv3d(x, state[f"layers.{level}.downsample.weight"], stride=2, padding=1)
    return x.mean((2, 3, 4))[0]


def test_one_vector_a_volume_seen_from_the_left_and_the_back(run: Run, weights: dict[str, torch.Tensor]) -> None:
    given = volume()
    (found,) = features(run, given)
    grey = torch.from_numpy((given.hu.astype(np.float32).clip(-1024, 2048) + 1024) / 3072)
    upright = torch.from_numpy(np.ascontiguousarray(grey.numpy().transpose(2, 1, 0)[:, ::-1, ::-1]))
    assert found.shape == (1, 64) and found.dtype == np.float32
    np.testing.assert_allclose(found[0], by_hand(weights, upright[None, None]).numpy(), rtol=1e-4, atol=1e-5)


def test_volumes_are_read_at_their_true_voxel_size_and_in_windows(run: Run, weights: dict[str, torch.Tensor]) -> None:
    del weights
    hu = volume((79, 71, 65)).hu
    fine, plain = Volume(hu, np.diag([0.5, 0.5, 1.5, 1.0])), Volume(hu[::2, ::2, ::2], np.diag([*MM, 1.0]))
    a, b, c = features(run, fine, plain, Volume(hu, plain.affine))
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    assert np.linalg.norm(a - c) > 1e-2 * np.linalg.norm(a)
    long = volume((96, 40, 33))
    halves = [Volume(long.hu[:48], long.affine), Volume(long.hu[48:], long.affine)]
    (found,) = features(run, long, window=(64, 64, 64))
    np.testing.assert_allclose(found, np.mean(features(run, *halves), axis=0), rtol=1e-4, atol=1e-6)


def test_the_weights_are_recorded_and_absent_ones_named(
    weights: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del weights
    text = CTFMExtractor(CTFMConfig()).preprocessing
    assert text["weights_locked"] is True and len(text["weights_sha256"]) == 64
    for changed in (CTFMConfig(spacing=(2, 2, 2)), CTFMConfig(hu_window=(-1000, 1000))):
        assert text != CTFMExtractor(changed).preprocessing
    monkeypatch.setenv(pretrained.ENVIRONMENT, str(tmp_path / "elsewhere"))
    with pytest.raises(MissingError, match=r"model.safetensors.*project-lighter/ct_fm_feature_extractor"):
        CTFMExtractor(CTFMConfig()).preprocessing  # noqa: B018
    for wrong in ({"hu_window": (5, 5)}, {"spacing": (0, 1, 1)}, {"window": (10, 64, 64)}):
        with pytest.raises(ValidationError):
            CTFMConfig.model_validate(wrong)


def test_files_of_another_kind_are_refused(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    save_file(
        {name: value for name, value in weights.items() if "layers.4" not in name}, tmp_path / "short.safetensors"
    )
    with pytest.raises(UserError, match="missing tensor 'layers.4.*another architecture"):
        network.load(tmp_path / "short.safetensors")
    (tmp_path / "text.safetensors").write_text("no weights")
    with pytest.raises(UserError, match="unreadable.*expected CT-FM"):
        network.load(tmp_path / "text.safetensors")
