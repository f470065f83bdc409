from pathlib import Path
from typing import Any

import pytest

from medlord_bench.engine import resolve, run_file
from medlord_bench.engine.run_file import RunFile
from medlord_bench.errors import UserError


def test_set_values_are_yaml_and_commas_make_lists() -> None:
    found = run_file.parse_sets(["a.b=1", "a.c=64,64,48", "a.d=1e-4", "a.e=[1, 2]", "a.f=null", "a.g=x"])
    assert found == {"a.b": 1, "a.c": [64, 64, 48], "a.d": 1e-4, "a.e": [1, 2], "a.f": None, "a.g": "x"}


def test_a_learning_rate_written_1e_4_is_a_number_in_the_end() -> None:
    made = resolve.contestant("medlord@smoke", "phantom", {"generator.diffusion.lr": "1e-4"})
    assert made.config["diffusion"]["lr"] == 1e-4


@pytest.mark.parametrize("option", ["steps", "=3", "a.b"])
def test_a_set_without_path_or_value_is_refused(option: str) -> None:
    with pytest.raises(UserError, match="expected PATH=VALUE"):
        run_file.parse_sets([option])


def test_overrides_lie_on_top_of_variant_on_top_of_preset() -> None:
    plain = resolve.contestant("medlord@tiny", "phantom", {}).config
    untrained = resolve.contestant("medlord:untrained@tiny", "phantom", {}).config
    own = resolve.contestant("medlord:untrained@tiny", "phantom", {"medlord.diffusion.steps": 7}).config
    assert plain["diffusion"]["steps"] > 0
    assert untrained["diffusion"]["steps"] == 0
    assert own["diffusion"]["steps"] == 7
    assert plain["autoencoder"]["net"] == untrained["autoencoder"]["net"]


def test_the_preset_is_tiny_on_the_phantom_and_24gb_on_real_data() -> None:
    assert resolve.contestant("medlord", "phantom", {}).name == "medlord@tiny"
    assert resolve.contestant("medlord", "pccta", {}).name == "medlord@24gb"
    assert resolve.contestant("noise", "pccta", {}).name == "noise"


@pytest.mark.parametrize(
    ("text", "sets", "message"),
    [
        ("medlord@tinny", {}, "unknown preset 'tinny'; did you mean 'tiny'"),
        ("medlord:untraned@tiny", {}, "unknown variant 'untraned'; did you mean 'untrained'"),
        ("medlord@tiny@x", {}, "expected NAME"),
        ("medlord@tiny", {"generator.difusion.steps": 1}, "unknown field 'difusion'; did you mean 'diffusion'"),
        (
            "medlord@tiny",
            {"generator.diffusion.stepps": 1},
            "unknown field 'diffusion.stepps'; did you mean 'diffusion.steps'",
        ),
        ("medlord@tiny", {"generator.diffusion.steps": "many"}, "field 'diffusion.steps': .*valid integer.*got 'many'"),
    ],
)
def test_a_mistake_in_a_contestant_names_the_field_and_the_near_miss(text: str, sets: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve.contestant(text, "phantom", sets)


def test_a_set_path_that_leads_nowhere_is_refused() -> None:
    file = RunFile(generators=("noise",), dataset="phantom", set={"datset.seed": 1})
    with pytest.raises(UserError, match="unknown start of a path 'datset'; did you mean 'dataset'"):
        resolve.resolve(file)


def test_the_same_contestant_twice_is_refused() -> None:
    with pytest.raises(UserError, match="noise: given twice"):
        resolve.resolve(RunFile(generators=("noise", "noise"), dataset="phantom"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("generators: [noise]\ndatset: phantom\n", "unknown field 'datset'; did you mean 'dataset'"),
        ("- noise\n", "with fields and values, got list"),
        ("generators: [noise\n", "not YAML"),
        ("generators: [noise]\nsamples: -1\n", "field 'samples'"),
    ],
)
def test_a_mistake_in_a_run_file_names_file_and_field(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=f"run.yaml.*{message}"):
        run_file.read_run_file(path)


def test_a_run_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing.yaml: not found"):
        run_file.read_run_file(tmp_path / "nothing.yaml")


def test_nothing_to_run_says_what_to_give() -> None:
    with pytest.raises(UserError, match="--generator NAME"):
        resolve.resolve(RunFile(dataset="phantom"))
    with pytest.raises(UserError, match="--dataset NAME"):
        resolve.resolve(RunFile(generators=("noise",)))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"metrics": ("tissue", "tissue")}, "--metric tissue: given twice; give it once"),
        ({"set": {"dataset": {"n_test": 4}}}, "--set dataset: expected a path with a dot, such as dataset.FIELD"),
        ({"set": {"dataset.n_test": True}}, "dataset phantom: field 'n_test': expected a number, got true or false"),
    ],
)
def test_what_would_be_taken_for_something_else_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        resolve.resolve(run_file.RunFile(generators=("noise",), dataset="phantom", **given))


@pytest.mark.parametrize("path", ["dataset.", ".n_test", "dataset..n_test", " ", "dataset. "])
def test_a_path_with_an_empty_part_is_refused(path: str) -> None:
    with pytest.raises(UserError, match="expected PATH=VALUE"):
        run_file.parse_sets([f"{path}=1"])
