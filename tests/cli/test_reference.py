"""`reference export` and `evaluate --reference`: the same numbers without cases, nothing of a case, and what is refused."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from medlord_bench.contracts.reference import FIELD, NEEDS_CASES, Reference, read_reference
from medlord_bench.errors import UserError
from medlord_bench.plugins.datasets.phantom.dataset import PhantomConfig, PhantomDataset
from medlord_bench.util.hashing import file_sha256
from medlord_bench.volumes.io import write_volume

PATIENTS = 10
SETTINGS = (
    "dataset.shape=32,32,16",
    f"dataset.n_train={PATIENTS + 2}",
    "dataset.n_val=1",
    f"dataset.n_test={PATIENTS}",
)
SETTINGS += ("fid.features.size=32", "fid.features.slices=4")
METRICS = ("fid", "rvr", "axes", "memorisation")
Scores = dict[tuple[str, str, str], dict[str, Any]]


def words(option: str, values: tuple[str, ...]) -> list[str]:
    return [word for value in values for word in (option, value)]


@pytest.fixture(scope="module")
def run_folder(bench: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on twelve and ten patients."""
    store = tmp_path_factory.mktemp("hospital") / "store"
    done = bench(
        *("run", "--generator", "noise", "--dataset", "phantom", "--no-report", "--store", store),
        *(*words("--set", SETTINGS), *words("--metric", METRICS)),
    )
    assert done.code == 0, done.err
    return Path(done.out.strip())


@pytest.fixture(scope="module")
def file(bench: Any, run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("sent") / "reference.safetensors"
    done = bench("reference", "export", run_folder, "--to", path, "--store", run_folder.parents[1])
    assert done.code == 0, done.err
    return path


@pytest.fixture(scope="module")
def evaluated(bench: Any, run_folder: Path, file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's own samples against the file, in another store."""
    store = tmp_path_factory.mktemp("collaborator") / "store"
    done = bench("evaluate", "--reference", file, "--synthetic", f"theirs={samples_of(run_folder)}", "--store", store)
    assert done.code == 0, done.err
    return Path(done.out.strip()).parents[1]


def samples_of(run_folder: Path) -> Path:
    return next((run_folder / "samples").iterdir())


def scores_of(folder: Path) -> Scores:
    made = json.loads((folder / "results" / "scores.json").read_text())["scores"]
    return {(one["metric"], one["reference"], one["region"]): one for one in made}


def rows_of(folder: Path) -> list[dict[str, str]]:
    with open(folder / "results" / "cases.csv", newline="") as table:
        return list(csv.DictReader(table))


def one_line(done: Any, code: int) -> str:
    assert (done.code, done.out) == (code, ""), done.err
    assert "Traceback" not in done.err
    return next(line for line in done.err.splitlines() if line.startswith("Error: "))


# ------------------------------------------------------------------------------------------------------------- numbers
def test_fid_is_that_of_the_run_with_cases_and_has_its_protocol(run_folder: Path, evaluated: Path) -> None:
    with_cases, without = scores_of(run_folder), scores_of(evaluated)
    compared = [key for key in with_cases if key[0] == "fid"]
    assert len(compared) == 2 * 4  # train and test; three planes and their mean
    for key in compared:
        ours, theirs = with_cases[key], without[key]
        assert theirs["value"] == pytest.approx(ours["value"], rel=1e-9)
        same = ("protocol", "dataset", "n", "n_reference", "floor_n", "floor_note")
        assert [theirs[field] for field in same] == [ours[field] for field in same]
        assert theirs["floor"] == ours["floor"]
        assert theirs["low"] <= theirs["value"] <= theirs["high"]
        assert theirs["high"] - theirs["low"] < ours["high"] - ours["low"]
        assert "samples alone" in theirs["interval"]
        assert any("without the variation of the real volumes" in note["text"] for note in theirs["notes"])


def test_volume_ratios_are_those_of_the_run_beside_the_real_ones(run_folder: Path, evaluated: Path) -> None:
    with_cases, without = scores_of(run_folder), scores_of(evaluated)
    medians = [key for key, one in with_cases.items() if key[0] in ("rvr", "rvr_ml") and one["status"] == "ok"]
    assert medians
    for key in medians:
        fields = ("value", "quartiles", "low", "high", "protocol", "n")
        assert [without[key][field] for field in fields] == [with_cases[key][field] for field in fields]
    said = [without[key]["notes"][0]["text"] for key in medians]
    assert all(text.startswith("real train: ") for text in said)
    assert any("mean" in text for text in said)
    assert any("no statistics, fewer than 10 volumes have the region" in text for text in said)
    absent = {key: one for key, one in without.items() if key[0] == "rvr_absent"}
    assert {region for _, _, region in absent} == {region for _, _, region in medians}
    real = [one for one in rows_of(run_folder) if one["metric"] == "rvr" and one["split"] == "test"]
    for (_, _, region), one in absent.items():
        lacking = sum(row["region"] == region and float(row["value"]) == 0 for row in real)
        assert (one["floor"], one["floor_n"]) == (lacking / PATIENTS, PATIENTS)
    assert not any(key[0] == "rvr_absent" for key in with_cases)


def test_everything_else_needs_cases(run_folder: Path, evaluated: Path) -> None:
    found = scores_of(evaluated)
    given = {"fid", "rvr", "rvr_ml", "rvr_absent"}
    others = [one for key, one in found.items() if key[0] not in given]
    assert {one["metric"] for one in others} >= {"kid", "recall", "rvr_joint", "rvr_missing", "axes", "copy_rate"}
    assert all(one["status"] == "not_run" and one["reason"].startswith(NEEDS_CASES) for one in others)
    assert {key[0] for key in scores_of(run_folder)} <= {key[0] for key in found}


def test_the_steps_of_the_real_volumes_are_not_planned_and_the_key_has_the_file(evaluated: Path, file: Path) -> None:
    plan = json.loads((evaluated / "plan.json").read_text())
    steps = {step["id"]: step for step in plan["steps"]}
    assert not any("real:" in id or "features:images" in id for id in steps)
    assert not any("memorisation" in id for id in steps if not id.startswith("scores:"))
    assert steps["scores:files:theirs:fid"]["identity"]["reference"] == file_sha256(file)


def test_the_page_tables_and_card_draw_it_and_say_what_needs_cases(bench: Any, evaluated: Path) -> None:
    assert bench("report", evaluated).code == 0
    page = (evaluated / "report" / "page.html").read_text()
    assert "on phantom" in page and NEEDS_CASES in page
    montage = json.loads((evaluated / "results" / "montage.json").read_text())
    assert [row["kind"] for row in montage["rows"]] == ["samples"]
    assert "The real volumes are known by a reference file of aggregate statistics" in page
    assert "aggregate statistics of a reference file (sha256 " in (evaluated / "report" / "card.md").read_text()
    assert "needs cases" in (evaluated / "report" / "tables" / "fid.md").read_text()


def test_it_is_one_report_with_a_run_that_has_cases(
    bench: Any, run_folder: Path, evaluated: Path, tmp_path: Path
) -> None:
    """Equal protocols, so one column; there is no paired test between the two."""
    done = bench("report", run_folder, evaluated, "--out", tmp_path, "--only", "tables")
    assert done.code == 0, done.err
    with open(tmp_path / "tables" / "fid.csv", newline="") as table:
        rows = [row for row in csv.DictReader(table) if row["metric"] == "fid"]
    assert {row["contestant"] for row in rows} == {"noise", "files:theirs"}
    assert len({row["protocol"] for row in rows}) == 1


def test_python_measures_against_a_file_too(run_folder: Path, file: Path, tmp_path: Path) -> None:
    import medlord_bench as mb

    results = mb.evaluate(
        None, samples_of(run_folder), reference=file, metrics=["axes"], store=tmp_path, device="cpu"
    )  # fmt: skip
    assert results.scores.reason.tolist() == [NEEDS_CASES]
    with pytest.raises(UserError, match="got neither"):
        mb.evaluate(None, samples_of(run_folder), store=tmp_path)


# --------------------------------------------------------------------------------------------------- nothing of a case
def read_parts(file: Path) -> tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]]:
    with safe_open(file, framework="np") as opened:
        names = list(opened.keys())
        return json.loads(opened.metadata()[FIELD]), {name: opened.get_tensor(name) for name in names}


def test_the_file_has_nothing_of_a_case(run_folder: Path, file: Path) -> None:
    """No id, no path, no hash of a case, no pixel, no row of features, and no value of a single volume."""
    plan = json.loads((run_folder / "plan.json").read_text())
    real = {item for items in plan["splits"].values() for item in items}
    content = file.read_bytes()
    for item in real:
        for secret in (item, *item.rsplit("-", 1), plan["patients"][item]):
            assert secret.encode() not in content, secret
    for place in (run_folder, run_folder.parents[1], Path.cwd(), Path("/tmp"), Path("/home")):
        assert f"{place}/".encode() not in content
    _, arrays = read_parts(file)
    held = np.concatenate([array.ravel() for array in arrays.values()])
    for path in (run_folder / "features").glob("images_*/*.safetensors"):
        for name, rows in load(path).items():
            for row in rows.astype(np.float64):
                for split in ("train", "test"):
                    factor = arrays[f"fid/{split}/{name}/factor"]
                    near = np.abs(factor - (row - arrays[f"fid/{split}/{name}/mean"])).max(1).min()
                    assert near > 1e-3
    own = [float(one["value"]) for one in rows_of(run_folder) if one["metric"] == "rvr" and not one["generator"]]
    assert own
    assert not set(own) & set(held.tolist()) - {0.0}


def test_a_folder_of_patients_leaves_no_name_and_gives_the_same_distance(bench: Any, tmp_path: Path) -> None:
    """From `evaluate --real`, whose data set has names and places of its own."""
    data = PhantomDataset(PhantomConfig(shape=(32, 32, 16), n_train=2 * PATIENTS, n_val=0, n_test=PATIENTS))
    for index, case in enumerate([*data.cases("train"), *data.cases("test")]):
        real = index < 2 * PATIENTS
        place = (
            tmp_path / "hospital" / f"mustermann-{index:02d}" / "ct.nii.gz" if real else tmp_path / f"ours/{index}.nii"
        )
        place.parent.mkdir(parents=True, exist_ok=True)
        write_volume(place, data.load(case)[0])
    samples = ("--synthetic", tmp_path / "ours", "--metric", "fid", "--no-report")
    with_cases = bench(
        *("evaluate", "--real", tmp_path / "hospital", *samples, "--store", tmp_path / "store"),
        *words("--set", SETTINGS[-2:]),
    )
    assert with_cases.code == 0, with_cases.err
    file = tmp_path / "sent"
    assert bench("reference", "export", "--to", file, "--store", tmp_path / "store").code == 0
    content = file.read_bytes()
    for secret in ("mustermann", "hospital", str(tmp_path), "ct.nii"):
        assert secret.encode() not in content
    without = bench("evaluate", "--reference", file, *samples, "--store", tmp_path / "other")
    assert without.code == 0, without.err
    ours, theirs = (scores_of(Path(done.out.strip())) for done in (with_cases, without))
    for split in ("train", "test"):
        one, other = ours["fid", split, ""], theirs["fid", split, ""]
        assert other["value"] == pytest.approx(one["value"], rel=1e-9)
        assert (other["protocol"], other["dataset"]) == (one["protocol"], "folder")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("weights of /home/anna/w.pt", "a path"),
        ("C:\\data\\ct\\", "a path"),
        ("as phantom-0003, twice", "the name of a case"),
        ("phantom", ""),
        ("voxels in the region / all voxels", ""),
        ("kernel (x.y / d + 1)^3", ""),
    ],
)
def test_a_text_that_names_a_case_or_a_place_does_not_leave(run_folder: Path, file: Path, text: str, what: str) -> None:
    from medlord_bench.engine.plan import read_plan
    from medlord_bench.engine.reference import check_nothing_of_cases

    known = read_reference(file).meta
    odd = known.metrics[0].model_copy(update={"text": {"rules": [text]}})
    meta = known.model_copy(update={"metrics": (odd,)})
    if not what:
        check_nothing_of_cases(meta, read_plan(run_folder))
        return
    with pytest.raises(UserError, match=f"metrics.0.text.rules.0: .* has {what}, which must not leave"):
        check_nothing_of_cases(meta, read_plan(run_folder))


def load(path: Path) -> Mapping[str, np.ndarray[Any, Any]]:
    from medlord_bench.volumes.arrays import load_state

    return load_state(path)


def test_what_the_file_says_of_itself(run_folder: Path, file: Path) -> None:
    found: Reference = read_reference(file)
    assert found.meta.patients == {"train": PATIENTS + 2, "val": 1, "test": PATIENTS}
    assert {one.name: one.patients for one in found.meta.metrics} == {
        **{"fid": PATIENTS, "rvr": PATIENTS},
        **{"axes": None, "memorisation": None},
    }
    known = found.of("fid")
    assert known is not None
    scores = json.loads((run_folder / "results" / "scores.json").read_text())
    assert scores["protocols"][known.protocol] == known.text
    arrays = found.arrays("fid")
    assert arrays["volumes"].tolist() == [PATIENTS]
    assert arrays["test/axial/factor"].shape == (PATIENTS * 4, len(arrays["test/axial/mean"]))
    assert all(array.dtype == np.float64 for array in arrays.values())


def test_one_run_gives_one_file_to_the_byte(bench: Any, run_folder: Path, file: Path, tmp_path: Path) -> None:
    done = bench("reference", "export", "--to", tmp_path / "again", "--store", run_folder.parents[1], "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["metrics"] == {"fid": PATIENTS, "rvr": PATIENTS}
    assert (tmp_path / "again").read_bytes() == file.read_bytes()


# ------------------------------------------------------------------------------------------------------------ mistakes
def test_statistics_of_few_patients_are_written_only_on_request(bench: Any, finished: Path, tmp_path: Path) -> None:
    to = tmp_path / "few.safetensors"
    words = ("reference", "export", "--to", to, "--store", finished)
    said = one_line(bench(*words), 2)
    assert "statistics of 3 real patients, expected at least 10" in said and "--allow-few" in said
    assert not to.exists()
    assert bench(*words, "--allow-few").code == 0
    assert to.exists()


def changed(file: Path, to: Path, change: Any) -> Path:
    """A copy of the file after `change(meta, arrays)`."""
    meta, arrays = read_parts(file)
    text = change(meta, arrays)
    save_file(arrays, to, metadata={FIELD: json.dumps(meta) if text is None else text})
    return to


def other_version(meta: dict[str, Any], arrays: Any) -> None:
    meta["schema_version"] = 99


def not_json(meta: dict[str, Any], arrays: Any) -> str:
    return "{"


def no_grid(meta: dict[str, Any], arrays: Any) -> None:
    del meta["data"]["grid"]


def lost_array(meta: dict[str, Any], arrays: dict[str, Any]) -> None:
    del arrays["fid/floor"]


def other_weights(meta: dict[str, Any], arrays: Any) -> None:
    _fid(meta)["extractor"]["preprocessing"]["weights_sha256"] = "0" * 64


def other_metric(meta: dict[str, Any], arrays: Any) -> None:
    _fid(meta)["version"] += 1


def _fid(meta: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(one["text"] for one in meta["metrics"] if one["name"] == "fid")
    return found


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (other_version, "schema_version 99, this version of medlord-bench reads 1"),
        (not_json, "not JSON"),
        (no_grid, "field 'data.grid'"),
        (lost_array, "array 'fid/floor' is missing"),
        (other_weights, "metric fid: protocol field extractor.preprocessing.weights_sha256 is"),
        (other_metric, "metric fid: protocol field version is"),
    ],
)
def test_a_file_that_does_not_fit_is_one_line_that_names_the_field(
    bench: Any, run_folder: Path, file: Path, tmp_path: Path, change: Any, expected: str
) -> None:
    odd = changed(file, tmp_path / "odd.safetensors", change)
    words = ("--synthetic", samples_of(run_folder), "--store", tmp_path / "store")
    said = one_line(bench("evaluate", "--reference", odd, *words), 2)
    assert str(odd) in said and expected in said
    assert not (tmp_path / "store" / "objects").exists()


def test_a_file_of_another_kind_and_none_at_all(bench: Any, run_folder: Path, file: Path, tmp_path: Path) -> None:
    samples = ("--synthetic", samples_of(run_folder), "--store", tmp_path / "store")
    weights = tmp_path / "weights.safetensors"
    save_file({"a": np.zeros(3)}, weights)
    assert f"{weights}: metadata has no field" in one_line(bench("evaluate", "--reference", weights, *samples), 2)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(file.read_bytes()[:-100])
    assert f"{cut}: not a reference file, or damaged" in one_line(bench("evaluate", "--reference", cut, *samples), 2)
    flipped = bytearray(file.read_bytes())
    flipped[-1000] ^= 1
    cut.write_bytes(flipped)
    assert "sha256 of the arrays is" in one_line(bench("evaluate", "--reference", cut, *samples), 2)
    gone = tmp_path / "gone"
    assert f"{gone}: not found; expected a file of" in one_line(bench("evaluate", "--reference", gone, *samples), 3)
    assert "expected either --real DIR or --reference FILE" in one_line(bench("evaluate", *samples), 2)
    both = ("--real", tmp_path, "--reference", file)
    assert "not both" in one_line(bench("evaluate", *both, *samples), 2)


def test_samples_of_another_shape_and_settings_that_the_file_fixes(
    bench: Any, run_folder: Path, file: Path, tmp_path: Path
) -> None:
    np.save(tmp_path / "a.npy", np.zeros((8, 16, 12), np.int16))
    words = ("evaluate", "--reference", file, "--store", tmp_path / "store")
    said = one_line(bench(*words, "--synthetic", tmp_path), 2)
    assert f"{tmp_path / 'a.npy'}: its grid is 8x16x12" in said
    assert "expected 32x32x16, the field data.grid.shape" in said and "fit=crop-pad" in said
    samples = ("--synthetic", samples_of(run_folder))
    said = one_line(bench(*words, *samples, "--set", "dataset.shape=8,8,8"), 2)
    assert "--set dataset.shape: the protocol of --reference" in said
    said = one_line(bench(*words, *samples, "--set", "fid.minimum=4"), 2)
    assert "protocol field config.minimum is 8 in the file and 4 here" in said


def test_fewer_samples_than_real_volumes_give_no_distance(
    bench: Any, run_folder: Path, file: Path, tmp_path: Path
) -> None:
    done = bench(
        *("evaluate", "--reference", file, "--synthetic", samples_of(run_folder), "--samples", str(PATIENTS - 1)),
        *("--metric", "fid", "--no-report", "--store", tmp_path),
    )
    assert done.code == 0, done.err
    found = scores_of(Path(done.out.strip()))
    assert found["fid", "test", ""]["status"] == "not_run"
    assert f"give at least {PATIENTS} samples" in found["fid", "test", ""]["reason"]


def test_a_generator_that_trains_and_a_second_export_are_refused(
    bench: Any, evaluated: Path, file: Path, tmp_path: Path
) -> None:
    done = bench(
        *("run", "--generator", "medlord@tiny", "--dataset", "reference", "--set", f"dataset.file={file}"),
        *("--metric", "fid", "--store", tmp_path),
    )
    assert "reads training cases" in one_line(done, 2)
    said = one_line(bench("reference", "export", evaluated, "--to", tmp_path / "x", "--store", evaluated.parents[1]), 2)
    assert "was measured against a reference file itself" in said
