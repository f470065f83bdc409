"""The analysis of simulated readers: what was planted is found, what was not is not, and what cannot be computed is said."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.text import Text

from medlord_bench.drawing.style import style
from medlord_bench.reading import agreement_findings, analysis, marks, pair_findings, rating_findings
from medlord_bench.reading.checklist import checklist
from medlord_bench.reading.findings import Finding
from medlord_bench.reading.lock import lock
from medlord_bench.reading.study import Study
from medlord_bench.reading.unblind import Row, Unblinded, unblind
from medlord_bench.results.ratings import read_ratings
from tests.reading.study_data import exported, read_by_all

QUALITY = {"real": 0.7, "good": 0.7, "bad": -1.5}


def unblinded(root: Path, quality: dict[str, float] = QUALITY, **fields: Any) -> tuple[Study, Unblinded]:
    study = exported(root, tuple(quality), **fields)
    read_by_all(study, quality)
    lock(study)
    return study, unblind(study, study.key)


@pytest.fixture(scope="module")
def ratings(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Unblinded]:
    return unblinded(tmp_path_factory.mktemp("ratings"), n=10)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Unblinded]:
    return unblinded(tmp_path_factory.mktemp("pairs"), n=10, design="pairs", pairs=40)


@pytest.fixture(scope="module")
def numbers(ratings: tuple[Study, Unblinded]) -> list[Finding]:
    return analysis.findings(ratings[1])


def one(found: list[Finding], **fields: object) -> Finding:
    (single,) = [item for item in found if all(getattr(item, name) == value for name, value in fields.items())]
    return single


def test_a_planted_effect_is_found_and_an_equal_model_is_not(numbers: list[Finding]) -> None:
    found = numbers
    bad = one(found, quantity="delta", question="realism", source="bad")
    assert bad.value is not None and bad.value < -0.8 and bad.p_holm is not None and bad.p_holm < 0.01
    good = one(found, quantity="delta", question="realism", source="good")
    assert good.p is not None and good.p > 0.05 and good.n == good.n_real == 10
    auc = one(found, quantity="auc", source="bad", reader="all")
    assert auc.value is not None and auc.value > 0.9
    d = one(found, quantity="d_prime", source="bad", reader="all")
    assert d.value is not None and d.value > 1.5
    odds = one(found, quantity="log_odds", question="realism", source="bad")
    assert (odds.value is not None and odds.value < -2) or "no estimate" in odds.note
    fooled, real = (one(found, quantity="called_real", source=name, reader="all") for name in ("bad", "real"))
    assert fooled.value is not None and real.value is not None and fooled.value < 0.3 < 0.6 < real.value
    kappa = one(found, quantity="kappa_with_oneself", question="realism", reader="R1")
    assert kappa.n == 6 and kappa.value is not None and kappa.value > 0.3
    alpha = one(found, quantity="alpha", question="realism")
    assert "ordinal difference" in alpha.how and alpha.n == 30


def test_every_number_has_n_and_how_and_every_other_a_sentence(numbers: list[Finding]) -> None:
    for found in numbers:
        assert found.note if found.value is None else (found.n and found.how)
        assert found.value is None or found.note or (found.low is not None and found.high is not None)


def test_counts_are_those_of_the_answers_without_repeats(ratings: tuple[Study, Unblinded]) -> None:
    study, joined = ratings
    counts = rating_findings.counts(joined)
    for rating in counts:
        own = [
            row.level
            for row in joined.rows
            if (row.reader, row.source, row.question) == (rating.reader, rating.source, rating.category)
            and not row.repeat
        ]
        assert rating.n == len(own) == 10
        assert rating.count == own.count(rating.level + (rating.role == "verdict"))
    analysis.analyse(study)
    assert read_ratings(study.analysis) == counts


def test_the_folder_has_tables_figure_checklist_and_script(ratings: tuple[Study, Unblinded]) -> None:
    study, joined = ratings
    summary = analysis.analyse(study)
    names = {path.name for path in study.analysis.iterdir()}
    assert {
        "summary.json",
        "summary.md",
        "findings.csv",
        "checklist.md",
        "mrmc.csv",
        "mrmc.R",
        "marks_map.png",
    } <= names
    text = (study.analysis / "summary.md").read_text()
    assert joined.commitment in text and "rate at which readers were fooled" in text
    assert len(summary.findings) == len((study.analysis / "findings.csv").read_text().splitlines()) - 1
    checklist = (study.analysis / "checklist.md").read_text()
    assert "12 experience of the readers | not given" in checklist and "alpha realism" in checklist
    assert checklist.count("| GRRAS |") == 15 and joined.commitment in checklist
    with open(study.analysis / "mrmc.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 60 and {row["truth"] for row in rows if row["source"] == "real"} == {"0"}
    bad = [int(row["rating"]) for row in rows if row["source"] == "bad"]
    assert np.mean(bad) > 1  # surely synthetic
    assert 'ref = "real"' in (study.analysis / "mrmc.R").read_text()
    marks = list(csv.DictReader((study.analysis / "marks_map.csv").read_text().splitlines()))
    first = [one for one in joined.marks if not one.repeat]  # hidden repeats count for agreement alone
    assert len(marks) == len(first) > 0
    counted = list(csv.DictReader((study.analysis / "mark_counts.csv").read_text().splitlines()))
    assert sum(int(row["marks"]) for row in counted) == len(first)


def test_the_page_leaves_out_empty_columns_and_says_how_below(numbers: list[Finding]) -> None:
    table = analysis._rows([item for item in numbers if item.quantity == "median"])
    assert table[0].startswith("| question | source | reader | value | quartiles | n | how |")
    assert all(len(line) < 110 for line in table if line.startswith("|"))
    assert table[-1].startswith("- ") and "quartiles" in table[-1]
    assert not [one for one in numbers if one.quantity == "median" and one.question == "verdict"]


def test_a_kappa_says_which_sources_the_repeats_are_of(
    numbers: list[Finding], ratings: tuple[Study, Unblinded]
) -> None:
    own = [one for one in ratings[1].rows if one.reader == "R1" and one.question == "realism" and one.repeat]
    of = ", ".join(f"{name} {sum(row.source == name for row in own)}" for name in ("real", "good", "bad"))
    found = one(numbers, quantity="kappa_with_oneself", question="realism", reader="R1")
    assert f"n repeats: {of};" in found.how and "within one level" in found.how
    verdict = one(numbers, quantity="kappa_with_oneself", question="verdict", reader="R1")
    assert "within one level" not in verdict.how


def test_a_run_gets_nothing_of_a_study_of_pairs(pairs: tuple[Study, Unblinded], tmp_path: Path) -> None:
    assert analysis.analyse(pairs[0], tmp_path).design == "pairs"
    assert list(tmp_path.iterdir()) == [] and (pairs[0].analysis / "summary.md").exists()


def rows(quality: dict[str, float], readers: int, n: int, seed: int, joined: Unblinded) -> Unblinded:
    """The study with answers to one question and the verdict by other simulated readers."""
    rng = np.random.default_rng(seed)
    found = []
    for source, value in quality.items():
        looks = value + rng.normal(0, 1, n)
        for reader in range(readers):
            seen = looks + rng.normal(0, 0.7, n)
            for volume in range(n):
                level = int(np.clip(round(3 + seen[volume]), 1, 5))
                common = {"reader": f"R{reader + 1}", "item": 0, "code": "", "source": source, "volume": str(volume)}
                row = Row(**common, repeat=0, question="realism", level=level, ms=None, answered=None)
                found.append(row)
    questions = [one for one in joined.rubric.questions if one.name == "realism"]
    rubric = joined.rubric.model_copy(update={"questions": tuple(questions)})
    records = [joined.readers[0].model_copy(update={"reader": f"R{number + 1}"}) for number in range(readers)]
    changes = {"rows": tuple(found), "rubric": rubric, "readers": tuple(records)}
    return joined.model_copy(update=changes)


def test_a_null_study_gives_five_in_a_hundred_false_positives(ratings: tuple[Study, Unblinded]) -> None:
    plain, family = [], []
    for seed in range(120):
        made = rows({"real": 0.0, "good": 0.0, "bad": 0.0}, 3, 5, seed, ratings[1])
        found = rating_findings.against_real(made)
        plain += [one.p <= 0.05 for one in found if one.p is not None]
        family.append(any(one.p_holm <= 0.05 for one in found if one.p_holm is not None))
    assert len(plain) == 240 and np.mean(plain) <= 0.08 and np.mean(family) <= 0.09


def test_missing_answers_are_left_out_and_counted(ratings: tuple[Study, Unblinded]) -> None:
    joined = ratings[1]
    kept = [
        one.model_copy(update={"level": None}) if one.reader == "R1" and one.source == "bad" else one
        for one in joined.rows
    ]
    found = analysis.findings(joined.model_copy(update={"rows": tuple(kept)}))
    assert one(found, quantity="median", question="realism", source="bad", reader="R1").note == "no answer"
    assert "no volume that all readers answered" in one(found, quantity="auc", source="bad", reader="all").note
    assert one(found, quantity="auc", source="bad", reader="R2").value is not None
    assert one(found, quantity="delta", question="realism", source="bad").n == 10
    assert one(found, quantity="alpha", question="realism").n == 20


def test_one_reader_has_no_agreement_with_others(ratings: tuple[Study, Unblinded]) -> None:
    joined = ratings[1]
    alone = joined.model_copy(
        update={"readers": joined.readers[:1], "rows": tuple(r for r in joined.rows if r.reader == "R1")}
    )
    (found,) = agreement_findings.between_readers(alone)
    assert found.value is None and "one reader" in found.note
    assert [one.reader for one in rating_findings.called_real(alone)] == ["R1"] * 3


def test_d_prime_is_of_the_verdict_and_auc_of_verdict_and_confidence(ratings: tuple[Study, Unblinded]) -> None:
    """Other confidences change the AUC, and not d'."""
    joined = ratings[1]
    sure = [one.model_copy(update={"level": 1}) if one.question == "confidence" else one for one in joined.rows]
    numbers, other = (
        {(one.quantity, one.question, one.source, one.reader): one.value for one in rating_findings.detection(study)}
        for study in (joined, joined.model_copy(update={"rows": tuple(sure)}))
    )
    assert {(quantity, question) for quantity, question, *_ in numbers} == {
        ("auc", "verdict x confidence"),
        ("d_prime", "verdict"),
    }
    d = {key: value for key, value in numbers.items() if key[0] == "d_prime"}
    assert d == {key: other[key] for key in d} and numbers != other


def test_a_separated_sample_ends_in_a_sentence(ratings: tuple[Study, Unblinded]) -> None:
    joined = ratings[1]
    level = {"real": 5, "good": 4, "bad": 1}
    made = [row.model_copy(update={"level": level[row.source]}) for row in joined.rows if row.question == "realism"]
    found = rating_findings.ordinal(joined.model_copy(update={"rows": tuple(made)}))
    realism = one(found, question="realism", source="bad")
    assert realism.value is None and "no estimate: the answers are separated" in realism.note
    assert realism.p is None and realism.p_holm is None
    delta = one(
        rating_findings.against_real(joined.model_copy(update={"rows": tuple(made)})), question="realism", source="bad"
    )
    assert delta.value == -1 and delta.low is None and "no interval" in delta.note and delta.p is not None


def test_pairs_are_counted_and_strengths_follow_the_quality(pairs: tuple[Study, Unblinded]) -> None:
    study, joined = pairs
    found = pair_findings.recognised(joined)
    bad = one(found, source="bad", reader="all")
    assert bad.value is not None and bad.value > 0.8 and bad.p_holm is not None and bad.p_holm < 0.05 and bad.n == 40
    good = one(found, source="good", reader="all")
    assert good.low is not None and good.high is not None and good.low < 0.5 < good.high
    strengths = {one.source: one for one in pair_findings.strengths(joined)}
    assert strengths["real"].value == 0
    value = strengths["bad"].value
    assert value is None or value < -1
    summary = analysis.analyse(study)
    assert not (study.analysis / "ratings.csv").exists() and "choices.csv" in {p.name for p in study.analysis.iterdir()}
    assert {one.quantity for one in summary.findings} == {"recognised", "calibration", "strength", "left_chosen"}


def test_the_confidence_of_choices_is_kept_and_set_against_being_right(pairs: tuple[Study, Unblinded]) -> None:
    study, joined = pairs
    with open(study.analysis / "choices.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    returned = [json.loads(line) for line in (study.returns / "R1.jsonl").read_text().splitlines()[1:-1]]
    given = {int(row["item"]): int(row["confidence"]) for row in rows if row["reader"] == "R1"}
    assert given == {line["item"]: line["answers"]["confidence"] for line in returned}
    found = [one for one in pair_findings.calibration(joined) if one.value is not None]
    against = [one for one in joined.choices if "real" in (one.source, one.other_source)]
    assert sum(one.n for one in found) == len(against)
    for level in found:
        own = [one.source == "real" for one in against if str(one.confidence) == level.question.split()[1].rstrip(":")]
        assert level.value == np.mean(own) and level.n == len(own) and level.p is None
    assert found[-1].value is not None and found[0].value is not None and found[-1].value > found[0].value
    unsure = joined.model_copy(
        update={"choices": tuple(one.model_copy(update={"confidence": None}) for one in joined.choices)}
    )
    last = list(pair_findings.calibration(unsure))[-1]
    assert last.n == len(against) and "without an answer" in last.note


def test_the_checklist_of_pairs_names_what_there_is(pairs: tuple[Study, Unblinded]) -> None:
    study, joined = pairs
    text = checklist(joined, analysis.findings(joined))
    assert "no hidden repeats" in text and "hidden repeats:" not in text
    assert "choices.csv" in text and "answers.csv" not in text
    waived = joined.model_copy(update={"waived": ("minimum", "border")})
    assert "the leak check left out minimum, border" in checklist(waived, [])
    assert "The leak check left out: minimum, border" in analysis.page(waived, [])


def test_the_checklist_of_ratings_names_what_there_is(ratings: tuple[Study, Unblinded]) -> None:
    text = checklist(ratings[1], [])
    assert "12 hidden repeats of a volume; 1 session(s)" in text and "choices.csv" not in text


def test_a_model_that_lost_every_choice_has_no_strength_and_the_others_have(pairs: tuple[Study, Unblinded]) -> None:
    joined = pairs[1]
    kept = [one for one in joined.choices if one.source != "bad"]
    found = {one.source: one for one in pair_findings.strengths(joined.model_copy(update={"choices": tuple(kept)}))}
    assert found["bad"].value is None and "every choice against real and good went one way" in found["bad"].note
    assert found["good"].value is not None and found["good"].low is not None


def test_the_map_of_marks_names_sides_and_a_single_mark(ratings: tuple[Study, Unblinded]) -> None:
    study, joined = ratings
    words = []
    for kept in (joined.marks, [one for one in joined.marks if not one.repeat][:1]):
        with style():
            drawn = marks.heat_map(joined.model_copy(update={"marks": tuple(kept)}), study)
            assert drawn is not None
            texts = drawn.figure.findobj(Text)
            sides = [[text for text in texts if text.get_text() == letter] for letter in "RLAP"]
        assert all(sides)
        assert all(text.get_position()[0] < 0.1 for text in sides[0] + sides[2])
        assert all(text.get_position()[0] > 0.9 for text in sides[1] + sides[3])
        words.append(" ".join(" ".join(text.get_text() for text in texts).split()))
    assert "from 1 (yellow) to" in words[0] and "from 1" not in words[1] and "a cell with one mark" in words[1]
