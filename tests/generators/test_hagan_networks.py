"""HA-GAN's networks against a plain reckoning of the same layers in the authors' names, and its shapes at every size."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from medlord_bench.errors import UserError
from medlord_bench.generators.hagan.configs import NetConfig, Part
from medlord_bench.generators.hagan.convert import convert
from medlord_bench.generators.hagan.images import from_cube, small, to_cube
from medlord_bench.generators.hagan.networks import Discriminator, Generator, LatentEncoder, SlabEncoder, slab

GROUPS = 2
NETWORKS = {"generator": Generator, "slab_encoder": SlabEncoder, "latent_encoder": LatentEncoder}


def config(size: int = 64) -> NetConfig:
    return NetConfig(size=size, channels=64, latent=16, norm_num_groups=GROUPS)


# --------------------------------------------------------------------------- the authors' tensors, by their own names
def _conv(name: str, channels_in: int, channels_out: int, kernel: int) -> dict[str, Tensor]:
    made = torch.randn(channels_out, channels_in, kernel, kernel, kernel) / (channels_in * kernel**3) ** 0.5
    return {f"{name}.weight": made, f"{name}.bias": torch.randn(channels_out)}


def _norm(name: str, channels: int) -> dict[str, Tensor]:
    return {f"{name}.weight": torch.rand(channels) + 0.5, f"{name}.bias": torch.randn(channels)}


def authors(part: Part, size: int, c: int = 64, latent: int = 16) -> dict[str, Tensor]:
    """One network's tensors as the authors name them (Model_HA_GAN_256.py, Model_HA_GAN_128.py), with random values."""
    tensors: dict[str, Tensor] = {}
    if part == "generator":
        tensors |= {"fc1.weight": torch.randn(64 * c, latent) / latent**0.5, "fc1.bias": torch.randn(64 * c)}
        widths = [c, c, c, c // 2, c // 4, c // 8, c // 16]
        for i in range(6):
            tensors |= _conv(f"tp_conv{i + 1}", widths[i], widths[i + 1], 3) | _norm(f"bn{i + 1}", widths[i + 1])
        tensors |= _conv("tp_conv7", c // 16, 1, 3)
        for i, (a, b) in enumerate([(c // 8, c // 16), (c // 16, c // 32)]):
            tensors |= _conv(f"sub_G.tp_conv{i + 1}", a, b, 3) | _norm(f"sub_G.bn{i + 1}", b)
        return tensors | _conv("sub_G.tp_conv3", c // 32, 1, 3)
    if part == "slab_encoder":
        for i, (a, b, kernel) in enumerate([(1, c // 16, 4), (c // 16, c // 16, 3), (c // 16, c // 8, 4)]):
            tensors |= _conv(f"conv{i + 1}", a, b, kernel) | _norm(f"bn{i + 1}", b)
        return tensors
    first, widths = (
        (1, [c // 8, c // 16, c // 8, c // 4, c // 2]) if size == 256 else (2, [c // 8, c // 8, c // 4, c // 2])
    )
    for i in range(len(widths) - 1):
        tensors |= _conv(f"conv{first + i}", widths[i], widths[i + 1], 4) | _norm(f"bn{first + i}", widths[i + 1])
    return tensors | _conv("conv5", c // 2, latent, 4)


def _saved(path: Path, tensors: Mapping[str, Tensor]) -> Path:
    torch.save({"model": {f"module.{name}": value for name, value in tensors.items()}, "optimizer": {}}, path)
    return path


def _unit(t: Mapping[str, Tensor], conv: str, norm: str, x: Tensor, stride: int = 1) -> Tensor:
    x = F.conv3d(x, t[f"{conv}.weight"], t[f"{conv}.bias"], stride=stride, padding=1)
    return F.relu(F.group_norm(x, GROUPS, t[f"{norm}.weight"], t[f"{norm}.bias"]))


def _twice(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3).repeat_interleave(2, 4)


def _image(t: Mapping[str, Tensor], conv: str, x: Tensor) -> Tensor:
    return torch.tanh(F.conv3d(x, t[f"{conv}.weight"], t[f"{conv}.bias"], padding=1))


def _features(t: Mapping[str, Tensor], z: Tensor, doublings: int, c: int = 64) -> Tensor:
    x = F.linear(z, t["fc1.weight"], t["fc1.bias"]).reshape(len(z), c, 4, 4, 4)
    for i in range(5):
        x = _unit(t, f"tp_conv{i + 1}", f"bn{i + 1}", x)
        x = _twice(x) if i < doublings else x
    return x


def _high(t: Mapping[str, Tensor], x: Tensor) -> Tensor:
    return _image(t, "tp_conv7", _twice(_unit(t, "tp_conv6", "bn6", _twice(x))))


# ---------------------------------------------------------------------------------------------------------------- tests
@pytest.mark.parametrize(("size", "doublings"), [(128, 3), (256, 4)])
def test_the_authors_generator_gives_the_same_volumes(size: int, doublings: int, tmp_path: Path) -> None:
    torch.manual_seed(size)
    theirs = authors("generator", size)
    ours = Generator(config(size))
    ours.load_state_dict(convert(_saved(tmp_path / "G_iter80000.pth", theirs), "generator"), strict=True)
    z = torch.randn(1, 16)
    with torch.no_grad():
        features = _features(theirs, z, doublings)
        first, thick = size // 2, size // 8
        part, whole = ours(z, first)
        torch.testing.assert_close(
            part, _high(theirs, features[:, :, first // 4 : (first + thick) // 4]), atol=1e-5, rtol=0
        )
        low = _unit(theirs, "sub_G.tp_conv2", "sub_G.bn2", _unit(theirs, "sub_G.tp_conv1", "sub_G.bn1", features))
        torch.testing.assert_close(whole, _image(theirs, "sub_G.tp_conv3", low), atol=1e-5, rtol=0)
        if size == 128:
            torch.testing.assert_close(ours.volume(z), _high(theirs, features), atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [128, 256])
def test_the_authors_encoders_give_the_same_features(size: int, tmp_path: Path) -> None:
    torch.manual_seed(size)
    slabs, latent = authors("slab_encoder", size), authors("latent_encoder", size)
    ours, to_z = SlabEncoder(config(size)), LatentEncoder(config(size))
    ours.load_state_dict(convert(_saved(tmp_path / "E.pth", slabs), "slab_encoder"), strict=True)
    to_z.load_state_dict(convert(_saved(tmp_path / "Sub_E.pth", latent), "latent_encoder"), strict=True)
    image, features = torch.randn(1, 1, 16, 32, 32), torch.randn(2, 8, *3 * (size // 4,))
    with torch.no_grad():
        x = _unit(slabs, "conv2", "bn2", _unit(slabs, "conv1", "bn1", image, 2))
        torch.testing.assert_close(ours(image), _unit(slabs, "conv3", "bn3", x, 2), atol=1e-5, rtol=0)
        x = features
        for i in range(1 if size == 256 else 2, 5):
            x = _unit(latent, f"conv{i}", f"bn{i}", x, 2)
        expected = F.conv3d(x, latent["conv5.weight"], latent["conv5.bias"]).reshape(2, 16)
        torch.testing.assert_close(to_z(features), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("size", "parameters"),
    [(256, (52_518_210, 7_402_258, 161_152, 19_663_264)), (128, (52_518_210, 7_241_442, 161_152, 19_663_168))],
)
def test_parameters_are_as_many_as_the_authors(size: int, parameters: tuple[int, ...]) -> None:
    """The figures: counted on the authors' networks (batmanlab/HA-GAN @ 1d4f226)."""
    with torch.device("meta"):
        made = [net(NetConfig(size=size)) for net in (Generator, Discriminator, SlabEncoder, LatentEncoder)]
    assert tuple(sum(p.numel() for p in net.parameters()) for net in made) == parameters


@pytest.mark.parametrize("size", [32, 64, 128])
def test_every_size_fits_together(size: int) -> None:
    net = config(size)
    generator, features = Generator(net).eval(), SlabEncoder(net)
    with torch.no_grad():
        part, whole = generator(torch.randn(2, 16), net.size - net.thickness)
        assert part.shape == (2, 1, size // 8, size, size) and whole.shape == (2, 1, *3 * (size // 4,))
        assert generator.volume(torch.randn(1, 16)).shape == (1, 1, size, size, size)
        found = features.whole(torch.randn(1, 1, size, size, size))
        assert found.shape == generator.trunk(torch.randn(1, 16)).shape
        assert LatentEncoder(net)(found).shape == (1, 16)
        assert Discriminator(net)(part, whole, 0).shape == (2, 1)


def test_the_discriminator_is_told_where_the_slab_lies() -> None:
    torch.manual_seed(0)
    critic = Discriminator(config(32)).eval()
    part, whole = torch.randn(1, 1, 4, 32, 32), torch.randn(1, 1, 8, 8, 8)
    assert critic(part, whole, 0).item() != critic(part, whole, 28).item()


def test_every_layer_of_the_discriminator_is_spectrally_normalised() -> None:
    critic = Discriminator(config(32))
    for _step in range(50):  # a power iteration each
        critic(torch.randn(1, 1, 4, 32, 32), torch.randn(1, 1, 8, 8, 8), 0)
    layers = [m for m in critic.modules() if isinstance(m, (torch.nn.Conv3d, torch.nn.Linear))]
    assert len(layers) == 3 + 3 + 2  # halvings, and what collapses them, at full resolution; one and the logit, small
    for layer in layers:
        largest = torch.linalg.svdvals(layer.weight.detach().flatten(1))[0].item()
        assert largest == pytest.approx(1, rel=2e-2), layer


def test_the_generator_works_on_one_volume_as_on_several() -> None:
    """The authors' code fails on a batch of one."""
    generator = Generator(config(32)).eval()
    z = torch.randn(3, 16)
    with torch.no_grad():
        torch.testing.assert_close(generator.volume(z)[1:2], generator.volume(z[1:2]), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("size", "nearest"), [(0, 32), (16, 32), (60, 64), (100, 128), (200, 256), (300, 256)])
def test_a_size_it_cannot_take_names_the_nearest(size: int, nearest: int) -> None:
    with pytest.raises(ValueError, match=f"power of two, at least 32; the nearest is {nearest}"):
        NetConfig(size=size)


def test_channels_that_the_norms_cannot_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 32"):
        NetConfig(channels=128)


def test_a_tensor_that_is_none_of_theirs_is_named(tmp_path: Path) -> None:
    path = _saved(tmp_path / "G_iter1.pth", authors("generator", 128) | {"fc9.weight": torch.zeros(1)})
    with pytest.raises(UserError, match=r"G_iter1.pth: tensor 'fc9.weight' is not in HA-GAN's G"):
        convert(path, "generator")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(UserError, match=r"list.pth: expected"):
        convert(tmp_path / "list.pth", "generator")


def test_a_cube_is_the_array_that_simpleitk_reads(tmp_path: Path) -> None:
    """So the authors' weights, trained on such arrays, give volumes that are the right way round."""
    import SimpleITK as sitk

    from medlord_bench.contracts import Volume
    from medlord_bench.volumes.io import write_volume

    hu = np.random.default_rng(0).integers(-1000, 600, (3, 4, 5)).astype(np.int16)
    write_volume(tmp_path / "x.nii.gz", Volume(hu, np.eye(4)))
    image = sitk.DICOMOrient(sitk.ReadImage(str(tmp_path / "x.nii.gz")), "LPS")
    expected = sitk.GetArrayFromImage(image).astype(np.float32) / 800 + 1000 / 800 - 1
    np.testing.assert_allclose(to_cube(hu, (-1000, 600))[0].numpy(), expected, atol=1e-5)
    back, not_finite = from_cube(to_cube(hu, (-1000, 600))[0], (-1000, 600))
    assert (back == hu).all() and not_finite == 0


def test_the_small_volume_is_the_mean_of_its_voxels() -> None:
    images = torch.randn(2, 1, 32, 32, 32)
    expected = images.reshape(2, 1, 8, 4, 8, 4, 8, 4).mean(dim=(3, 5, 7))
    torch.testing.assert_close(small(images), expected)


def test_a_slab_and_its_features_lie_at_the_same_place() -> None:
    """One bright slice of the image lights up in the features of its slab alone."""
    encoder = SlabEncoder(config(32))
    image = torch.zeros(1, 1, 32, 32, 32)
    image[:, :, 9] = 5
    with torch.no_grad():
        plain, lit = encoder.whole(torch.zeros_like(image)), encoder.whole(image)
    changed = (plain != lit).flatten(3).any(dim=3).flatten(0, 1).any(dim=0)
    assert changed.nonzero().flatten().tolist() == [2]
    assert (slab(image, 8, 4) == 5).any() and not (slab(image, 12, 4) == 5).any()
