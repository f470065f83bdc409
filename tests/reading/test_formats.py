"""The files of a pack: equal HU in every format, left and right proven, and bytes that do not depend on names."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from medlord_bench.contracts import FrozenConfig
from medlord_bench.errors import MissingError
from medlord_bench.reading import forms
from medlord_bench.reading.dicom import write_series
from medlord_bench.reading.pack import Pack, read_pack
from medlord_bench.reading.pictures import PRESETS
from medlord_bench.reading.rebuild import StudyGrid
from medlord_bench.volumes.io import read_volume
from tests.reading.small_study import SPACING, exported, protocol_of, write_sources

ALL = ("browser", "nifti", "dicom", "png", "mha")


def phantom(shape: tuple[int, int, int] = (20, 16, 12)) -> NDArray[np.int16]:
    """Asymmetric along every axis: bright at the right, brighter in front, brightest towards the head."""
    hu = np.full(shape, -1000, np.int16)
    hu[-5:-3, 4:8, 2:4] = 300  # large x: right
    hu[4:6, -5:-3, 2:4] = 700  # large y: front
    hu[4:6, 4:8, -4:-2] = 1500  # large z: head
    return hu


def number(*parts: str | int) -> str:
    import hashlib

    return f"2.25.{10**37 + int(hashlib.sha256(repr(parts).encode()).hexdigest(), 16) % 10**37}"


def grid_of(hu: NDArray[np.int16]) -> StudyGrid:
    return StudyGrid(shape=hu.shape, spacing=SPACING, window=(-1000, 2000))


def raw(pack: Path, code: str) -> NDArray[np.int16]:
    return np.fromfile(pack / "cases" / f"{code}.i16", dtype="<i2").reshape(read_pack(pack).grid.shape)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("pydicom")
    root = tmp_path_factory.mktemp("formats")
    write_sources(root)
    with pytest.MonkeyPatch.context() as patch:
        return exported(protocol_of(root, n=3, formats=ALL), root / "out", patch) / "packs" / "R1"


def test_every_format_has_equal_hu_on_the_same_grid(pack: Path) -> None:
    for code in read_pack(pack).codes[:3]:
        for path in (pack / "nifti" / f"{code}.nii", pack / "mha" / f"{code}.mha", pack / "dicom" / code):
            volume = read_volume(path)
            assert np.array_equal(volume.hu, raw(pack, code)), path
            assert np.allclose(volume.affine, np.diag([*SPACING, 1.0]), atol=1e-6), path


def test_gdcm_reads_right_front_and_head_where_they_are(tmp_path: Path) -> None:
    """Independent of the bench's own reader: physical points of the three bright blocks in ITK's L, P, S world."""
    pytest.importorskip("pydicom")
    sitk = pytest.importorskip("SimpleITK")
    hu = phantom()
    write_series(tmp_path / "s", hu, grid_of(hu), "AAAAAA", number)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "s")))
    image = reader.Execute()
    for value, voxel in ((300, (15.5, 5.5, 2.5)), (700, (4.5, 11.5, 2.5)), (1500, (4.5, 5.5, 8.5))):
        expected = np.array(voxel) * SPACING * (-1, -1, 1)  # R, A, S to L, P, S
        found = np.argwhere(sitk.GetArrayFromImage(image) == value).mean(0)[::-1]
        assert np.allclose(image.TransformContinuousIndexToPhysicalPoint(found.tolist()), expected)


def test_pictures_show_the_right_at_the_left_and_the_front_at_the_top(pack: Path) -> None:
    code = read_pack(pack).codes[0]
    hu = raw(pack, code)
    low, high = PRESETS["mediastinum"]
    picture = np.asarray(Image.open(pack / "png" / code / "mediastinum" / "0005.png"))
    grey = np.clip((hu[:, :, 4] - low) / (high - low), 0, 1)
    assert np.array_equal(picture, np.rint(255 * grey[::-1, ::-1].T).astype(np.uint8))
    sizes = {path.stat().st_size for path in pack.rglob("*.png")}
    assert len(sizes) == 1


def test_equal_secrets_give_equal_bytes_and_names_do_not_matter(pack: Path, tmp_path: Path, monkeypatch: Any) -> None:
    root = pack.parents[2]
    again = exported(protocol_of(root, n=3, formats=ALL), tmp_path / "again", monkeypatch) / "packs" / "R1"
    assert files(again) == files(pack)
    for name, other in (("real", "real"), ("wizard", "oracle9"), ("oracle9", "wizard")):
        shutil.copytree(root / name, tmp_path / "swapped" / other)
    names = ("real", "oracle9", "wizard")
    swapped = exported(protocol_of(tmp_path / "swapped", names, n=3, formats=ALL), tmp_path / "out", monkeypatch)
    found, before = files(swapped / "packs" / "R1"), files(pack)
    assert read_pack(swapped / "packs" / "R1").commitment != read_pack(pack).commitment
    assert without_commitment(found) == without_commitment(before)


def without_commitment(pack: dict[str, bytes]) -> dict[str, Any]:
    """The files of a pack without the key's commitment, which names the sources, and the hashes that it decides."""
    manifest = json.loads(pack["pack.json"])
    script = pack["study.js"].decode()
    study = json.loads(script[script.index("{") : script.rindex("}") + 1])
    for one in (manifest, study["pack"]):
        one["commitment"] = ""
    manifest["files"]["study.js"] = study["pack_sha256"] = ""
    return {**pack, "pack.json": manifest, "study.js": study}


def test_raw_cases_stay_only_for_the_browser(tmp_path: Path, monkeypatch: Any) -> None:
    write_sources(tmp_path)
    pack = exported(protocol_of(tmp_path, n=2, formats=("nifti",)), tmp_path / "out", monkeypatch) / "packs" / "R1"
    assert not list(pack.rglob("*.i16")) and len(list(pack.rglob("*.nii"))) == 6 + 2 + 2
    assert {path.name for path in pack.iterdir()} == {"nifti", "pack.json", "form.html", "form.csv", "README.txt"}


def test_dicom_without_pydicom_says_what_to_install(monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(MissingError, match=r"pip install 'medlord-bench\[reading\]'"):
        write_series(tmp_path / "s", phantom(), grid_of(phantom()), "AAAAAA", number)


@pytest.mark.skipif(not shutil.which("dciodvfy"), reason="dciodvfy is not installed (Debian: dicom3tools)")
def test_dicom_is_clean_for_dciodvfy_and_dcentvfy(pack: Path) -> None:
    for series in sorted((pack / "dicom").glob("??????"))[:2]:
        slices = sorted(series.glob("*.dcm"))
        for path in slices:
            done = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
            assert done.returncode == 0 and (done.stdout + done.stderr).split() == ["CTImage"], path
        done = subprocess.run(["dcentvfy", *slices], capture_output=True, text=True, check=False)
        assert done.returncode == 0 and not (done.stdout + done.stderr).strip()


def test_display_sets_name_every_case_in_order(pack: Path) -> None:
    study = json.loads((pack / "mha" / "reader_study.json").read_text())
    shown = [one["values"]["ct-image"].removesuffix(".mha") for one in study["display_sets"]]
    assert shown == read_pack(pack).codes
    assert [one["order"] for one in study["display_sets"]] == sorted(one["order"] for one in study["display_sets"])
    first = study["questions"][0]
    assert (first["answer_type"], first["widget"], len(first["options"])) == ("Choice", "RADIO_SELECT", 5)
    assert all((pack / "mha" / name).exists() for one in study["display_sets"] for name in one["values"].values())


@pytest.mark.parametrize("language", ["en", "de"])
def test_forms_have_a_row_for_each_question_and_escape_the_title(pack: Path, language: str) -> None:
    base: FrozenConfig = read_pack(pack)
    one = base.model_copy(update={"language": language, "title": "<b>&"})
    assert isinstance(one, Pack)
    page = forms.form(one)
    assert "<b>&<" not in page and "&lt;b&gt;&amp;" in page
    assert all(page.count(f"<th>{question.words[language]}</th>") == 1 + 11 + 2 for question in one.rubric.questions)
    rows = list(csv.DictReader(forms.table(one).splitlines()))
    assert [row["code"] for row in rows] == one.codes and list(rows[0])[2:-1] == [q.name for q in one.rubric.questions]


def test_the_notes_are_in_both_languages_and_name_the_reader(pack: Path) -> None:
    text = (pack / "README.txt").read_text(encoding="utf-8")
    for words in ("clinical PACS", "klinisches PACS", "How to delete it", "Wie es gelöscht wird", "alias, R1"):
        assert words in text
