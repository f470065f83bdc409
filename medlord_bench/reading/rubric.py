"""The questions of a study: a YAML file with worded answers in every language of the reader."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from medlord_bench.contracts import FrozenConfig, registry
from medlord_bench.contracts.validation import validate
from medlord_bench.errors import UserError
from medlord_bench.util.documents import parse_yaml, read_yaml
from medlord_bench.util.hashing import digest


def _words(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError(
            'expected text; YAML reads yes, no, on and off as true or false: put the word in quotes, as in "yes"'
        )
    return value


Text = Mapping[str, Annotated[str, BeforeValidator(_words)]]  # language -> words


class Question(FrozenConfig):
    """One question. levels: answers from worst to best, each worded; the place of an answer is its level, from 1.

    kind: `rating`, an ordered scale; `verdict`, real (level 2) or synthetic (level 1); `confidence`, how sure the reader
    is of the verdict. cannot: whether "cannot assess" is offered, which is an answer of its own and not a blank.
    """

    name: str = Field(pattern=r"[a-z][a-z0-9_]*")
    kind: Literal["rating", "verdict", "confidence"] = "rating"
    words: Text
    levels: tuple[Text, ...] = Field(min_length=2, max_length=9)
    cannot: bool = False


class Rubric(FrozenConfig):
    """questions: in the order asked; verdict and confidence come last, so that they do not colour the ratings."""

    name: str
    source: str = ""
    questions: tuple[Question, ...] = Field(min_length=1)
    cues: Mapping[str, Text] = Field(default_factory=dict, description="words that mark a place that looks wrong")

    @model_validator(mode="after")
    def _usable(self) -> Rubric:
        names = [one.name for one in self.questions]
        if len(set(names)) < len(names):
            raise ValueError(f"questions {', '.join(names)}: two have one name")
        kinds = [one.kind for one in self.questions]
        if "confidence" in kinds and "verdict" not in kinds:
            raise ValueError("a confidence needs a verdict")
        if kinds != sorted(kinds, key=("rating", "verdict", "confidence").index):
            raise ValueError("questions: verdict and confidence come last")
        for one in self.questions:
            if one.kind == "verdict" and len(one.levels) != 2:
                raise ValueError(f"question {one.name}: a verdict has two answers, synthetic and real")
        return self

    def languages(self) -> set[str]:
        """Languages that every text of the rubric has."""
        texts = [one.words for one in self.questions]
        texts += [level for one in self.questions for level in one.levels]
        texts += list(self.cues.values())
        return set.intersection(*(set(text) for text in texts))

    def digest(self) -> str:
        return digest(self.model_dump(mode="json"))

    def question(self, name: str) -> Question | None:
        return next((one for one in self.questions if one.name == name), None)


def presets() -> list[str]:
    """The rubrics that come with the bench."""
    folder = files(__package__).joinpath("rubrics")
    return sorted(path.name.removesuffix(".yaml") for path in folder.iterdir() if path.name.endswith(".yaml"))


def read_rubric(name: str, language: str) -> Rubric:
    """A preset by its name, or a YAML file. Raises `UserError` for an unknown one, and for a missing language."""
    path = Path(name)
    if name in presets():
        text = files(__package__).joinpath("rubrics", f"{name}.yaml").read_text(encoding="utf-8")
        rubric = validate(Rubric, parse_yaml(text, f"rubric {name}"), f"rubric {name}")
    elif path.suffix in (".yaml", ".yml"):
        rubric = validate(Rubric, read_yaml(path, "a YAML rubric"), str(path))
    else:
        raise UserError(f"{registry.unknown('rubric', name, presets())}; or give a YAML file")
    if language not in rubric.languages():
        known = ", ".join(sorted(rubric.languages())) or "none"
        raise UserError(f"rubric {name}: has no complete texts in {language!r}; expected it; it has {known}")
    return rubric
