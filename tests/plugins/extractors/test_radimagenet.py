"""`radimagenet`: the network against torchvision's parts, its two protocols, and what the features may not depend on."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from medlord_bench.contracts import Run, Volume
from medlord_bench.errors import ExitCode, MissingError, UserError
from medlord_bench.nn import pretrained
from medlord_bench.plugins.extractors.radimagenet import network as resnet50_keras
from medlord_bench.plugins.extractors.radimagenet.extractor import RadImageNetConfig, RadImageNetExtractor

PLANES = ("axial", "coronal", "sagittal")
MAISI = RadImageNetExtractor.variants["maisi-compat"]
WINDOW: dict[str, Any] = {"size": 48, "slices": 4}  # small images, so that the tests are quick


def extractor(**settings: Any) -> RadImageNetExtractor:
    return RadImageNetExtractor(RadImageNetConfig.model_validate(settings))


def volume(seed: int = 0, shape: tuple[int, int, int] = (40, 36, 33), low: int = -900, high: int = 700) -> Volume:
    """Blocks of 8 voxels: white noise would average out, and all features be alike."""
    coarse = np.random.default_rng(seed).integers(low, high, [-(-n // 8) for n in shape])
    hu = np.kron(coarse, np.ones((8, 8, 8)))[tuple(slice(n) for n in shape)]
    return Volume(hu.astype(np.int16), np.eye(4))


def features(volumes: list[Volume], run: Run, **settings: Any) -> list[dict[str, np.ndarray]]:
    return [dict(state) for state in extractor(**settings).features(volumes, run)]


def close(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-5 * np.abs(expected).max())


# ------------------------------------------------------------------------------------------------------- the network
@pytest.mark.parametrize("shape", [(64, 64), (75, 90)])
def test_the_network_is_keras_resnet50_and_reads_its_state_dict_strictly(backbone: Any, shape: tuple[int, int]) -> None:
    images = torch.rand((3, 3, *shape), generator=torch.Generator().manual_seed(1)) - 0.45
    with torch.inference_mode():
        found, expected = resnet50_keras.load(backbone.file)(images), backbone.network(images)
    assert found.shape == (3, 2048)
    assert expected.std() > 0.1  # or agreement would mean nothing
    close(found.numpy(), expected.numpy())


@pytest.mark.parametrize("change", ["stride", "bias", "eps"])
def test_each_departure_from_torchvision_is_seen_by_the_comparison(backbone: Any, change: str) -> None:
    """Were the reference blind to one of them, the test above would prove nothing of it."""
    network = resnet50_keras.load(backbone.file)
    images = torch.rand((2, 3, 64, 64), generator=torch.Generator().manual_seed(1)) - 0.45
    if change == "stride":
        network.layer2[0].conv1.stride, network.layer2[0].conv2.stride = (1, 1), (2, 2)
    elif change == "bias":
        network.layer3[1].conv2.bias = torch.nn.Parameter(torch.zeros(256), requires_grad=False)
    else:
        plain = resnet50_keras.ResNet50().eval()
        plain.load_state_dict(backbone.network.state_dict())
        for part in plain.modules():
            if isinstance(part, torch.nn.BatchNorm2d):
                part.eps = 1e-3  # TensorFlow's usual one
        network = plain
    with torch.inference_mode():
        difference = (network(images) - backbone.network(images)).abs().max() / backbone.network(images).abs().max()
    assert difference > 1e-3


def test_torchvision_weights_are_refused_by_name(tmp_path: Path) -> None:
    from torchvision.models import resnet50

    file = tmp_path / "resnet50.pth"
    torch.save(resnet50(weights=None).state_dict(), file)
    with pytest.raises(UserError, match=r"missing tensor 'conv1.bias'.*another architecture"):
        resnet50_keras.load(file)


def test_the_authors_own_torch_weights_are_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "ResNet50.pt"
    torch.save({"backbone.0.weight": torch.zeros(64, 3, 7, 7)}, file)
    with pytest.raises(UserError, match="missing tensor 'conv1.weight'"):
        resnet50_keras.load(file)


# ------------------------------------------------------------------------------------------------------- the weights
def test_missing_weights_are_exit_3_and_say_which_file_where_and_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(pretrained.ENVIRONMENT, str(tmp_path))
    monkeypatch.setenv(pretrained.OFFLINE, "1")
    with pytest.raises(MissingError) as caught:
        _ = extractor().preprocessing
    assert caught.value.code == ExitCode.MISSING
    place = tmp_path / "MONAI/checkpoints"
    for part in (
        str(place / "RadImageNet-ResNet50_notop.pth"),
        f"hf download MONAI/checkpoints RadImageNet-ResNet50_notop.pth --local-dir {place}",
    ):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_protocol_text_is_the_same_at_the_first_look_and_after_the_lock(
    backbone: Any, weights_folder: Path
) -> None:
    backbone.file.with_name(backbone.file.name + ".lock.json").unlink(missing_ok=True)
    first, second = (dict(extractor().preprocessing) for _ in range(2))
    assert first == second
    assert first["weights_locked"] is True
    assert first["weights_sha256"] == pretrained.file_sha256(backbone.file)


def test_weights_that_cannot_be_locked_say_so_in_the_protocol_text(
    backbone: Any, weights_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone.file.with_name(backbone.file.name + ".lock.json").unlink(missing_ok=True)

    def read_only(*_: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(os, "replace", read_only)
    assert [extractor().preprocessing["weights_locked"] for _ in range(2)] == [False, False]


# --------------------------------------------------------------------------------------------------------- protocols
def by_hand(hu: np.ndarray, plane: str, network: torch.nn.Module, ratio: float) -> np.ndarray:
    """The MAISI script's arithmetic from its description: all slices of a plane in one float32 stack."""
    axis = "XYZ".index({"sagittal": "X", "coronal": "Y", "axial": "Z"}[plane])
    depth = hu.shape[axis]
    start, stop = int((1 - ratio) / 2 * depth), int((1 + ratio) / 2 * depth)
    stack = np.stack([hu.take(i, axis) for i in range(start, stop)]).clip(-1000, 1000).astype(np.float32)
    scaled = (stack - stack.min()) / (stack.max() - stack.min())
    images = np.stack([scaled - np.float32(mean) for mean in (0.406, 0.456, 0.485)], axis=1)
    with torch.inference_mode():
        return network(torch.from_numpy(images)).numpy()


@pytest.mark.parametrize("ratio", [1.0, 0.4])
def test_maisi_compat_is_the_scripts_arithmetic(backbone: Any, weights_folder: Path, run: Run, ratio: float) -> None:
    given = volume(low=-1200, high=300)  # one end is clipped, the other is the volume's own
    found = features([given], run, **MAISI, centre_ratio=ratio)[0]
    for plane in PLANES:
        close(found[plane], by_hand(given.hu, plane, backbone.network, ratio))


def test_maisi_compat_is_blind_to_gain_and_offset_and_the_fixed_window_is_not(weights_folder: Path, run: Run) -> None:
    given = volume(low=-400, high=300)
    changed = Volume((given.hu * 1.25 + 60).round().astype(np.int16), given.affine)
    exact = Volume((given.hu // 4 * 4).astype(np.int16), given.affine)  # 1.25 times a multiple of 4 is whole
    scaled = Volume((exact.hu * 1.25 + 60).astype(np.int16), given.affine)
    first, second = features([exact, scaled], run, **MAISI, centre_ratio=0.2)
    close(second["axial"], first["axial"])
    first, second = features([given, changed], run, **WINDOW)
    assert np.abs(second["axial"] - first["axial"]).max() > 0.05 * np.abs(first["axial"]).max()


def test_one_bright_voxel_outside_the_chosen_slices_changes_nothing(weights_folder: Path, run: Run) -> None:
    """The range is that of a plane's own stack, as in the script, not of the volume."""
    given = volume(low=-400, high=300)
    spot = given.hu.copy()
    spot[20, 18, 0] = 900
    first, second = features([given, Volume(spot, given.affine)], run, **MAISI, centre_ratio=0.2)
    np.testing.assert_array_equal(first["axial"], second["axial"])  # slice 0 is not in the middle fifth
    assert np.abs(first["coronal"] - second["coronal"]).max() > 1e-3  # of Y = 18 every z is


def test_orientation_follows_the_protocol_unless_it_is_set() -> None:
    assert extractor().config.upright
    assert not extractor(normalisation="volume-min-max").config.upright
    assert extractor(normalisation="volume-min-max", orientation="upright").config.upright
    assert not extractor(orientation="array").config.upright


def test_every_setting_that_changes_features_changes_the_protocol_text(weights_folder: Path) -> None:
    settings: list[dict[str, Any]] = [
        {},
        {"hu_window": (-1000, 800)},
        {"normalisation": "volume-min-max", "orientation": "upright"},
        {"normalisation": "volume-min-max"},
        {"slices": None},
        {"slices": 16},
        {"centre_ratio": 0.4},
        {"size": None},
        {"size": 256},
        {"orientation": "array"},
    ]
    texts = [str(dict(extractor(**one).preprocessing)) for one in settings]
    assert len(set(texts)) == len(settings)


@pytest.mark.parametrize("settings", [{"hu_window": (5, 5)}, {"centre_ratio": 0}, {"size": 8}, {"normalisation": "z"}])
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        extractor(**settings)


def test_a_middle_without_slices_is_an_error_that_names_the_field(weights_folder: Path, run: Run) -> None:
    with pytest.raises(UserError, match="centre_ratio: 0.1 of 3 axial slices"):
        features([volume(shape=(40, 40, 3))], run, **MAISI, centre_ratio=0.1)


# -------------------------------------------------------------------------------------------------------- invariance
@pytest.mark.parametrize("settings", [WINDOW, {**MAISI, "centre_ratio": 0.2}], ids=["window", "maisi"])
def test_features_do_not_depend_on_batch_neighbours_or_memory_layout(
    weights_folder: Path, run: Run, settings: dict[str, Any]
) -> None:
    transposed = Volume(np.asfortranarray(volume(1).hu), np.eye(4))
    together = features([volume(0), volume(1), transposed], dataclasses.replace(run, batch=4), **settings)
    alone = features([volume(1)], run, **settings)[0]
    for plane in PLANES:
        assert together[1][plane].tobytes() == alone[plane].tobytes() == together[2][plane].tobytes()


@pytest.mark.parametrize("settings", [WINDOW, {**MAISI, "centre_ratio": 0.2}], ids=["window", "maisi"])
def test_chunk_size_changes_nothing_but_rounding(
    weights_folder: Path, run: Run, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = features([volume()], run, **settings)[0]
    monkeypatch.setattr("medlord_bench.plugins.extractors.slices.chunk_size", lambda device: 3)
    for plane, values in features([volume()], run, **settings)[0].items():
        close(values, whole[plane])


def test_a_constant_volume_gives_finite_features(weights_folder: Path, run: Run) -> None:
    flat = Volume(np.full((36, 36, 34), -1000, np.int16), np.eye(4))
    found = features([flat], run, **MAISI, centre_ratio=0.1)[0]
    assert all(np.isfinite(values).all() for values in found.values())
