"""`radiomics`: every feature as pyradiomics and MIRP measure it, at the true voxel size, of the image without its padding.

`radiomics_reference.json` holds values of `phantom()` that other programs made once, by hand:

- pyradiomics 3.1.4 (`pip install pyradiomics-bhklab`) with frd-score's settings for 3D images, voxels of 1.5 x 1.5 x 2.5 mm,
  mask all but the first voxel: a value for each of `library.NAMES`, in both forms.
- MIRP 2.7.0 (EUPL-1.2), an implementation of the IBSI's definitions: `extract_features` with bins of fixed size 25 from
  -1000 HU, matrices `3d_average`, without resampling.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from medlord_bench.contracts import Run, Volume
from medlord_bench.errors import MissingError
from medlord_bench.plugins.extractors.radiomics import library
from medlord_bench.plugins.extractors.radiomics.extractor import RadiomicsConfig, RadiomicsExtractor

pytest.importorskip("flash_radiomics", reason=library.INSTALL)
REFERENCE = json.loads(Path(__file__).with_name("radiomics_reference.json").read_text())
FORMS = {"normalised": library.NORMALISED, "hu": library.IN_HU}
MM = (2.0, 2.0, 2.0)
# The mean of a filter's answer is near 0, a difference of large numbers: float32 decides its digits.
CANCELS = {f"{image}_firstorder_Mean" for image in library.IMAGES if image.startswith("wavelet")}


def phantom(shape: Sequence[int] = (30, 28, 24)) -> np.ndarray:
    """A lung, a bone, texture, and air of -1000 HU, so that bins begin there."""
    x, y, z = np.indices(shape)
    hu = 40 + 30 * np.sin(x / 3) + 25 * np.cos(y / 4 + z / 5)
    hu[((x - 16) / 8) ** 2 + ((y - 12) / 7) ** 2 + ((z - 12) / 9) ** 2 < 1] = -820
    hu[(x - 24) ** 2 + (y - 22) ** 2 < 9] = 500
    hu += (x * x * 7 + y * 13 + x * z * 29) % 41 - 20
    hu[:3] = -1000
    return np.rint(hu).astype(np.int16)


def features(run: Run, *volumes: Volume, **settings: object) -> list[np.ndarray]:
    extractor = RadiomicsExtractor(RadiomicsConfig.model_validate(settings))
    return [dict(state)["volume"] for state in extractor.features(iter(volumes), run)]


def volume(hu: np.ndarray, mm: Sequence[float] = MM) -> Volume:
    return Volume(hu, np.diag([*mm, 1.0]))


@pytest.mark.parametrize("form", FORMS)
def test_all_features_are_pyradiomics(form: str) -> None:
    found = dict(zip(library.NAMES, library.measured(phantom(), (1.5, 1.5, 2.5), MM, FORMS[form]), strict=True))
    expected = dict(zip(library.NAMES, REFERENCE["pyradiomics"][form], strict=True))
    assert len(found) == len(expected) == 1014
    for name, value in expected.items():
        excess = 3 if name.endswith("Kurtosis") else 0  # the library subtracts the normal distribution's
        close = {"rel": 1e-3, "abs": 1e-6} if name in CANCELS else {"rel": 1e-6}
        assert found[name] + excess == pytest.approx(value, **close), name


def test_features_of_the_original_image_are_mirps() -> None:
    found = dict(zip(library.NAMES, library.measured(phantom(), MM, MM, library.IN_HU), strict=True))
    assert len(REFERENCE["mirp"]) == 70
    for name, value in REFERENCE["mirp"].items():
        assert found[name] == pytest.approx(value, rel=1e-5), name


def test_filtered_images_never_share_grey_levels() -> None:
    """The library keeps grey levels by address: without our change most features are those of another image."""
    found = library.measured(phantom(), MM, MM, library.NORMALISED)
    shade = [found[library.NAMES.index(f"{image}_glcm_ClusterShade")] for image in library.IMAGES]
    assert len(set(shade)) == len(library.IMAGES)


def test_one_vector_a_volume_in_either_form(run: Run) -> None:
    hu = phantom()
    (normalised,), (kept,) = features(run, volume(hu)), features(run, volume(hu), intensities="hu")
    assert normalised.shape == kept.shape == (1, 1014) and normalised.dtype == np.float32
    (brighter,), (brighter_kept,) = (features(run, volume(hu + 200), intensities=form) for form in ("normalised", "hu"))
    place = library.NAMES.index("original_firstorder_Mean")
    assert brighter[0, place] == pytest.approx(normalised[0, place], abs=1e-3)
    assert brighter_kept[0, place] == pytest.approx(kept[0, place] + 200, abs=0.1)
    own = library.NAMES.index("diagnostics_Image-original_Mean")  # in HU in either form, as published
    assert brighter[0, own] == pytest.approx(normalised[0, own] + 200, abs=0.1)


def test_padding_is_left_out_and_the_voxel_size_counts(run: Run) -> None:
    hu = phantom()[3:]
    padded = np.pad(hu, ((4, 5), (0, 3), (2, 2)), constant_values=-1000)
    plain, wrapped, finer = features(run, volume(hu), volume(padded), volume(hu, (1.0, 1.0, 1.0)))
    np.testing.assert_allclose(wrapped, plain, rtol=1e-5)
    size = library.NAMES.index("diagnostics_Mask-interpolated_VoxelNum")
    assert plain[0, size] == hu.size - 1 and finer[0, size] < plain[0, size] / 7


def test_features_without_a_value(run: Run) -> None:
    """Constant volumes and those of a few voxels have none; thin ones lack those of the Laplacian."""
    flat, tiny, thin = (np.full((20, 20, 20), -300, np.int16), phantom()[3:5, :2, :2], phantom()[:, :, :3])
    for form in FORMS:
        found = features(run, volume(flat), volume(tiny, (1, 1, 1)), volume(thin), intensities=form)
        assert [int(np.isnan(one).sum()) for one in found] == [1014, 1014, 4 * len(library.PER_IMAGE)]
    assert math.isfinite(features(run, volume(phantom()))[0].sum())


def test_what_decides_the_features_is_recorded() -> None:
    text = RadiomicsExtractor(RadiomicsConfig()).preprocessing
    assert text["settings"]["binWidth"] == 5 and text["settings"]["normalizeScale"] == 100
    assert text["backbone"] == "flash-radiomics 1.0.0"
    assert text != RadiomicsExtractor(RadiomicsConfig(intensities="hu")).preprocessing
    assert text != RadiomicsExtractor(RadiomicsConfig(spacing=(1, 1, 1))).preprocessing
    with pytest.raises(ValidationError, match="spacing.0"):
        RadiomicsConfig(spacing=(0, 1, 1))


def test_an_absent_library_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "PACKAGES", (*library.PACKAGES, "no_such_library"))
    expected = r"package no_such_library is not installed: pip install 'medlord-bench\[radiomics\]'"
    with pytest.raises(MissingError, match=expected):
        RadiomicsExtractor(RadiomicsConfig()).preprocessing  # noqa: B018
    with pytest.raises(MissingError, match=expected):
        features(run, volume(phantom()))


def test_the_extra_holds_all_packages() -> None:
    root = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").exists())
    extra = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]["radiomics"]
    named = {"flash-radiomics": "flash_radiomics", "PyWavelets": "pywt", "scikit-learn": "sklearn"}
    found = {one.replace("==", ">=").split(">=")[0] for one in extra}
    assert {named.get(name, name) for name in found} == set(library.PACKAGES)
