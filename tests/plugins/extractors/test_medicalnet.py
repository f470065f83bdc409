"""`medicalnet`: files as published, found offline; the network against medmetric's, where that is installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from medlord_bench.contracts import Run, Volume
from medlord_bench.errors import MissingError, UserError
from medlord_bench.nn import pretrained
from medlord_bench.plugins.extractors.medicalnet.extractor import MedicalNetConfig, MedicalNetExtractor, weights_file
from medlord_bench.plugins.extractors.medicalnet.network import layout, load
from medlord_bench.plugins.extractors.resnet3d import ResNet3D, forward


def published(folder: Path, depth: int) -> Path:
    """A file of the published layout and names, with random weights, at its place in a weights folder."""
    torch.manual_seed(depth)
    network = ResNet3D(layout(depth))
    with torch.no_grad():
        network.train()(torch.randn(2, 1, 24, 24, 24))
    state = {f"module.{name}": value for name, value in network.state_dict().items() if "tracked" not in name}
    file = weights_file(depth)
    path = folder / file.repo / file.file
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": state}, path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("weights")
    published(place, 10)
    return place


@pytest.fixture
def offline(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(pretrained.ENVIRONMENT, str(folder))
    monkeypatch.setenv(pretrained.OFFLINE, "1")
    return folder


def volume(seed: int = 0, gain: float = 1.0, offset: float = 0.0) -> Volume:
    hu = np.random.default_rng(seed).integers(-500, 300, (5, 5, 4)).repeat(8, 0).repeat(8, 1).repeat(8, 2)
    return Volume(np.rint(gain * hu + offset).astype(np.int16), np.diag([1.5, 1.5, 1.5, 1.0]))


def features(run: Run, given: Volume, **settings: object) -> np.ndarray:
    (state,) = MedicalNetExtractor(MedicalNetConfig.model_validate({"depth": 10, **settings})).features([given], run)
    return state["volume"]


def test_one_vector_a_volume_of_standardised_values(run: Run, offline: Path) -> None:
    given = volume()
    found = features(run, given)
    hu = torch.from_numpy(given.hu.astype(np.float32))
    network = load(offline / weights_file(10).repo / weights_file(10).file, 10)
    expected = forward(network, ((hu - hu.mean()) / hu.std(correction=0)).permute(2, 1, 0)[None].contiguous())
    assert found.shape == (1, 512)
    np.testing.assert_allclose(found[0], expected.numpy(), rtol=1e-4, atol=1e-5)


def test_gain_and_offset_are_not_seen_as_the_docs_say(run: Run, offline: Path) -> None:
    del offline
    plain = features(run, volume())
    np.testing.assert_allclose(features(run, volume(gain=1.5, offset=100)), plain, rtol=1e-2, atol=1e-2 * plain.max())
    assert np.isfinite(features(run, Volume(np.full((40, 40, 32), -1000, np.int16), np.eye(4)))).all()


def test_voxel_size_decides_unless_it_is_switched_off(run: Run, offline: Path) -> None:
    del offline
    given, twice = volume(), Volume(volume().hu, np.diag([3.0, 3.0, 3.0, 1.0]))
    assert not np.allclose(features(run, given), features(run, twice), rtol=1e-2)
    np.testing.assert_array_equal(features(run, given, spacing=None), features(run, twice, spacing=None))


def test_the_weights_are_recorded_and_absent_ones_named(offline: Path) -> None:
    text = MedicalNetExtractor(MedicalNetConfig(depth=10)).preprocessing
    assert text["weights_locked"] is True and len(text["weights_sha256"]) == 64
    assert (offline / weights_file(10).repo / (weights_file(10).file + ".lock.json")).exists()
    with pytest.raises(MissingError, match=r"resnet_50_23dataset.pth.*TencentMedicalNet/MedicalNet-Resnet50"):
        MedicalNetExtractor(MedicalNetConfig()).preprocessing  # noqa: B018
    for wrong in ({"depth": 12}, {"hu_window": (5, 5)}, {"spacing": (0, 1, 1)}, {"window": (10, 64, 64)}):
        with pytest.raises(ValidationError):
            MedicalNetConfig.model_validate(wrong)


def test_files_of_another_depth_or_kind_are_refused(offline: Path, tmp_path: Path) -> None:
    path = offline / weights_file(10).repo / weights_file(10).file
    with pytest.raises(UserError, match="another architecture"):
        load(path, 18)
    torch.save({"model": {}}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="no 'state_dict'"):
        load(tmp_path / "other.pth", 10)


@pytest.mark.parametrize("depth", [10, 18, 50])
def test_the_network_is_medmetrics(tmp_path: Path, depth: int) -> None:
    resnet = pytest.importorskip("medmetric.models.resnet", reason="pip install medmetric")
    path = published(tmp_path, depth)
    kind = "Bottleneck" if depth == 50 else "BasicBlock"
    theirs = resnet.medicalnet_resnet(
        kind, layout(depth).blocks, shortcut_type="A" if depth == 18 else "B", no_cuda=True
    )
    state = {
        name.removeprefix("module."): value for name, value in torch.load(path, weights_only=True)["state_dict"].items()
    }
    assert theirs.backbone.load_state_dict(state, strict=False).missing_keys == []  # the file has a head besides
    grey = torch.randn(1, 1, 33, 40, 37, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = theirs.eval()(grey)[0]
    torch.testing.assert_close(forward(load(path, depth), grey[0]), expected, rtol=1e-4, atol=1e-5)
