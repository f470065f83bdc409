"""The protocol and the rubrics of a study: what is refused, and what its hash depends on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from medlord_bench.contracts.validation import validate
from medlord_bench.errors import UserError
from medlord_bench.reading.protocol import StudyProtocol, read_protocol
from medlord_bench.reading.rubric import Rubric, presets, read_rubric

SOURCES = [{"name": "real", "folder": "a"}, {"name": "model", "folder": "b"}]


def protocol(**fields: Any) -> StudyProtocol:
    return validate(StudyProtocol, {"sources": SOURCES, **fields}, "study.yaml")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"sources": SOURCES[:1]}, "sources"),
        ({"sources": [SOURCES[0], SOURCES[0]]}, "two have one name"),
        ({"sources": [SOURCES[0], {"name": "x"}]}, "give either run"),
        ({"sources": [SOURCES[0], {"name": "x", "run": "r"}]}, "contestant is not given"),
        ({"readers": ["R1", "r1"]}, "two have one alias"),
        ({"readers": ["Dr. Jane Doe"]}, "expected an alias"),
        ({"readers": ["../R1"]}, "expected an alias"),
        ({"window": [100, 100]}, "window"),
        ({"design": "pairs", "formats": ["nifti"]}, "add 'browser'"),
        ({"rubrik": "x"}, "rubrik"),
        ({"readers": []}, "expected at least one alias, such as R1"),
        ({"formats": []}, "formats"),
        ({"shape": [1, 1, 1]}, "shape"),
        ({"repeats": 21, "n": 10}, "at most one for each of the 20 cases"),
        ({"sessions": 27, "n": 10}, "a reader has 26 items"),
        ({"design": "pairs", "pairs": 10, "n": 3}, "there are 9 different pairs"),
        ({"design": "pairs", "repeats": 0}, "repeats: 0 has no effect"),
        ({"pairs": 5}, "pairs: 5 has no effect in the design 'ratings'"),
        ({"sources": [{"name": "real", "foldr": "a"}, SOURCES[1]]}, "did you mean 'sources.0.folder'?"),
    ],
)
def test_a_protocol_that_cannot_be_used_names_the_field(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match="study.yaml.*") as error:
        protocol(**fields)
    assert words in str(error.value)


def test_the_hash_depends_on_every_field_but_the_paths() -> None:
    base = protocol()
    elsewhere = protocol(sources=[{"name": "real", "folder": "c"}, {"name": "model", "folder": "d"}])
    assert base.digest() == elsewhere.digest()
    for change in ({"n": 9}, {"rubric": "khader-2023"}, {"readers": ["R1", "R2"]}, {"window": [-1000, 1000]}):
        assert protocol(**change).digest() != base.digest()


def test_repeats_are_a_tenth_and_at_least_six() -> None:
    assert protocol(n=10).hidden_repeats == 6
    assert protocol(n=50).hidden_repeats == 10
    assert protocol(n=2).hidden_repeats == 4
    assert protocol(n=10, repeats=0).hidden_repeats == 0
    assert protocol(n=10, design="pairs").hidden_repeats == 0


def test_a_file_that_is_not_a_protocol(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not found"):
        read_protocol(tmp_path / "none.yaml")
    for text in ("[1, 2", "- a"):
        (tmp_path / "p.yaml").write_text(text)
        with pytest.raises(UserError, match="p.yaml"):
            read_protocol(tmp_path / "p.yaml")
    (tmp_path / "p.yaml").write_text(yaml.safe_dump({"sources": SOURCES, "n": 3}))
    assert read_protocol(tmp_path / "p.yaml").n == 3


def test_a_relative_folder_is_beside_the_protocol(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(yaml.safe_dump({"sources": SOURCES}))
    found = read_protocol(tmp_path / "p.yaml")
    assert [source.folder for source in found.sources] == [tmp_path / "a", tmp_path / "b"]
    assert found.digest() == protocol().digest()


@pytest.mark.parametrize("name", presets())
@pytest.mark.parametrize("language", ["en", "de"])
def test_every_preset_is_complete_in_both_languages(name: str, language: str) -> None:
    rubric = read_rubric(name, language)
    assert rubric.name == name and rubric.source
    for one in rubric.questions:
        assert len({level[language] for level in one.levels}) == len(one.levels)


def test_the_default_rubric_asks_for_the_verdict_and_its_confidence_last() -> None:
    kinds = [one.kind for one in read_rubric("ct-synthesis-v1", "en").questions]
    assert kinds[-2:] == ["verdict", "confidence"] and set(kinds[:-2]) == {"rating"}


def test_rubrics_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'khader-2023'"):
        read_rubric("khader-2022", "en")
    question = {"name": "a", "words": {"en": "A"}, "levels": [{"en": "no"}, {"en": "yes"}]}
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({"name": "own", "questions": [question]}))
    assert read_rubric(str(path), "en").name == "own"
    with pytest.raises(UserError, match="no complete texts in 'de'"):
        read_rubric(str(path), "de")
    for questions, words in (
        ([question, question], "two have one name"),
        ([{**question, "kind": "confidence"}], "needs a verdict"),
        ([{**question, "kind": "verdict"}, {**question, "name": "b"}], "come last"),
        ([{**question, "kind": "verdict", "levels": question["levels"] * 2}], "two answers"),
    ):
        with pytest.raises(UserError, match=words):
            validate(Rubric, {"name": "x", "questions": questions}, "x")


def test_unquoted_yes_and_no_are_named(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("name: own\nquestions:\n- {name: a, words: {en: A}, levels: [{en: no}, {en: yes}]}\n")
    with pytest.raises(UserError, match='own.yaml: field .*levels.*put the word in quotes, as in "yes"'):
        read_rubric(str(path), "en")


def test_the_example_of_the_docs_is_a_rubric(tmp_path: Path) -> None:
    text = Path(__file__).parents[2].joinpath("docs", "reading.md").read_text(encoding="utf-8")
    example = text.split("### A rubric of your own")[1].split("```yaml\n")[1].split("```")[0]
    path = tmp_path / "own.yaml"
    path.write_text(example, encoding="utf-8")
    found = read_rubric(str(path), "de")
    assert found.languages() == {"en", "de"} and found.cues
    assert [one.kind for one in found.questions] == ["rating", "verdict", "confidence"]
