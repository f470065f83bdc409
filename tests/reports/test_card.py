"""The benchmark card and the methods paragraph."""

from __future__ import annotations

import json
import re
from pathlib import Path

from medlord_bench.reports.card.answers import AUTHORS, CLAIM, NOT_RUN, sections
from medlord_bench.reports.card.card import Card
from medlord_bench.reports.card.methods import methods
from medlord_bench.results.report import ReportOptions
from medlord_bench.results.run_results import read_run


def rendered(folder: Path) -> dict[str, str]:
    paths = Card().render(read_run(folder), folder / "report", ReportOptions())
    return {path.name: path.read_text(encoding="utf-8") for path in paths}


def test_five_files_are_written_and_the_same_each_time(run_folder: Path) -> None:
    first = rendered(run_folder)
    assert set(first) == {"card.md", "card.json", "methods.md", "results.json", "references.bib"}
    assert rendered(run_folder) == first


def test_questions_are_answered_from_the_run_or_not_at_all(run_folder: Path) -> None:
    found = {item.question: item for section in sections(read_run(run_folder)) for item in section.items}
    congruence = next(item for question, item in found.items() if question.startswith("Congruence"))
    assert "medlord@tiny (test) 41.53 (n 16, real volumes 9.875)" in congruence.answer
    assert "noise" in congruence.answer, "this run declares no controls"
    compliance = next(item for question, item in found.items() if question.startswith("Compliance"))
    assert compliance.answer == NOT_RUN and not compliance.answered
    assert found["42. Funding"].answer == AUTHORS
    assert found["37. Failure analysis"].answer == "noise: 3 of 16 samples failed"


def test_the_numbers_of_claim_are_in_order_and_none_is_given_twice() -> None:
    numbers = [number for number, _, _ in CLAIM]
    assert numbers == sorted(set(numbers)) and min(numbers) >= 7 and max(numbers) == 42


def test_the_card_in_json_has_what_the_text_has(run_folder: Path) -> None:
    files = rendered(run_folder)
    card = json.loads(files["card.json"])
    assert [section["title"] for section in card["sections"]] == re.findall(
        r"^## (.*)$", files["card.md"], re.MULTILINE
    )
    assert sum(len(section["items"]) for section in card["sections"]) == len(
        re.findall(r"^- ", files["card.md"], re.MULTILINE)
    )


def test_the_paragraph_cites_only_what_the_bibliography_has(run_folder: Path) -> None:
    files = rendered(run_folder)
    cited = set(re.findall(r"@([\w-]+)", re.sub(r"`[^`]*`", "", files["methods.md"]).replace("medlord@tiny", "")))
    assert cited == set(re.findall(r"^@\w+\{([^,]+),", files["references.bib"], re.MULTILINE))
    assert "We report fid" in files["methods.md"] and "fid-imagenet-0a1b2c3d" in files["methods.md"]


def test_an_empty_run_has_a_card(tmp_path: Path) -> None:
    files = rendered(tmp_path)
    assert "not run" in files["card.md"]
    assert "measured" in methods(read_run(tmp_path))


def test_hostile_names_are_text(run_folder: Path) -> None:
    plan = json.loads((run_folder / "plan.json").read_text())
    (run_folder / "plan.json").write_text(json.dumps(plan | {"contestants": ["<script>*a*_b_|c"]}))
    text = rendered(run_folder)["card.md"]
    assert "<script>" not in text and r"&lt;script&gt;\*a\*\_b\_\|c" in text
