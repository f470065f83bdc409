"""The loss terms against MONAI's, lpips's and closed forms; the perceptual backbone's file is never guessed."""

from __future__ import annotations

import warnings
from pathlib import Path

import lpips
import pytest
import torch
import torchvision
from monai.losses import JukeboxLoss

from medlord_bench.errors import MissingError, UserError
from medlord_bench.nn import losses
from medlord_bench.nn.losses import Adversary, Perceptual, Spectral, check_perceptual_weights
from medlord_bench.nn.vqgan.config import adversary_fits
from medlord_bench.util.hashing import file_sha256


def images(seed: int, side: int = 32) -> torch.Tensor:
    return torch.rand(1, 1, side, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.fixture
def backbone(tmp_path: Path) -> Path:
    """A squeezenet file of random weights, laid out as torchvision's."""
    torch.manual_seed(0)
    path = tmp_path / losses.BACKBONE
    torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), path)
    return path


@pytest.fixture(autouse=True)
def empty_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))


def test_a_missing_backbone_names_the_file_and_both_places(tmp_path: Path) -> None:
    with pytest.raises(MissingError) as caught:
        check_perceptual_weights(tmp_path / "weights")
    message = str(caught.value)
    assert str(tmp_path / "weights" / losses.BACKBONE) in message
    assert str(tmp_path / "hub" / "checkpoints" / losses.BACKBONE) in message
    assert "https://" in message
    assert "\n" not in message


def test_a_damaged_backbone_is_refused(backbone: Path) -> None:
    with pytest.raises(UserError, match="expected b8a52dc0"):
        check_perceptual_weights(backbone.parent)


def test_a_backbone_is_found_in_the_folder_or_the_hub(backbone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "BACKBONE_SHA256", file_sha256(backbone)[:8])
    assert check_perceptual_weights(backbone.parent) == backbone
    hub = backbone.parent / "hub" / "checkpoints"
    hub.mkdir(parents=True)
    backbone.rename(hub / backbone.name)
    assert check_perceptual_weights(backbone.parent) == hub / backbone.name


def reference_lpips(backbone: Path) -> torch.nn.Module:
    """lpips's own network with the same backbone, put in through torchvision's names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = lpips.LPIPS(net="squeeze", pnet_rand=True, verbose=False)
    features = torchvision.models.squeezenet1_1(weights=None)
    features.load_state_dict(torch.load(backbone, weights_only=True))
    layers = iter(features.features)
    for i in range(1, 8):
        cut = getattr(network.net, f"slice{i}")
        for name in list(cut._modules):
            cut._modules[name] = next(layers)
    return network.eval()


def test_perceptual_is_lpips_on_the_slices_of_three_axes(backbone: Path) -> None:
    loss, reference = Perceptual(backbone, slices=1.0), reference_lpips(backbone)
    a, b = images(0), images(1)
    with torch.no_grad():
        expected = 0.0
        for axis in (2, 3, 4):
            pairs = [torch.stack(x.unbind(axis))[:, 0] for x in (a, b)]
            expected += float(reference(*pairs).mean())
        assert float(loss(a, b)) == pytest.approx(expected, rel=1e-5)


def test_perceptual_slices_repeat_under_a_seed(backbone: Path) -> None:
    loss = Perceptual(backbone, slices=0.25)
    values = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        values.append(float(loss(images(0), images(1))))
    assert values[0] == values[1] != values[2]


def test_perceptual_never_enters_training_mode_and_is_frozen(backbone: Path) -> None:
    loss = torch.nn.ModuleDict({"p": Perceptual(backbone)}).train()["p"]
    assert not any(module.training for module in loss.modules())
    assert not any(parameter.requires_grad for parameter in loss.parameters())


def test_a_backbone_of_another_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / losses.BACKBONE
    torch.save({"features.0.weight": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="tensor"):
        Perceptual(path)


def test_spectral_is_monais_loss_with_air_at_zero() -> None:
    a, b = images(0), images(1)
    torch.testing.assert_close(Spectral()(a, b), JukeboxLoss(spatial_dims=3)(a + 1, b + 1))


def test_spectral_does_not_hold_a_reconstruction_on_the_wrong_sign() -> None:
    real = torch.full((1, 1, 8, 8, 8), -0.8)
    fake = torch.full((1, 1, 8, 8, 8), 0.3, requires_grad=True)
    Spectral()(fake, real).backward()
    assert fake.grad is not None
    assert (fake.grad > 0).all()  # downhill is towards the data; MONAI's own goes away from it


def test_spectral_gradient_is_finite_where_an_amplitude_is_zero() -> None:
    flat = torch.full((1, 1, 8, 8, 8), -1.0, requires_grad=True)
    Spectral()(flat, images(0, 8)).backward()
    assert flat.grad is not None
    assert torch.isfinite(flat.grad).all()


def test_adversarial_losses_are_least_squares() -> None:
    torch.manual_seed(0)
    adversary = Adversary(channels=4, layers=2)
    a, b = images(0), images(1)
    with torch.no_grad():
        real, fake = (torch.nn.functional.leaky_relu(adversary.discriminator(x)[-1], 0.05) for x in (b, a))
        torch.testing.assert_close(adversary.generator_loss(a), (fake - 1).square().mean())
        expected = (fake.square().mean() + (real - 1).square().mean()) / 2
        torch.testing.assert_close(adversary.discriminator_loss(a, b), expected)


def test_the_discriminators_loss_does_not_reach_the_generator() -> None:
    fake = images(0).requires_grad_()
    Adversary(channels=4, layers=2).discriminator_loss(fake, images(1)).backward()
    assert fake.grad is None


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_adversary_fits_agrees_with_torch(layers: int) -> None:
    adversary = Adversary(channels=2, layers=layers)
    for side in range(8, 41, 4):
        try:
            works = min(adversary.discriminator(torch.zeros(1, 1, side, side, side))[-1].shape[2:]) > 0
        except (ValueError, RuntimeError):
            works = False
        assert adversary_fits((side, side, side), layers) == works, side
