"""Every leak is planted and caught; a clean pack passes; a hostile pack does no harm."""

from __future__ import annotations

import getpass
import gzip
import os
import re
import shutil
import socket
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from medlord_bench.engine.store import Store
from medlord_bench.errors import ExitCode, UserError
from medlord_bench.reading.check import Checked, check_pack, check_study
from medlord_bench.reading.export import export
from medlord_bench.reading.formats import finish
from medlord_bench.reading.key import Key
from medlord_bench.reading.pack import MTIME, hashes_of, read_pack, write_manifest
from medlord_bench.reading.protocol import StudyProtocol
from medlord_bench.reading.study import Study
from tests.reading.small_study import exported, protocol_of, write_sources

ALL = ("browser", "nifti", "dicom", "png", "mha")
ITEM = "scan-105-zebra"
PLANTED_TIME = 1_300_000_000
Plant = Callable[[Path, list[str], list[str]], object]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Key, StudyProtocol]:
    """The pack of a clean study, its key and protocol."""
    pytest.importorskip("pydicom")
    root = tmp_path_factory.mktemp("check")
    write_sources(root)
    keys: list[Key] = []
    protocol = protocol_of(root, formats=ALL)

    def check(study: Study, key: Key) -> None:
        keys.append(key)
        check_study(study, key)

    with pytest.MonkeyPatch.context() as patch:
        out = exported(protocol, root / "out", patch, check)
    return out / "packs" / "R1", keys[0], protocol


def codes_of(key: Key, source: str) -> list[str]:
    return [one.code for one in key.entries if one.source == source and not one.repeat and not one.practice]


def planted(clean: tuple[Path, Key, StudyProtocol], folder: Path, plant: Plant) -> Checked:
    """A copy of the pack with a leak; its manifest knows of the change, so that only the leak itself is seen."""
    pack, key, protocol = clean
    shutil.copytree(pack, folder)
    wizard = codes_of(key, "wizard")
    plant(folder, wizard, [code for code in read_pack(pack).codes if code not in wizard])
    write_manifest(folder, read_pack(folder).model_copy(update={"files": hashes_of(folder)}))
    for path in folder.rglob("*"):
        if path.stat().st_mtime != PLANTED_TIME:
            os.utime(path, (MTIME, MTIME))
    return check_pack(folder, key, protocol)


def nifti(**fields: Any) -> Plant:
    """Header fields of the cases of a source."""

    def plant(pack: Path, wizard: list[str], others: list[str]) -> None:
        for code in wizard:
            path = pack / "nifti" / f"{code}.nii"
            content = bytearray(path.read_bytes())
            header = nib.Nifti1Header(bytes(content[:348]), check=False)
            for name, value in fields.items():
                header[name] = value
            content[:348] = header.binaryblock
            path.write_bytes(bytes(content))

    return plant


def dicom(change: Callable[[Any, int], object]) -> Plant:
    """A change of every slice of a source's series."""

    def plant(pack: Path, wizard: list[str], others: list[str]) -> None:
        import pydicom

        for place, code in enumerate(wizard):
            for path in sorted((pack / "dicom" / code).iterdir()):
                data = pydicom.dcmread(path)
                change(data, place)
                data.save_as(path)

    return plant


def raw(change: Callable[[Any], Any]) -> Plant:
    """A change of the voxels of a source's cases."""

    def plant(pack: Path, wizard: list[str], others: list[str]) -> None:
        for code in wizard:
            path = pack / "cases" / f"{code}.i16"
            hu = np.fromfile(path, "<i2").reshape(read_pack(pack).grid.shape)
            path.write_bytes(np.ascontiguousarray(change(hu), "<i2").tobytes())

    return plant


def text(name: str, content: bytes) -> Plant:
    """A file in the pack, or more at the end of one."""

    def plant(pack: Path, wizard: list[str], others: list[str]) -> None:
        path = pack / name.format(code=wizard[0])
        path.write_bytes((path.read_bytes() if path.exists() else b"") + content)

    return plant


def zipped(pack: Path, members: dict[str, bytes], **fields: Any) -> None:
    with zipfile.ZipFile(pack / "a.zip", "w") as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name, fields.get("date", (2000, 1, 1, 0, 0, 0)))
            archive.writestr(info, content)


def zip_of_dates(pack: Path, wizard: list[str], others: list[str]) -> None:
    with zipfile.ZipFile(pack / "a.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo("a", (2000, 1, 1, 0, 0, 0)), b"")
        archive.writestr(zipfile.ZipInfo("b", (2026, 1, 1, 0, 0, 0)), b"")


def private(data: Any, place: int) -> None:
    data.private_block(0x0011, "MAKER", create=True).add_new(1, "LO", "x")


def renamed(pack: Path, wizard: list[str], others: list[str]) -> None:
    (pack / "cases" / f"{wizard[0]}.i16").rename(pack / "cases" / f"{wizard[0]}-wizard.i16")


def touched(pack: Path, wizard: list[str], others: list[str]) -> None:
    os.utime(pack / "cases" / f"{wizard[0]}.i16", (PLANTED_TIME, PLANTED_TIME))


def extended(pack: Path, wizard: list[str], others: list[str]) -> None:
    for code in wizard:
        path = pack / "nifti" / f"{code}.nii"
        image = nib.load(path)
        image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"made by a model"))
        path.write_bytes(image.to_bytes())


def word_in_zip(pack: Path, wizard: list[str], others: list[str]) -> None:
    zipped(pack, {"notes.bin": f"from {ITEM}".encode()})


def name_in_zip(pack: Path, wizard: list[str], others: list[str]) -> None:
    zipped(pack, {"wizard/a.bin": b""})


def thicker(data: Any, place: int) -> None:
    data.SliceThickness = "2"


def sequential(data: Any, place: int) -> None:
    data.SeriesInstanceUID = f"2.25.{10**37 + place}"


PLANTS: dict[str, tuple[Plant, str]] = {
    "file name": (renamed, "its name has 'wizard'"),
    "date": (touched, "modification time is"),
    "dates in zip": (zip_of_dates, "date_time differs"),
    "order in zip": (lambda pack, *_: zipped(pack, {"b": b"", "a": b""}), "not in the order of their names"),
    "word in zip": (word_in_zip, f"notes.bin: contains '{ITEM}', an item"),
    "name in zip": (name_in_zip, "contains 'wizard'"),
    "word in gzip": (text("x.gz", gzip.compress(b"by WIZARD.")), "contains 'wizard', the name of a source"),
    "word in json": (text("mha/reader_study.json", b'{"model": "Wizard"}'), "contains 'wizard'"),
    "word in script": (text("extra.js", b"const source = 'oracle9'"), "contains 'oracle9'"),
    "UTF-16": (text("notes.txt", "from Oracle9".encode("utf-16")), "contains 'oracle9'"),
    "user": (lambda pack, *_: (pack / "n.txt").write_text("by Ann-Other"), "contains 'ann-other', the name of the user"),
    "host": (lambda pack, *_: (pack / "n.txt").write_text("on ct-host-7"), "contains 'ct-host-7', the name of the host"),
    "key": (text("key.json", b"{}"), "key.json: a key"),
    "hidden file": (text(".DS_Store", b""), ".DS_Store: a hidden file"),
    "size": (text("cases/{code}.i16", b"\0\0"), "size is"),
    "NIfTI descrip": (nifti(descrip=b"v2"), "NIfTI descrip is"),
    "NIfTI descrip word": (nifti(descrip=b"from wizard"), "contains 'wizard'"),
    "NIfTI aux_file": (nifti(aux_file=b"x"), "NIfTI aux_file is"),
    "NIfTI intent": (nifti(intent_name=b"x"), "NIfTI intent_name is"),
    "NIfTI db_name": (nifti(db_name=b"x"), "NIfTI db_name is"),
    "NIfTI cal_max": (nifti(cal_max=5), "NIfTI cal_max is"),
    "NIfTI codes": (nifti(sform_code=2, qform_code=0), "NIfTI sform_code is"),
    "NIfTI units": (nifti(xyzt_units=10), "NIfTI xyzt_units is"),
    "NIfTI slope": (nifti(scl_slope=2), "NIfTI scl_slope is"),
    "NIfTI datatype": (nifti(datatype=512), "NIfTI datatype is"),
    "NIfTI spacing": (nifti(pixdim=[1, 1.5, 2, 2.999, 0, 0, 0, 0]), "NIfTI pixdim is"),
    "NIfTI origin": (nifti(qoffset_x=1), "NIfTI qoffset_x is"),
    "NIfTI extension": (extended, "NIfTI extensions is"),
    "DICOM Manufacturer": (dicom(lambda data, _: setattr(data, "Manufacturer", "X")), "Manufacturer is"),
    "DICOM date": (dicom(lambda data, _: setattr(data, "StudyDate", "20260101")), "StudyDate is"),
    "DICOM KVP": (dicom(lambda data, _: setattr(data, "KVP", "120")), "KVP is"),
    "DICOM kernel": (dicom(lambda data, _: setattr(data, "ConvolutionKernel", "B30f")), "ConvolutionKernel is"),
    "DICOM private": (dicom(private), "private"),
    "DICOM image type": (dicom(lambda data, _: setattr(data, "ImageType", ["ORIGINAL", "PRIMARY"])), "ImageType is"),
    "DICOM thickness": (dicom(thicker), "SliceThickness is"),
    "DICOM preamble": (dicom(lambda data, _: setattr(data, "preamble", b"II*\0" + bytes(124))), "preamble is"),
    "DICOM writer": (
        dicom(lambda data, _: setattr(data.file_meta, "ImplementationVersionName", "X")),
        "ImplementationVersionName is",
    ),
    "DICOM UID root": (dicom(lambda data, _: setattr(data, "StudyInstanceUID", "1.2.826.0.1.55")), "StudyInstanceUID is"),
    "DICOM UID sequence": (dicom(sequential), "uid tells source"),
    "DICOM word": (dicom(lambda data, _: setattr(data, "StationName", "wizard")), "contains 'wizard'"),
    "minimum": (raw(lambda hu: np.maximum(hu, -998)), "minimum tells source 'wizard'"),
    "maximum": (raw(lambda hu: np.minimum(hu, 1900)), "maximum tells source 'wizard'"),
    "comb": (raw(lambda hu: hu // 8 * 8), "unique tells source 'wizard'"),
    "border": (raw(lambda hu: np.pad(hu[1:-1, 1:-1, 1:-1], 1, constant_values=-900)), "border tells source 'wizard'"),
    "repeat": (lambda pack, *_: repeat(pack), "the same bytes as"),
}  # fmt: skip


def repeat(pack: Path) -> None:
    one, other = read_pack(pack).codes[:2]
    shutil.copy(pack / "nifti" / f"{one}.nii", pack / "nifti" / f"{other}.nii")


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_leak_is_caught(
    name: str, clean: tuple[Path, Key, StudyProtocol], tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "Ann-Other")
    monkeypatch.setattr(socket, "gethostname", lambda: "ct-host-7")
    plant, expected = PLANTS[name]
    found = planted(clean, tmp_path / "pack", plant)
    assert any(re.search(expected, str(leak)) for leak in found.leaks), found.leaks


def test_a_clean_pack_passes_with_and_without_key(clean: tuple[Path, Key, StudyProtocol], tmp_path: Path) -> None:
    pack, key, protocol = clean
    assert check_pack(pack, key, protocol).leaks == ()
    bare = check_pack(pack)
    assert bare.leaks == () and "without a key" in bare.notes[0] and bare.cases == 34
    assert planted(clean, tmp_path / "pack", lambda *_: None).leaks == ()


def test_the_hash_of_a_source_is_a_leak(clean: tuple[Path, Key, StudyProtocol], tmp_path: Path) -> None:
    found = planted(clean, tmp_path / "pack", text("n.bin", clean[1].entries[3].sha256.encode()))
    assert any("the hash of a source's file" in str(leak) for leak in found.leaks)


def test_codes_in_the_order_of_sources_are_a_leak(clean: tuple[Path, Key, StudyProtocol]) -> None:
    pack, key, _ = clean
    codes = sorted({one.code for one in key.entries if not one.repeat and not one.practice})
    sources = {code: ("real", "wizard", "oracle9")[place // 10] for place, code in enumerate(codes)}
    found = check_pack(pack, sources)
    assert any("listing tells source" in str(leak) for leak in found.leaks)


def test_a_changed_or_foreign_file_is_a_leak(clean: tuple[Path, Key, StudyProtocol], tmp_path: Path) -> None:
    shutil.copytree(clean[0], tmp_path / "pack")
    (tmp_path / "pack" / "more.txt").write_text("")
    (tmp_path / "pack" / "form.csv").write_text("")
    leaks = [str(leak) for leak in check_pack(tmp_path / "pack").leaks]
    assert "more.txt: not of this pack" in leaks and "form.csv: changed" in leaks


def test_an_export_with_a_leak_leaves_no_pack_unless_it_is_waived(tmp_path: Path, monkeypatch: Any) -> None:
    write_sources(tmp_path)
    for path in (tmp_path / "wizard").iterdir():
        image = nib.load(path)
        hu = np.maximum(np.asarray(image.dataobj), -998).astype(np.int16)
        nib.save(nib.Nifti1Image(hu, image.affine), path)
    with pytest.raises(UserError, match="R1/cases: minimum tells source 'wizard'") as caught:
        exported(protocol_of(tmp_path), tmp_path / "out", monkeypatch, check_study)
    assert caught.value.code == ExitCode.FAILED
    assert not (tmp_path / "out" / "packs").exists() and not (tmp_path / "out" / ".partial").exists()
    with pytest.raises(UserError, match="border tells source 'wizard'"):
        exported(protocol_of(tmp_path, waived=("minimum",)), tmp_path / "out2", monkeypatch, check_study)
    waived = protocol_of(tmp_path, waived=("minimum", "border"))
    assert (exported(waived, tmp_path / "out3", monkeypatch, check_study) / "packs" / "R1").is_dir()


def test_a_source_with_a_word_of_the_rubric_is_no_leak_in_texts_but_in_headers(
    tmp_path: Path, monkeypatch: Any
) -> None:
    names = ("real", "noise", "blur")
    write_sources(tmp_path, names)
    keys: list[Key] = []

    def check(study: Study, key: Key) -> None:
        keys.append(key)
        check_study(study, key)

    pack = exported(protocol_of(tmp_path, names, formats=ALL), tmp_path / "out", monkeypatch, check) / "packs/R1"
    if names[1] == "noise":
        nifti(descrip=b"noise")(pack, read_pack(pack).codes[:1], [])
        assert any("contains 'noise'" in str(leak) for leak in check_pack(pack, keys[0]).leaks)


def test_the_key_of_another_study_and_a_whole_study_are_refused(clean: tuple[Path, Key, StudyProtocol]) -> None:
    pack, key, _ = clean
    with pytest.raises(UserError, match="the key is of another study"):
        check_pack(pack, key.model_copy(update={"nonce": "f" * 64}))
    with pytest.raises(UserError, match="is a study; give a pack of it"):
        check_pack(pack.parents[1], key)


def test_exports_that_would_unblind_or_compare_nothing_are_refused(tmp_path: Path, monkeypatch: Any) -> None:
    write_sources(tmp_path)
    names = ("wizard", "oracle9")
    with pytest.raises(UserError, match="none is of real volumes.*name that source 'real'"):
        exported(protocol_of(tmp_path, names), tmp_path / "none", monkeypatch)
    first = exported(protocol_of(tmp_path, n=2), tmp_path / "out", monkeypatch)
    with pytest.raises(UserError, match="is inside the pack"):
        exported(protocol_of(tmp_path, n=2), first / "packs" / "R1" / "inner", monkeypatch)
    pytest.importorskip("pyrage")
    with pytest.raises(UserError, match="not an age recipient"):
        study = Study(tmp_path / "sealed")
        export(protocol_of(tmp_path, n=2), study, Store(tmp_path), finish, check_study, "age1bogus")
    assert not (tmp_path / "sealed").exists()


def test_a_copy_without_its_dates_gets_a_note(clean: tuple[Path, Key, StudyProtocol], tmp_path: Path) -> None:
    pack, key, protocol = clean
    shutil.copytree(pack, tmp_path / "pack", copy_function=shutil.copyfile)
    for second, path in enumerate(sorted((tmp_path / "pack").rglob("*"))):
        os.utime(path, (1.7e9 + second, 1.7e9 + second))
    found = check_pack(tmp_path / "pack", key, protocol)
    assert found.leaks == () and any("copied without its dates" in note for note in found.notes)
