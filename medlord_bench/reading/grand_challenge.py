"""Questions and display sets of a pack as JSON, in the terms of grand-challenge's reader studies.

Names of fields, answer types and widgets are those of its models and serializers
(github.com/comic/grand-challenge.org, app/grandchallenge/reader_studies); a display set is what `gcapi` uploads
(github.com/DIAGNijmegen/rse-gcapi, docs/usage/reader_study/create_display_sets.md).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medlord_bench.util.files import write_json

from .forms import words
from .pack import Pack

SOCKET = "ct-image"
SIDES = ("left", "right")


def write_study(folder: Path, pack: Pack) -> None:
    """`reader_study.json` beside the MetaImage files."""
    write_json(
        folder / "reader_study.json",
        {
            "reader_study": {
                "title": pack.title or pack.id,
                "is_educational": False,
                "shuffle_hanging_list": False,
                "allow_answer_modification": False,
                "allow_case_navigation": False,
                "allow_show_all_annotations": False,
                "roll_over_answers_for_n_cases": 0,
            },
            "questions": _questions(pack),
            "display_sets": [_display_set(number, item) for number, item in enumerate(pack.items)],
        },
    )


def _display_set(number: int, item: tuple[str, ...]) -> dict[str, object]:
    """One item. A socket may occur once in a display set, so the two cases of a pair have one each."""
    sockets = [SOCKET] if len(item) == 1 else [f"{side}-{SOCKET}" for side in SIDES]
    return {
        "title": "-".join(item),
        "order": 10 * (number + 1),
        "values": {socket: f"{code}.mha" for socket, code in zip(sockets, item, strict=True)},
    }


def _questions(pack: Pack) -> list[dict[str, object]]:
    text = words(pack.language)
    if pack.design == "pairs":
        found = [_choice(text["which"], [text["left"], text["right"]])]
    else:
        found = [
            _choice(
                one.words[pack.language],
                [level[pack.language] for level in one.levels] + [text["cannot"]] * one.cannot,
            )
            for one in pack.rubric.questions
        ]
    found.append({**_question(text["where"], "Multiple points"), "required": False, "image_port": "Main"})
    found.append({**_question(text["comment"], "Text"), "required": False, "widget": "TEXT_AREA"})
    return [{**one, "order": 10 * (number + 1)} for number, one in enumerate(found)]


def _question(words: str, answer_type: str) -> dict[str, Any]:
    return {"question_text": words, "help_text": "", "answer_type": answer_type, "required": True, "image_port": ""}


def _choice(words: str, options: list[str]) -> dict[str, object]:
    """Answers from worst to best: the place of an option is its level, from 1."""
    return {
        **_question(words, "Choice"),
        "widget": "RADIO_SELECT",
        "options": [{"title": title, "default": False} for title in options],
    }
