"""Samples in a folder: what is read, what each declaration does, and what bad input says."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from medlord_bench.contracts import DataProtocol, Failure, Generator, Grid, LabelMap, Purpose, Request, Run, Volume
from medlord_bench.contracts.specs import Contestant, make
from medlord_bench.engine.keys import decides
from medlord_bench.engine.resolve import contestant
from medlord_bench.errors import MissingError, UserError
from medlord_bench.generators.own.files import Files
from medlord_bench.generators.own.manifest import natural
from medlord_bench.generators.own.reading import shape_of
from medlord_bench.volumes.io import read_volume, write_volume

SHAPE = (12, 10, 8)


@pytest.fixture(autouse=True)
def _own_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDLORD_BENCH_CACHE", str(tmp_path / "memory.json"))


def hu(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> Any:
    """A CT whose every axis and direction is different."""
    values = np.random.default_rng(seed).integers(-1000, 1000, shape).astype(np.int16)
    values.flat[:2] = -1000, 999
    return values


def protocol(shape: tuple[int, int, int] = SHAPE, window: tuple[int, int] = (-1000, 1000)) -> DataProtocol:
    grid = Grid(shape=shape, hu_window=window)
    return DataProtocol(
        name="folder", grid=grid, fit="crop-pad", split="", split_sha256="", counts={"test": 2}, masks="dataset"
    )


def resolved(folder: Path, **config: Any) -> Contestant:
    sets = {"files:mine.folder": str(folder), **{f"files:mine.{k.replace('__', '.')}": v for k, v in config.items()}}
    return contestant("files:mine", "folder", sets)


def files(folder: Path, **config: Any) -> Files:
    made = make("generators", resolved(folder, **config))
    assert isinstance(made, Files)
    return made


def in_key(generator: Files, purpose: Purpose) -> dict[str, Any]:
    return decides(generator.config, generator.dependencies(purpose))


def read(generator: Files, run: Run, n: int = 1, grid: Grid | None = None) -> list[Volume | Failure]:
    requests = [Request(index, index, grid or Grid(shape=SHAPE, hu_window=(-1000, 1000))) for index in range(n)]
    return list(generator.sample({}, requests, run))


def one(folder: Path, run: Run, grid: Grid | None = None, **config: Any) -> Any:
    (volume,) = read(files(folder, **config), run, grid=grid)
    assert isinstance(volume, Volume), volume
    assert volume.hu.dtype == np.int16
    return volume.hu


def reason(folder: Path, run: Run, **config: Any) -> str:
    (volume,) = read(files(folder, **config), run)
    assert isinstance(volume, Failure)
    return volume.reason


def nifti(path: Path, values: Any, affine: Any = None) -> Path:
    image = nib.Nifti1Image(values, np.diag([2.0, 2.0, 3.0, 1.0]) if affine is None else affine)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return path


def array(path: Path, values: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, values)
    return path


# ---------------------------------------------------------------------------------------------------------- reading
def test_it_is_a_generator_with_no_stage(tmp_path: Path) -> None:
    nifti(tmp_path / "s" / "a.nii.gz", hu())
    generator = files(tmp_path / "s")
    assert isinstance(generator, Generator)
    assert generator.stages() == ()
    assert generator.capabilities == {"unconditional"}
    assert generator.available(protocol()) == 1
    assert resolved(tmp_path / "s").name == "files:mine"


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.npy", "a.npz", "a.mha"])
def test_every_format_gives_the_same_hu(name: str, tmp_path: Path, run: Run) -> None:
    values, path = hu(), tmp_path / "s" / name
    path.parent.mkdir()
    if name.endswith(".npz"):
        np.savez_compressed(path, data=values)
    elif name.endswith(".npy"):
        np.save(path, values)
    elif name.endswith(".mha"):
        image = sitk.GetImageFromArray(values.transpose(2, 1, 0))
        image.SetDirection([-1.0, 0, 0, 0, -1, 0, 0, 0, 1])  # ITK's world is LPS: these axes are R, A, S
        sitk.WriteImage(image, str(path))
    else:
        nifti(path, values)
    np.testing.assert_array_equal(one(path.parent, run), values)


def test_samples_are_in_the_order_in_which_they_are_numbered(tmp_path: Path, run: Run) -> None:
    for index in (10, 9, 2, 0):
        array(tmp_path / "s" / f"sample_{index}.npy", hu(index))
    (tmp_path / "s" / "log.txt").write_text("no volume")
    volumes = read(files(tmp_path / "s"), run, 4)
    for index, volume in zip((0, 2, 9, 10), volumes, strict=True):
        assert isinstance(volume, Volume)
        np.testing.assert_array_equal(volume.hu, hu(index))
    assert sorted(map(Path, ["b2", "b10", "a", "10", "9"]), key=natural) == [*map(Path, ["9", "10", "a", "b2", "b10"])]


def test_nifti_axes_are_brought_to_r_a_s_by_the_affine(tmp_path: Path, run: Run) -> None:
    """Against the bench's own reader of real images."""
    values = hu(1, (8, 12, 10))
    affine = np.array([[0, -2.0, 0, 5], [0, 0, -2.0, 7], [3.0, 0, 0, 9], [0, 0, 0, 1]])  # S, L, P
    path = nifti(tmp_path / "s" / "a.nii.gz", values, affine)
    got = one(tmp_path / "s", run)
    np.testing.assert_array_equal(got, read_volume(path).hu)
    assert got[0, 0, 0] == values[0, -1, -1]
    assert shape_of(path, files(tmp_path / "s").config) == SHAPE


def test_axes_can_be_declared_for_arrays_and_against_a_wrong_affine(tmp_path: Path, run: Run) -> None:
    values = hu()
    array(tmp_path / "lps" / "a.npy", values[::-1, ::-1])
    np.testing.assert_array_equal(one(tmp_path / "lps", run, orientation="LPS"), values)
    array(tmp_path / "sar" / "a.npy", values.transpose(2, 1, 0))
    np.testing.assert_array_equal(one(tmp_path / "sar", run, orientation="sar"), values)
    nifti(tmp_path / "nii" / "a.nii.gz", values[::-1])
    np.testing.assert_array_equal(one(tmp_path / "nii", run, orientation="LAS"), values)


@pytest.mark.parametrize("orientation", ["LRS", "LP", "XYZ", "LPSI"])
def test_axes_that_are_none_are_refused(orientation: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="field 'orientation': expected 'ras' or three letters"):
        resolved(tmp_path, orientation=orientation)


def test_axes_of_length_one_that_a_batch_leaves_are_dropped(tmp_path: Path, run: Run) -> None:
    array(tmp_path / "s" / "a.npy", hu()[None, None])
    files(tmp_path / "s").check(protocol())
    np.testing.assert_array_equal(one(tmp_path / "s", run), hu())


def test_an_npz_of_several_arrays_needs_one_named_volume(tmp_path: Path, run: Run) -> None:
    (tmp_path / "s").mkdir()
    np.savez(tmp_path / "s" / "a.npz", volume=hu(), latent=np.zeros((2, 2)))
    np.testing.assert_array_equal(one(tmp_path / "s", run), hu())
    np.savez(tmp_path / "s" / "a.npz", image=hu(), latent=np.zeros((2, 2)))
    with pytest.raises(
        UserError, match=r"a\.npz: contains the arrays image, latent; expected one, or one named 'volume'"
    ):
        files(tmp_path / "s").check(protocol())


# --------------------------------------------------------------------------------------------------------- intensity
@pytest.mark.parametrize("low", [0.0, -1.0])
def test_a_declared_scale_is_mapped_before_rounding(low: float, tmp_path: Path, run: Run) -> None:
    values = hu()
    scaled = ((values + 1000) / 2000 * (1 - low) + low).astype(np.float32)
    array(tmp_path / "s" / "a.npy", scaled)
    got = one(tmp_path / "s", run, intensity={"from": [low, 1], "to": [-1000, 1000]})
    np.testing.assert_array_equal(got, values)


def test_a_declared_scale_may_overshoot_a_little_and_is_clipped(tmp_path: Path, run: Run) -> None:
    scaled = np.linspace(-0.1, 1.1, int(np.prod(SHAPE))).reshape(SHAPE)
    array(tmp_path / "s" / "a.npy", scaled)
    got = one(tmp_path / "s", run, intensity__from=[0, 1], intensity__to=[-1000, 1000])
    assert (got.min(), got.max()) == (-1000, 1000)


def test_hu_declared_as_zero_to_one_is_a_failure(tmp_path: Path, run: Run) -> None:
    array(tmp_path / "s" / "a.npy", hu())
    said = reason(tmp_path / "s", run, intensity={"from": [0, 1], "to": [-1000, 1000]})
    assert said == "values are in -1000..999, declared 0..1"


@pytest.mark.parametrize("fit", ["exact", "crop-pad", "resize"])
def test_an_undeclared_scale_is_a_failure_on_every_way_to_the_grid(fit: str, tmp_path: Path, run: Run) -> None:
    """Padded with air it would span -1000..1 and pass for HU."""
    shape = SHAPE if fit == "exact" else (6, 6, 6)
    array(tmp_path / "s" / "a.npy", np.random.default_rng(0).random(shape))
    assert reason(tmp_path / "s", run, fit=fit) == (
        "values are in 0..1: scaled to [0, 1] or [-1, 1], not HU: declare intensity.from and intensity.to"
    )


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"intensity": {"from": [1, 0], "to": [-1000, 1000]}}, "from: expected two ascending numbers"),
        ({"intensity": {"from": [0, 1]}}, "field 'intensity.to': Field required"),
        ({"intensity": "raw"}, "field 'intensity'"),
        ({"fit": "squeeze"}, "field 'fit'"),
        ({"foldr": "x"}, "did you mean 'folder'"),
    ],
)
def test_a_wrong_declaration_is_named(config: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        resolved(tmp_path, **config)


def test_hu_and_its_clip_to_the_protocols_window(tmp_path: Path, run: Run) -> None:
    values = hu()
    values.flat[5:7] = -3024, 3071
    array(tmp_path / "s" / "a.npy", values.astype(np.float64))
    np.testing.assert_array_equal(one(tmp_path / "s", run, intensity="hu"), values.clip(-1000, 1000))


def test_a_scale_that_stands_for_a_narrower_window_is_refused_before_any_work(tmp_path: Path) -> None:
    array(tmp_path / "s" / "a.npy", np.random.default_rng(0).random(SHAPE))
    generator = files(tmp_path / "s", intensity={"from": [0, 1], "to": [-1000, 400]})
    with pytest.raises(UserError, match=r"-1000,400 HU, the window of folder -1000,1000.*dataset.hu_window=-1000,400"):
        generator.check(protocol())
    generator.check(protocol(window=(-1000, 400)))


def test_samples_that_all_end_inside_the_window_are_pointed_at(
    tmp_path: Path, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    for index in range(3):
        array(tmp_path / "s" / f"{index}.npy", hu(index).clip(-1000, 400))
    with caplog.at_level(logging.WARNING):
        read(files(tmp_path / "s"), run, 3)
    assert "all 3 samples end at 400 HU, the protocol's window at 1000" in caplog.text
    caplog.clear()
    read(files(tmp_path / "s"), run, 3, Grid(shape=SHAPE, hu_window=(-1000, 400)))
    assert caplog.text == ""


def test_what_is_done_to_the_values_is_said(tmp_path: Path, run: Run, caplog: pytest.LogCaptureFixture) -> None:
    array(tmp_path / "s" / "a.npy", np.random.default_rng(0).random(SHAPE))
    with caplog.at_level(logging.INFO):
        one(tmp_path / "s", run, intensity={"from": [0, 1], "to": [-1000, 1000]}, orientation="LPS")
    assert "values 0..1 mapped to -1000..1000 HU; axes taken as LPS; grid as it is" in caplog.text


# -------------------------------------------------------------------------------------------------------------- grid
def test_another_grid_is_refused_before_any_work_with_what_to_set(tmp_path: Path) -> None:
    path = array(tmp_path / "s" / "a.npy", hu(shape=(9, 9, 9)))
    generator = files(tmp_path / "s")
    with pytest.raises(UserError) as caught:
        generator.check(protocol())
    text = str(caught.value)
    assert text.startswith(f"{path}: its grid is 9x9x9 (along R, A, S), that of folder 12x10x8; ")
    assert "files:NAME.fit=crop-pad" in text and "dataset.shape=9,9,9" in text


def test_a_grid_in_another_order_of_axes_points_at_the_orientation(tmp_path: Path) -> None:
    array(tmp_path / "s" / "a.npy", hu().transpose(2, 1, 0))
    with pytest.raises(UserError, match="its axes may be in another order: set files:NAME.orientation"):
        files(tmp_path / "s").check(protocol())
    files(tmp_path / "s", orientation="SAR").check(protocol())


def test_crop_pad_keeps_voxels_and_resize_keeps_the_field_of_view(tmp_path: Path, run: Run) -> None:
    small = hu(shape=(8, 8, 8))
    array(tmp_path / "s" / "a.npy", small)
    padded = one(tmp_path / "s", run, fit="crop-pad")
    np.testing.assert_array_equal(padded[2:10, 1:9], small)
    assert (padded[:2] == -1000).all()
    doubled = one(tmp_path / "s", run, Grid(shape=(16, 16, 16), hu_window=(-1000, 1000)), fit="resize")
    assert doubled.shape == (16, 16, 16)
    assert abs(float(doubled.mean()) - float(small.mean())) < 60


# ---------------------------------------------------------------------------------------------------------- failures
def test_bad_volumes_are_failures_and_the_others_are_read(tmp_path: Path, run: Run) -> None:
    place = tmp_path / "s"
    broken = np.full(SHAPE, np.nan)
    for name, values in (
        ("0nan", broken),
        ("1constant", np.full(SHAPE, 40)),
        ("2flat", np.zeros((4, 4))),
        ("3channels", np.zeros((3, *SHAPE))),
        ("4good", hu()),
        ("5complex", hu().astype(np.complex64)),
    ):
        array(place / f"{name}.npy", values)
    nifti(place / "6nan.nii.gz", broken.astype(np.float32))
    whole = nifti(place / "7cut.nii.gz", hu(shape=SHAPE)).read_bytes()
    (place / "7cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    generator = files(place)
    generator.check(protocol())
    found = read(generator, run, 8)
    assert [isinstance(volume, Failure) for volume in found] == [True] * 4 + [False] + [True] * 3
    words = ("NaN", "constant (40 HU)", "3-D", "3-D", "", "type complex64", "NaN", "7cut.nii.gz")
    for volume, word in zip(found, words, strict=True):
        assert isinstance(volume, Volume) or word in volume.reason


def test_a_file_that_is_no_volume_is_refused_before_any_work(tmp_path: Path) -> None:
    for name, text in (("a.npy", b"text"), ("a.npz", b"text"), ("a.nii.gz", b""), ("a.mha", b"text")):
        path = tmp_path / name / name
        path.parent.mkdir()
        path.write_bytes(text)
        with pytest.raises(UserError, match=f"{name}: .*cannot be read"):
            files(path.parent).check(protocol())


def test_pickles_are_never_loaded(tmp_path: Path, run: Run) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "exploded",)

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    np.save(tmp_path / "a" / "a.npy", np.array([Bomb()], dtype=object))
    np.savez(tmp_path / "b" / "a.npz", volume=np.array([Bomb()], dtype=object))
    for place in ("a", "b"):
        (volume,) = read(files(tmp_path / place), run)
        assert isinstance(volume, Failure) and "pickle" in volume.reason.lower()
    assert not (tmp_path / "exploded").exists()


# ---------------------------------------------------------------------------------------------------------- manifest
def manifest(folder: Path, text: str, name: str = "manifest.csv") -> Path:
    for index in range(4):
        array(folder / "v" / f"{index}.npy", hu(index))
    (folder / name).write_text(text)
    return folder


def request(case: str) -> Request:
    grid = Grid(shape=SHAPE, hu_window=(-1000, 1000))
    condition = LabelMap(np.zeros(SHAPE, np.uint8), np.diag([3.0, 3.0, 3.0, 1.0]), {1: "aorta"})
    return Request(0, 0, grid, condition, case)


MIXED = "sample,condition,reconstruction_of\nv/3.npy,,\nv/0.npy,,\nv/1.npy,c-7,\nv/2.npy,,c-8\n"


@pytest.mark.parametrize(("name", "mark"), [("manifest.csv", ","), ("other.tsv", "\t")])
def test_a_manifest_says_what_each_file_is(name: str, mark: str, tmp_path: Path, run: Run) -> None:
    folder = manifest(tmp_path / "s", MIXED.replace(",", mark), name)
    generator = files(folder, **({} if name == "manifest.csv" else {"manifest": name}))
    assert generator.capabilities == {"unconditional", "conditional", "reconstructs"}
    assert generator.available(protocol()) == 2
    generator.check(protocol())
    for index, volume in zip((3, 0), read(generator, run, 2), strict=True):
        assert isinstance(volume, Volume)
        np.testing.assert_array_equal(volume.hu, hu(index))
    follows, none = generator.sample({}, [request("c-7"), request("c-9")], run)
    assert isinstance(follows, Volume)
    np.testing.assert_array_equal(follows.hu, hu(1))
    assert follows.spacing == (3, 3, 3)  # of its mask
    assert none == Failure("the manifest has no file for case c-9")
    image = Volume(hu(5), np.diag([1.5, 1.5, 1.5, 1.0]))
    (again,) = generator.reconstruct({}, [("c-8", image)], run)
    assert isinstance(again, Volume)
    np.testing.assert_array_equal(again.hu, hu(2))
    assert again.spacing == (1.5, 1.5, 1.5)


def test_conditions_that_are_no_test_case_are_refused_with_the_ids_expected(tmp_path: Path, run: Run) -> None:
    generator = files(manifest(tmp_path / "s", MIXED))
    with pytest.raises(UserError, match="expected case ids such as p1, got c-7: fix the column 'condition'"):
        list(generator.sample({}, [request("p1"), request("p2")], run))


def test_after_a_stop_a_case_that_the_manifest_lacks_is_a_failure(tmp_path: Path, run: Run) -> None:
    """Else a run of which only such cases are left could never end."""
    generator = files(manifest(tmp_path / "s", MIXED))
    made = list(generator.sample({}, [replace(request("p2"), index=1)], run))
    assert made == [Failure("the manifest has no file for case p2")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sample\nv/9.npy\n", r"line 2: .*9\.npy: not found"),
        ("sample\n../v/0.npy\n", "line 2, column 'sample' is '../v/0.npy'; expected a path below"),
        ("sample\n/etc/passwd\n", "expected a path below"),
        ("sample\n\n,\n", "expected a path below"),
        ("sample\nmanifest.csv\n", "not a volume suffix"),
        ("sample,conditon\nv/0.npy,a\n", "unknown column 'conditon'; did you mean 'condition'"),
        ("condition\na\n", "no column 'sample'"),
        ("sample\n", "names no file"),
        ("sample,condition,reconstruction_of\nv/0.npy,a,b\n", "a condition and a reconstruction_of"),
        ("sample\nv/0.npy\nv/../v/0.npy\n", "is named twice"),
        ("sample,condition\nv/0.npy,a\nv/1.npy,a\n", "two files for case 'a'"),
    ],
)
def test_a_wrong_manifest_is_refused_before_any_work(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        files(manifest(tmp_path / "s", text)).check(protocol())


def test_an_absolute_path_inside_the_folder_is_taken(tmp_path: Path) -> None:
    folder = manifest(tmp_path / "s", f"sample\n{tmp_path / 's' / 'v' / '0.npy'}\n")
    assert files(folder).available(protocol()) == 1


def test_masks_among_samples_are_not_taken_for_samples(tmp_path: Path) -> None:
    array(tmp_path / "s" / "a.npy", hu())
    nifti(tmp_path / "s" / "a_mask.nii.gz", hu())
    with pytest.raises(UserError, match="its name is that of a mask"):
        files(tmp_path / "s")


@pytest.mark.parametrize(("place", "error"), [("nowhere", MissingError), ("empty", UserError)])
def test_no_folder_or_an_empty_one_is_said(place: str, error: type[UserError], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(error, match=f"{place}: (not a folder|no volumes)"):
        files(tmp_path / place)
    with pytest.raises(UserError, match="no folder given; expected --set files:NAME.folder=DIR"):
        make("generators", contestant("files:mine", "folder", {})).check(protocol())


# --------------------------------------------------------------------------------------------------------------- keys
def test_content_and_mapping_are_in_the_key_and_the_place_is_not(tmp_path: Path) -> None:
    first = in_key(files(manifest(tmp_path / "a", MIXED)), "sample")
    assert in_key(files(manifest(tmp_path / "b", MIXED)), "sample") == first
    assert json.dumps(first)
    assert in_key(files(tmp_path / "a", orientation="LPS"), "sample") != first
    assert in_key(files(tmp_path / "a"), "sample-conditional") != first
    array(tmp_path / "a" / "v" / "2.npy", hu(9))  # of a reconstruction: no sample changes
    assert in_key(files(tmp_path / "a"), "sample") == first
    array(tmp_path / "a" / "v" / "3.npy", hu(9))
    assert in_key(files(tmp_path / "a"), "sample") != first


def test_another_case_for_the_same_file_is_another_key(tmp_path: Path) -> None:
    first = in_key(files(manifest(tmp_path / "a", MIXED)), "sample-conditional")
    other = in_key(files(manifest(tmp_path / "b", MIXED.replace("c-7", "c-6"))), "sample-conditional")
    assert first != other


def test_a_real_ct_written_in_another_orientation_comes_back_to_the_voxel(
    tmp_path: Path, run: Run, data_dir: Path
) -> None:
    volume = read_volume(data_dir / "abdomen" / "ct.nii.gz")
    image = nib.as_closest_canonical(nib.Nifti1Image(volume.hu, volume.affine))
    turned = image.as_reoriented(nib.orientations.axcodes2ornt(("P", "I", "R")))
    (tmp_path / "s").mkdir()
    nib.save(turned, tmp_path / "s" / "ct.nii.gz")
    grid = Grid(shape=volume.shape, hu_window=(-1000, 2000))
    np.testing.assert_array_equal(one(tmp_path / "s", run, grid), volume.hu.clip(-1000, 2000))
    write_volume(tmp_path / "s" / "ct.nii.gz", Volume(volume.hu[:-1], volume.affine))
    with pytest.raises(UserError, match="its grid is"):
        files(tmp_path / "s").check(protocol(volume.shape))
