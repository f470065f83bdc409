"""The run files of the documentation are valid, and say what their page says."""

from pathlib import Path

import pytest

from medlord_bench.engine import resolve, run_file

EXAMPLES = sorted((Path(__file__).parents[1] / "docs" / "examples").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_contestant_of_an_example_is_known_with_its_variant_and_preset(path: Path) -> None:
    file = run_file.read_run_file(path)
    made = [resolve.contestant(text, file.dataset, file.set) for text in file.generators]
    assert [one.name for one in made] == list(file.generators)


def test_the_papers_experiment_has_all_of_its_models() -> None:
    file = run_file.read_run_file(next(path for path in EXAMPLES if path.stem == "paper-pccta"))
    assert {text.partition("@")[0] for text in file.generators} >= {
        "medlord",
        "maisi:scratch",
        "maisi:foundation",
        "hagan",
        "vqtrans",
        "voldit",
    }
    assert file.samples == 120
