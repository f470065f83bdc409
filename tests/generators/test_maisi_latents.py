"""Latents: the encoder's means, their scale, windows over a volume, and the way to MAISI's grid and back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data.utils import compute_importance_map, dense_patch_slices
from monai.inferers import SlidingWindowInferer
from numpy.typing import NDArray
from torch.nn import functional

from medlord_bench.contracts import DataProtocol, Grid, Run, Shape, Split
from medlord_bench.errors import MissingError, StepError, Stopped
from medlord_bench.generators.maisi.autoencoder import Autoencoder, save_autoencoder, to_unit
from medlord_bench.generators.maisi.configs import LatentsConfig, NetConfig, TilingConfig
from medlord_bench.generators.maisi.latents import StoredLatents, decode, encode, encode_cohort
from medlord_bench.generators.maisi.spacing import spacing_on
from medlord_bench.generators.maisi.tiles import blended, importance, starts
from medlord_bench.nn.diffusion.latents import latent_facts
from medlord_bench.util.seeds import noise, numpy_rng
from medlord_bench.volumes.arrays import load_state

NET = NetConfig(channels=(4, 4, 8), num_res_blocks=1, norm_num_groups=4)
WINDOW = (-1000, 1000)
SHAPE = (16, 16, 8)
LATENTS = LatentsConfig(precision="fp32")


class Noise:
    """Three training and one validation images of blurred noise, with their own voxel sizes."""

    label_names: Mapping[int, str] = {}

    def __init__(self, shape: Shape = SHAPE) -> None:
        self.shape = shape
        self.protocol = DataProtocol(
            name="noise",
            grid=Grid(shape=shape, spacing=(9.0, 9.0, 9.0)),
            fit="crop-pad",
            split="by hand",
            split_sha256="",
            counts={"train": 3, "val": 1},
            masks="none",
        )

    def ids(self, split: Split) -> Sequence[str]:
        return {"train": ["a", "b", "c"], "val": ["d"], "test": ["e"]}[split]

    def hu(self, case_id: str) -> NDArray[np.int16]:
        coarse = torch.from_numpy(numpy_rng(case_id).normal(0, 600, (1, 1, 4, 4, 4)))
        fine = functional.interpolate(coarse, self.shape, mode="trilinear")[0, 0]
        return fine.numpy().astype(np.int16)

    def labels(self, case_id: str) -> NDArray[np.uint8] | None:
        return None

    def spacing(self, case_id: str) -> tuple[float, float, float]:
        return (1.0, 1.0, {"a": 1.0, "b": 2.0, "c": 5.0, "d": 50.0}[case_id])


@pytest.fixture
def net() -> Autoencoder:
    torch.manual_seed(0)
    return Autoencoder(NET).eval().requires_grad_(False)


@pytest.fixture
def inputs(net: Autoencoder, tmp_path: Path) -> dict[str, Path]:
    save_autoencoder(tmp_path / "autoencoder", NET, net.state_dict(), WINDOW, {})
    return {"autoencoder": tmp_path / "autoencoder"}


# ---------------------------------------------------------------------------------------------------------- the cohort
def test_stored_latents_are_the_means_without_the_encoders_noise(
    net: Autoencoder, inputs: dict[str, Path], run: Run, tmp_path: Path
) -> None:
    data = Noise()
    folder = encode_cohort(LATENTS, data, SHAPE, inputs, tmp_path / "out", run)
    for case in "abcd":
        state = load_state(folder / f"{case}.safetensors")
        mean, deviation = net.encode(to_unit(data.hu(case), WINDOW)[None, None])
        np.testing.assert_allclose(state["latent"], mean[0].numpy(), rtol=1e-5, atol=1e-6)
        assert float(deviation.min()) > 1e-3, "with such a deviation, a noisy draw would differ from the mean"
        assert state["spacing"].tolist() == list(data.spacing(case))
    assert not (folder / "e.safetensors").exists(), "the test split is not for training"


def test_the_scale_brings_the_training_latents_to_unit_deviation(
    inputs: dict[str, Path], run: Run, tmp_path: Path
) -> None:
    data = Noise()
    folder = encode_cohort(LATENTS, data, SHAPE, inputs, tmp_path / "out", run)
    stored = StoredLatents(folder, data)
    scaled = np.stack([stored.latent(case).numpy() for case in data.ids("train")])
    assert np.std(scaled.astype(np.float64)) == pytest.approx(1, rel=1e-5)
    assert latent_facts(folder)["measured"] and latent_facts(folder)["channels"] == 4
    assert stored.spacing_of_a_sample == (1.0, 1.0, 2.0)  # the training cases' median
    assert [stored.spacing(case).tolist() for case in "cc"] == [[1.0, 1.0, 5.0]] * 2


def test_a_given_scale_is_taken(inputs: dict[str, Path], run: Run, tmp_path: Path) -> None:
    given = LATENTS.model_copy(update={"scale": 1.25})
    folder = encode_cohort(given, Noise(), SHAPE, inputs, tmp_path / "out", run)
    assert (latent_facts(folder)["scale"], latent_facts(folder)["measured"]) == (1.25, False)
    raw = load_state(folder / "a.safetensors")["latent"]
    np.testing.assert_allclose(StoredLatents(folder, Noise()).latent("a").numpy(), raw * 1.25, rtol=1e-6)


def test_encoding_goes_on_where_it_was_stopped(inputs: dict[str, Path], run: Run, tmp_path: Path) -> None:
    looks = iter([False, True])
    with pytest.raises(Stopped):
        stopping = dataclasses.replace(run, stop=lambda: next(looks))
        encode_cohort(LATENTS, Noise(), SHAPE, inputs, tmp_path / "out", stopping)
    folder = tmp_path / "out" / "latents"
    done = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert set(done) == {"a.safetensors", "b.safetensors"}
    with pytest.raises(MissingError, match=r"latents\.json: not found"):
        StoredLatents(folder, Noise())
    encode_cohort(LATENTS, Noise(), SHAPE, inputs, tmp_path / "out", run)
    straight = encode_cohort(LATENTS, Noise(), SHAPE, inputs, tmp_path / "straight", run)
    assert all((folder / name).stat().st_mtime_ns == when for name, when in done.items())
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {p.name: p.read_bytes() for p in straight.iterdir()}


def test_latents_that_do_not_vary_end_the_run(inputs: dict[str, Path], run: Run, tmp_path: Path) -> None:
    dead = Autoencoder(NET)
    for value in dead.parameters():
        torch.nn.init.zeros_(value)
    save_autoencoder(inputs["autoencoder"], NET, dead.state_dict(), WINDOW, {})
    with pytest.raises(StepError, match="latents deviate by 0"):
        encode_cohort(LATENTS, Noise(), SHAPE, inputs, tmp_path / "out", run)


def test_a_cohort_on_another_grid_is_brought_onto_maisis_with_its_voxel_size(
    inputs: dict[str, Path], run: Run, tmp_path: Path
) -> None:
    data = Noise((16, 16, 16))
    folder = encode_cohort(LATENTS, data, SHAPE, inputs, tmp_path / "out", run)
    state = load_state(folder / "b.safetensors")
    assert state["latent"].shape == (4, 4, 4, 2)
    assert state["spacing"].tolist() == [1.0, 1.0, 4.0]  # half the slices, twice as thick


# ------------------------------------------------------------------------------------------------------------- windows
@pytest.mark.parametrize(
    ("size", "tile", "overlap"), [(128, 80, 0.4), (32, 32, 0.4), (32, 80, 0.4), (64, 24, 0.0), (9, 4, 0.9)]
)
def test_windows_begin_where_monais_do(size: int, tile: int, overlap: float) -> None:
    window = min(size, tile)
    stride = max(1, int(tile * (1 - overlap)))
    theirs = dense_patch_slices([size], [window], [stride])
    assert starts(size, tile, overlap) == [place[0].start for place in theirs]


def test_a_windows_weight_is_monais_gaussian() -> None:
    theirs = compute_importance_map((10, 8, 6), mode="gaussian", sigma_scale=0.125).clamp(min=1e-3)
    torch.testing.assert_close(importance((10, 8, 6), 1), theirs, rtol=1e-4, atol=1e-6)
    fine = functional.interpolate(theirs[None, None], scale_factor=4, mode="nearest")[0, 0]
    torch.testing.assert_close(importance((10, 8, 6), 4), fine, rtol=1e-4, atol=1e-6)


def _seams(z: torch.Tensor) -> torch.Tensor:
    """A decoder whose output depends on the whole of its window, so that the blending shows."""
    return functional.interpolate(z.cumsum(2).cumsum(4)[:, :1], scale_factor=4, mode="nearest")


def test_decoding_in_windows_is_monais_sliding_window_inference() -> None:
    z, tile = noise((1, 4, 11, 9, 8), "latent"), (6, 9, 4)
    monai = SlidingWindowInferer(tile, sw_batch_size=1, overlap=0.4, mode="gaussian", sigma_scale=0.125)
    ours = blended(_seams, z, tile, 0.4, read=1, written=4, device="cpu")
    torch.testing.assert_close(ours, monai(z, _seams), rtol=1e-4, atol=1e-4)
    assert float((ours - _seams(z)).abs().max()) > 1, "else no window was cut"


def test_windows_of_a_network_that_sees_only_its_voxels_give_the_untiled_result() -> None:
    x = noise((1, 1, 44, 24, 32), "image")
    pooled = blended(lambda part: functional.avg_pool3d(part, 4), x, (5, 3, 4), 0.4, 4, 1, "cpu")
    torch.testing.assert_close(pooled, functional.avg_pool3d(x, 4))
    grown = blended(
        lambda part: part.repeat_interleave(4, 2).repeat_interleave(4, 3).repeat_interleave(4, 4),
        pooled,
        (5, 3, 4),
        0.4,
        1,
        4,
        "cpu",
    )
    assert grown.shape == x.shape
    torch.testing.assert_close(functional.avg_pool3d(grown, 4), pooled)


def test_the_autoencoder_in_windows_stays_close_to_one_pass(net: Autoencoder) -> None:
    image = to_unit(Noise((64, 32, 32)).hu("a"), WINDOW)[None, None]
    one, many = TilingConfig(precision="fp32"), TilingConfig(tile=(10, 8, 8), precision="fp32")
    whole, tiled = encode(net, image, one, "cpu"), encode(net, image, many, "cpu")
    assert tiled.shape == whole.shape == (1, 4, 16, 8, 8)
    # Only group norms, which see a window, and the windows' borders differ.
    assert float((tiled - whole).square().mean() / whole.var()) < 0.1
    rebuilt, pieces = decode(net, whole, one, "cpu"), decode(net, whole, many, "cpu")
    assert pieces.shape == image.shape
    assert float((pieces - rebuilt).square().mean() / rebuilt.var()) < 0.1


# ------------------------------------------------------------------------------------------------------------ the grid
def test_voxel_sizes_keep_the_field_of_view() -> None:
    assert spacing_on((0.5, 0.5, 1.0), (512, 512, 256), (512, 512, 128)) == (0.5, 0.5, 2.0)
    assert spacing_on(None, (64, 64, 64), (32, 64, 128)) == (2.0, 1.0, 0.5)


def test_facts_are_json_that_another_program_reads(inputs: dict[str, Path], run: Run, tmp_path: Path) -> None:
    folder = encode_cohort(LATENTS, Noise(), SHAPE, inputs, tmp_path / "out", run)
    found: dict[str, Any] = json.loads((folder / "latents.json").read_text())
    assert set(found) == {"scale", "measured", "channels", "spacing"} and found["scale"] > 0
