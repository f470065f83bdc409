"""MAISI's U-Net and ControlNet from files in NV-Generate's layout: taken as they are, and refused with the field at fault."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from medlord_bench.contracts import DataProtocol, Grid, Run, Split
from medlord_bench.contracts.validation import merged
from medlord_bench.errors import MissingError, UserError
from medlord_bench.generators.maisi.adoption import UPSTREAM_LABELS, find_weights
from medlord_bench.generators.maisi.autoencoder import Autoencoder
from medlord_bench.generators.maisi.configs import FOUNDATION_LICENCE, MAISIConfig
from medlord_bench.generators.maisi.control import load_controlnet
from medlord_bench.generators.maisi.diffusion import load_diffusion
from medlord_bench.generators.maisi.plugin import MAISI
from medlord_bench.generators.maisi.presets import PRESETS
from medlord_bench.generators.maisi.unet import ControlNet, UNet

SCALE = 1.0625


class Cases:
    """Two training cases of air, with no more than adopting asks for."""

    label_names: Mapping[int, str] = {1: "aorta", 2: "heart"}
    has_masks = True

    def __init__(self, regions: tuple[str, ...] = ("heart", "aorta")) -> None:
        self.protocol = DataProtocol(
            name="toy", grid=Grid(shape=(32, 32, 16)), fit="crop-pad", split="", split_sha256="",
            counts={"train": 2, "val": 1, "test": 1}, masks="dataset", condition_regions=regions,
        )  # fmt: skip

    def ids(self, split: Split) -> Sequence[str]:
        return [f"{split}-{i}" for i in range(self.protocol.counts[split])]

    def hu(self, case_id: str) -> NDArray[np.int16]:
        return np.full((32, 32, 16), -1000, np.int16)

    def affine(self, case_id: str) -> NDArray[np.float64]:
        return np.diag([1.5, 1.5, 3.0, 1.0])


def plugin(**over: Any) -> MAISI:
    return MAISI(MAISIConfig.model_validate(merged(dict(PRESETS["smoke"]), over)))


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A folder as NV-Generate's repository lays it out, of the smoke preset's architectures with random weights."""
    config = plugin().config
    folder = tmp_path / "published" / "models"
    folder.mkdir(parents=True)
    torch.manual_seed(5)
    channels = config.autoencoder.net.latent_channels
    torch.save(Autoencoder(config.autoencoder.net).state_dict(), folder / "autoencoder_v1.pt")
    unet = {"unet_state_dict": UNet(config.diffusion, channels).state_dict(), "scale_factor": torch.tensor(SCALE)}
    torch.save(unet | {"num_train_timesteps": 40}, folder / "diff_unet_3d_rflow.pt")
    control = ControlNet(config.diffusion, config.controlnet.embedding_channels, channels)
    torch.save({"controlnet_state_dict": control.state_dict()}, folder / "controlnet_3d_rflow.pt")
    return folder.parent


def adopted(source: Path, out: Path, run: Run, cases: Any, generator: MAISI | None = None) -> dict[str, Path]:
    """Every stage in order, as a run with `--weights` takes them."""
    generator, made = generator or plugin(), dict[str, Path]()
    for stage in generator.stages():
        inputs = {need: made[need] for need in stage.needs}
        made[stage.name] = generator.adopt(stage, source, cases, inputs, out / stage.name, run)
    return made


def changed(published: Path, name: str, **fields: Any) -> None:
    path = published / "models" / name
    found = torch.load(path, weights_only=True) | fields
    torch.save({key: value for key, value in found.items() if value is not None}, path)


def test_the_three_networks_come_over_tensor_for_tensor_with_their_scale(
    published: Path, tmp_path: Path, run: Run
) -> None:
    made = adopted(published, tmp_path / "out", run, Cases())
    diffusion = load_diffusion(made["diffusion"], "cpu")
    theirs = torch.load(published / "models" / "diff_unet_3d_rflow.pt", weights_only=True)
    assert diffusion.latent_scale == SCALE and diffusion.schedule.timesteps == 40
    ours = diffusion.unet.state_dict()
    assert set(ours) == set(theirs["unet_state_dict"])
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs["unet_state_dict"].items())
    facts = json.loads((made["latents"] / "latents.json").read_text())
    assert facts["scale"] == SCALE and facts["measured"] is False and not list(made["latents"].glob("*.npy"))
    control = load_controlnet(made["controlnet"], "cpu")
    assert control.regions == {"heart": UPSTREAM_LABELS["heart"], "aorta": UPSTREAM_LABELS["aorta"]}
    for stage in ("autoencoder", "diffusion", "controlnet"):
        described = json.loads((made[stage] / "model.json").read_text())["config"]
        assert described["licence"] == FOUNDATION_LICENCE and described["converted_from"]["file"].endswith(".pt")


def test_ours_are_taken_as_well_as_theirs(published: Path, tmp_path: Path, run: Run) -> None:
    adopted(published, tmp_path / "first", run, Cases())
    ours = tmp_path / "ours"
    for stage in ("autoencoder", "diffusion", "controlnet"):
        (ours / stage).mkdir(parents=True)
        for file in (tmp_path / "first" / stage / "adopted").iterdir():
            (ours / stage / file.name).write_bytes(file.read_bytes())
    made = adopted(ours, tmp_path / "second", run, Cases())
    assert load_diffusion(made["diffusion"], "cpu").latent_scale == SCALE


def test_a_unet_of_the_other_schedule_is_refused_with_what_to_set(published: Path, tmp_path: Path, run: Run) -> None:
    with pytest.raises(UserError, match=r"--set generator\.diffusion\.schedule=rflow"):
        adopted(published, tmp_path, run, Cases(), plugin(diffusion={"schedule": "ddpm"}))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scale_factor": None}, "no field 'scale_factor'"),
        ({"scale_factor": 0.0}, r"scale_factor is 0\.0 .*expected a positive number"),
        ({"scale_factor": torch.zeros(3)}, "expected one number each"),
        ({"num_train_timesteps": None}, "no field 'num_train_timesteps'"),
        ({"unet_state_dict": None}, "no field 'unet_state_dict'"),
        ({"unet_state_dict": {"a": 1}}, "field 'unet_state_dict' is not a state dict"),
    ],
)
def test_a_unets_file_that_lacks_something_is_refused_by_field(
    published: Path, tmp_path: Path, run: Run, fields: Mapping[str, Any], message: str
) -> None:
    changed(published, "diff_unet_3d_rflow.pt", **fields)
    with pytest.raises(UserError, match=message) as refused:
        adopted(published, tmp_path, run, Cases())
    assert "diff_unet_3d_rflow.pt" in str(refused.value)


def test_a_region_that_their_controlnet_has_no_label_for_is_named(published: Path, tmp_path: Path, run: Run) -> None:
    with pytest.raises(UserError, match=r"no label for left_ventricle, .*--no-conditional"):
        adopted(published, tmp_path, run, Cases(("heart", "left_ventricle")))


def test_what_is_missing_or_there_twice_is_said(published: Path) -> None:
    models = published / "models"
    (models / "controlnet_old.pt").write_bytes((models / "controlnet_3d_rflow.pt").read_bytes())
    with pytest.raises(UserError, match=r"2 weights for the stage controlnet .*keep only one"):
        find_weights(published, "controlnet")
    for file in models.glob("controlnet*"):
        file.unlink()
    with pytest.raises(MissingError, match=r"controlnet\*\.pt; or omit the condition"):
        find_weights(published, "controlnet")
