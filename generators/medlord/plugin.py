"""MedLoRD as a plugin: VQ-GAN, latent diffusion, half-width ControlNet (Seyfarth et al., section 2)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from medlord_bench.contracts import Capability, Cohort, Failure, Purpose, Reads, Request, Run, Stage, Volume

from .configs import AutoencoderConfig, MedLoRDConfig, OptimisationConfig
from .presets import PRESETS, VARIANTS


class MedLoRD:
    """MedLoRD: latent diffusion on a VQ-GAN with a large codebook, for 512x512x256 on 24 GB."""

    Config: ClassVar[type[MedLoRDConfig]] = MedLoRDConfig
    version: ClassVar[int] = 1
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = PRESETS
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = VARIANTS
    capabilities: ClassVar[frozenset[Capability]] = frozenset({"unconditional", "conditional", "reconstructs"})

    def __init__(self, config: MedLoRDConfig) -> None:
        self.config = config

    def stages(self) -> Sequence[Stage]:
        """Autoencoder; the cohort's latents, encoded once; diffusion; ControlNet."""
        config = self.config
        common = {} if config.pretrained is None else {"pretrained": config.pretrained.model_dump(mode="json")}
        trained: dict[str, tuple[AutoencoderConfig | OptimisationConfig, tuple[str, ...]]] = {
            "autoencoder": (config.autoencoder, ()),
            "diffusion": (config.diffusion, ("latents",)),
            "controlnet": (config.controlnet, ("autoencoder", "latents", "diffusion")),
        }
        stages = {
            name: Stage(
                name, part.model_dump(mode="json", exclude={"steps"}) | common, part.steps, needs, name == "controlnet"
            )
            for name, (part, needs) in trained.items()
        }
        latents = Stage("latents", config.latents.model_dump(mode="json"), None, ("autoencoder",))
        return (stages["autoencoder"], latents, stages["diffusion"], stages["controlnet"])

    def reads(self, purpose: Purpose) -> Reads:
        if purpose == "reconstruct":
            return Reads(("autoencoder",), {"precision": self.config.sampling.precision})
        sampling = self.config.sampling.model_dump(mode="json", exclude={"tile"})
        stages = ("autoencoder", "diffusion")
        return Reads(stages if purpose == "sample" else (*stages, "controlnet"), sampling)

    def train(self, stage: Stage, data: Cohort, inputs: Mapping[str, Path], out: Path, run: Run) -> Path:
        from . import training

        return training.train(self.config, stage, data, inputs, out, run)

    def adopt(self, stage: Stage, source: Path, data: Cohort, inputs: Mapping[str, Path], out: Path, run: Run) -> Path:
        from . import adoption

        return adoption.adopt(self.config, stage, source, data, inputs, out, run)

    def sample(self, weights: Mapping[str, Path], requests: Sequence[Request], run: Run) -> Iterator[Volume | Failure]:
        from . import sampling

        return sampling.sample(self.config.sampling, weights, requests, run)

    def reconstruct(
        self, weights: Mapping[str, Path], volumes: Iterable[Volume], run: Run
    ) -> Iterator[Volume | Failure]:
        from . import sampling

        return sampling.reconstruct(self.config.sampling, weights, volumes, run)
