"""MAISI's autoencoder: MONAI's network, its training on random patches, and storing its weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.apps.generation.maisi.networks.autoencoderkl_maisi import AutoencoderKlMaisi, MaisiGroupNorm3D
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional

from medlord_bench.contracts import Cohort, Precision, Run, Shape, Split
from medlord_bench.errors import MissingError, UserError
from medlord_bench.memory.dry_run import is_dry_run
from medlord_bench.nn.checkpoints import load_model, load_strict, save_model
from medlord_bench.nn.intensity import Window, scale_hu
from medlord_bench.nn.losses import Adversary, Perceptual, check_perceptual_weights
from medlord_bench.nn.optimiser import Optimiser, autocast
from medlord_bench.nn.pretrained import weights_folder
from medlord_bench.nn.ranks import current
from medlord_bench.nn.recompute import run_checkpointed
from medlord_bench.nn.training import Stateful
from medlord_bench.util import seeds

from .configs import AutoencoderConfig, NetConfig

KIND = "maisi.autoencoder"


class Autoencoder(AutoencoderKlMaisi):  # type: ignore[misc]
    """Images (N, 1, X, Y, Z) in [0, 1] <-> a normal distribution over latents (N, C, x, y, z), x = X / factor.

    Parameters and their names are MONAI's. No autoencoder of MAISI has attention.
    """

    def __init__(self, config: NetConfig) -> None:
        levels = len(config.channels)
        super().__init__(
            spatial_dims=3,
            in_channels=1,
            out_channels=1,
            num_channels=config.channels,
            num_res_blocks=[config.num_res_blocks] * levels,
            attention_levels=[False] * levels,
            latent_channels=config.latent_channels,
            norm_num_groups=config.norm_num_groups,
            num_splits=config.num_splits,
            dim_split=1,
            save_mem=False,  # True empties the allocator's cache after each layer: slow, and the limit holds without
        )
        self.config = config

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, 1, X, Y, Z) -> mean and standard deviation of the latents, each (N, C, x, y, z)."""
        h = self._through(self.encoder, x)
        return self.quant_conv_mu(h), torch.exp(self.quant_conv_log_sigma(h).clamp(-30, 20) / 2)

    def decode(self, z: Tensor) -> Tensor:
        """Latents (N, C, x, y, z) -> images (N, 1, X, Y, Z), about [0, 1]."""
        return self._through(self.decoder, self.post_quant_conv(z))

    def _through(self, half: Any, x: Tensor) -> Tensor:
        for block in half.blocks:
            x = run_checkpointed(block, x) if self.config.checkpointing and torch.is_grad_enabled() else block(x)
        return x


def for_precision(net: Autoencoder, device: str, precision: Precision) -> Autoencoder:
    """Keep normalised activations in float16 on a GPU under fp16, where autocast converts them to float16 anyway.

    A CPU lacks float16 kernels for the following layers. A dry run is treated as a GPU.
    """
    halved = precision == "fp16" and (torch.device(device).type == "cuda" or is_dry_run(torch.empty(0)))
    for module in net.modules():
        if isinstance(module, MaisiGroupNorm3D):
            module.norm_float16 = halved
    return net


def to_unit(hu: np.ndarray, window: Window) -> Tensor:
    """HU -> float32 in [0, 1], same shape."""
    return scale_hu(hu, window).add_(1).div_(2)


class Patches:
    """Random patches of one split. A patch is a pure function of the arguments of `draw`."""

    def __init__(self, data: Cohort, split: Split, patch: Shape, window: Window) -> None:
        self.data, self.patch, self.window, self.ids = data, patch, window, list(data.ids(split))
        if not self.ids:
            raise MissingError(f"{data.protocol.name}: no {split} case; add at least one to the split")

    def draw(self, *parts: str | int) -> Tensor:
        """One patch, float32 (1, X, Y, Z) in [0, 1], from `seeds.numpy_rng(*parts)`."""
        rng = seeds.numpy_rng(*parts)
        hu = self.data.hu(self.ids[int(rng.integers(len(self.ids)))])
        corner = [int(rng.integers(n - side + 1)) for n, side in zip(hu.shape, self.patch, strict=True)]
        box = tuple(slice(start, start + side) for start, side in zip(corner, self.patch, strict=True))
        return to_unit(np.ascontiguousarray(hu[box]), self.window)[None]


class AutoencoderRecipe:
    """Training of the first stage: a `training.Recipe`. The losses and their weights are NV-Generate's.

    data: on MAISI's grid. window: the HU range that is mapped to [0, 1].
    """

    def __init__(self, config: AutoencoderConfig, data: Cohort, window: Window, run: Run) -> None:
        self.config, self.seed, self.device, self.window = config, run.seed, run.device, window
        self.weights_dir = weights_folder(run.weights_dir)
        self.train, self.val = (Patches(data, split, config.patch, window) for split in ("train", "val"))
        self.perceptual = self._perceptual() if config.perceptual else None  # first, because its weights may be missing
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeds.derive(run.seed, "autoencoder", "initial weights"))
            self.net = for_precision(Autoencoder(config.net).to(run.device), run.device, config.precision)
            self.adversary = self._adversary() if config.adversarial else None
        self.optimiser = self._optimiser(self.net)
        self.critic = self._optimiser(self.adversary) if self.adversary else None

    def _perceptual(self) -> Perceptual:
        loss = Perceptual(check_perceptual_weights(self.weights_dir), self.config.perceptual_slices)
        return loss.to(self.device)

    def _adversary(self) -> Adversary:
        return Adversary(self.config.discriminator_channels, self.config.discriminator_layers).to(self.device)

    def _optimiser(self, module: nn.Module) -> Optimiser:
        config = self.config
        return Optimiser(
            module.parameters(),
            lr=config.lr,
            weight_decay=0.0,
            precision=config.precision,
            lr_factor=lambda step: 1.0 if step >= config.warmup else 0.1 if 2 * step >= config.warmup else 0.01,
        )

    def stateful(self) -> Mapping[str, Stateful]:
        parts: dict[str, Stateful] = {"net": self.net, "optimiser": self.optimiser}
        if self.adversary and self.critic:
            parts |= {"adversary": self.adversary, "critic": self.critic}
        return parts

    def batch(self, step: int) -> Tensor:
        """Patches of a step, float32 (batch, 1, X, Y, Z) in [0, 1], on the CPU."""
        return torch.stack([self.train.draw(self.seed, "autoencoder", step, i) for i in range(self.config.batch)])

    def step(self, step: int, batch: Tensor) -> Mapping[str, Tensor | float]:
        """One step of the autoencoder and of the discriminator on one batch."""
        self.net.train()
        share, ranks = self.config.micro_batch / len(batch), current()
        figures: dict[str, Tensor] = {}
        parts = torch.split(batch, self.config.micro_batch)
        for number in ranks.parts(len(parts), self.seed, "autoencoder", step):
            terms = self._accumulate(parts[number].to(self.device, non_blocking=True), share)
            figures = {name: figures.get(name, 0) + share * term.detach() for name, term in terms.items()}
        self.optimiser.step(step)
        if self.critic:
            self.critic.step(step)
        return ranks.total(figures)

    @property
    def micro_batches(self) -> int:
        return self.config.batch // self.config.micro_batch

    def _accumulate(self, images: Tensor, share: float) -> dict[str, Tensor]:
        """Accumulate the gradients of one micro-batch. Returns its loss terms, unweighted."""
        with autocast(self.config.precision, self.device):
            mean, deviation = self.net.encode(images)
            fake = self.net.decode(mean + deviation * torch.randn_like(deviation)).float()
        terms = self._terms(images, fake, mean.float(), deviation.float())
        self.optimiser.backward(share * self._total(terms))
        if self.adversary and self.critic:
            self.adversary.requires_grad_(True)
            with autocast(self.config.precision, self.device):
                terms["discriminator"] = self.adversary.discriminator_loss(fake, images)
            self.critic.backward(share * terms["discriminator"])
        return terms

    def _terms(self, images: Tensor, fake: Tensor, mean: Tensor, deviation: Tensor) -> dict[str, Tensor]:
        terms = {"l1": functional.l1_loss(fake, images), "kl": kl_divergence(mean, deviation)}
        if self.perceptual:
            terms["perceptual"] = self.perceptual(fake, images)
        if self.adversary:
            self.adversary.requires_grad_(False)  # the autoencoder's loss must not update the discriminator
            with autocast(self.config.precision, self.device):
                terms["adversarial"] = self.adversary.generator_loss(fake)
        return terms

    def _total(self, terms: Mapping[str, Tensor]) -> Tensor:
        config = self.config
        weights = {
            "l1": 1.0,
            "kl": config.kl,
            "perceptual": config.perceptual,
            "adversarial": config.adversarial,
        }
        return torch.stack([weights[name] * term for name, term in terms.items()]).sum()

    @torch.no_grad()
    def validate(self, step: int) -> Mapping[str, float]:
        """Mean L1 ("loss") and PSNR of images decoded from the mean, on the same validation patches at each call."""
        self.net.eval()
        losses, errors = [], []
        for i in range(self.config.validation_patches):
            images = self.val.draw(self.seed, "autoencoder", "val", i)[None].to(self.device)
            with autocast(self.config.precision, self.device):
                fake = self.net.decode(self.net.encode(images)[0]).float().clamp(0, 1)
            losses.append(functional.l1_loss(fake, images))
            errors.append(functional.mse_loss(fake, images))
        psnr = -10 * torch.log10(torch.stack(errors).clamp(min=1e-12))
        return {"loss": float(torch.stack(losses).mean()), "psnr": float(psnr.mean())}

    def export(self, folder: Path) -> None:
        """Write the network without its discriminator. Latents and sampling need only the network."""
        facts = self.config.model_dump(mode="json", exclude={"net"})
        save_autoencoder(folder, self.config.net, self.net.state_dict(), self.window, {"training": facts})


def kl_divergence(mean: Tensor, deviation: Tensor) -> Tensor:
    """KL divergence of N(mean, deviation^2) from N(0, 1): sum over a patch's latents, mean over patches."""
    terms = mean**2 + deviation**2 - torch.log(deviation**2) - 1
    return 0.5 * terms.flatten(1).sum(dim=1).mean()  # (N, C, x, y, z) -> (N, C*x*y*z) -> (N,) -> ()


def save_autoencoder(
    folder: Path, net: NetConfig, tensors: Mapping[str, Tensor], window: Window, facts: Mapping[str, Any]
) -> None:
    """Write weights, architecture and HU window to `folder`. facts: how the weights were made, for the record."""
    config = {"net": net.model_dump(mode="json"), "hu_window": list(window), **facts}
    save_model(folder, KIND, config, tensors)


def load_autoencoder(folder: Path, device: str, precision: Precision) -> tuple[Autoencoder, Window]:
    """Load the network that `save_autoencoder` wrote, in evaluation mode, and the HU window of its [0, 1].

    Raises `MissingError` or `UserError` with the file and field.
    """
    config, tensors = load_model(folder, KIND)
    where = folder / "model.json"
    try:
        net = Autoencoder(NetConfig.model_validate(config["net"]))
        low, high = (int(bound) for bound in config["hu_window"])
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, ("net", *first["loc"])))
        raise UserError(f"{where}: field {field}: {first['msg']}; restore it or train again") from None
    except KeyError as error:
        raise UserError(f"{where}: no field {error}; restore the file or train again") from None
    except (TypeError, ValueError):
        raise UserError(f"{where}: field hu_window: expected two numbers; restore the file or train again") from None
    load_strict(net, tensors, str(folder / "model.safetensors"))
    return for_precision(net.to(device).eval().requires_grad_(False), device, precision), (low, high)
