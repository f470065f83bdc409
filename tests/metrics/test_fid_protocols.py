"""The named protocols of FID: what they fix, what their ids and notes say."""

from __future__ import annotations

from typing import ClassVar

import pytest
from pydantic import ValidationError

from medlord_bench.contracts import DataProtocol, Grid
from medlord_bench.contracts.metrics import protocol_of
from medlord_bench.engine import resolve
from medlord_bench.errors import UserError
from medlord_bench.metrics.fid.config import backbone_note
from medlord_bench.metrics.fid.metric import FID, FIDConfig

DATA = DataProtocol(
    name="toy",
    grid=Grid(shape=(64, 64, 48)),
    fit="crop-pad",
    split="by hand",
    split_sha256="0" * 64,
    counts={"train": 16, "val": 0, "test": 16},
    masks="none",
)


class Fake:
    """Stands for an extractor whose weights are not here."""

    version = 1
    preprocessing: ClassVar = {"backbone": "RadImageNet ResNet-50", "weights_locked": True}


def test_named_protocols_say_so_in_their_id_and_keep_what_their_name_promises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FID, "_extractor", lambda self: Fake())
    metrics = {name: FID(FIDConfig.model_validate(FID.variants[name])) for name in ("radimagenet", "maisi-compat")}
    assert protocol_of("fid", metrics["radimagenet"], DATA)[0].startswith("fid-fixed-window-")
    assert protocol_of("fid", metrics["maisi-compat"], DATA)[0].startswith("fid-maisi-compat-")
    given = metrics["maisi-compat"].plugin_config()
    assert given["normalisation"] == "volume-min-max" and given["slices"] is None and given["size"] is None
    assert "normalisation" not in metrics["radimagenet"].plugin_config()
    assert metrics["radimagenet"].needs()[0].extractor == "radimagenet"


@pytest.mark.parametrize(
    "settings",
    [
        {"features": {"slices": 32}},
        {"features": {"normalisation": "window"}},
        {"features": {"orientation": "upright"}},
        {"hu_window": (-1000, 2000)},
        {"planes": ("axial",)},
    ],
)
def test_maisi_compat_refuses_settings_that_the_script_does_not_have(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="maisi-compat fixes"):
        FIDConfig.model_validate({**FID.variants["maisi-compat"], **settings})


def test_maisi_compat_needs_an_extractor_that_has_it_and_lets_the_scripts_own_option_be_set() -> None:
    settings = {**FID.variants["maisi-compat"], "features": {"centre_ratio": 0.4}}
    assert FIDConfig.model_validate(settings).of_extractor()["centre_ratio"] == 0.4
    with pytest.raises(ValidationError, match="imagenet has no maisi-compat, expected radimagenet"):
        FIDConfig(arithmetic="maisi-compat")


def test_an_id_says_that_weights_are_not_locked(monkeypatch: pytest.MonkeyPatch) -> None:
    metric = FID(FIDConfig(extractor="radimagenet"))
    monkeypatch.setattr(FID, "_extractor", lambda self: Fake())
    assert not protocol_of("fid", metric, DATA)[0].endswith("-unlocked")
    monkeypatch.setattr(Fake, "preprocessing", {**Fake.preprocessing, "weights_locked": False})
    assert protocol_of("fid", metric, DATA)[0].endswith("-unlocked")


def test_the_note_names_the_backbone_and_what_a_value_compares_with() -> None:
    notes = {
        name: backbone_note(FIDConfig.model_validate(FID.variants.get(name, {})), "BACKBONE")[0].text
        for name in ("", "radimagenet", "maisi-compat")
    }
    assert all("BACKBONE" in text for text in notes.values())
    assert "not comparable with published values" in notes[""] and "not RadImageNet" in notes[""]
    assert "only at the same real volumes, n, voxel spacing and slab" in notes["maisi-compat"]
    assert "not comparable with published" not in notes["maisi-compat"]
    assert "fid:maisi-compat" in notes["radimagenet"]


def test_variants_are_found_by_name() -> None:
    assert resolve.metric_spec("fid:maisi-compat", DATA, {}).config["arithmetic"] == "maisi-compat"
    with pytest.raises(UserError, match="maisi-compat"):
        resolve.metric_spec("fid:maisicompat", DATA, {})
