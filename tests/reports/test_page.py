"""The page stands alone, says what is missing, and never lets two protocols share a table."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from medlord_bench.contracts import registry
from medlord_bench.contracts.metrics import quantities_of
from medlord_bench.contracts.results import ResultsFile, Score, notes, write_results
from medlord_bench.errors import UserError
from medlord_bench.reports.page.page import Page
from medlord_bench.results.report import ReportOptions
from medlord_bench.results.run_results import read_run
from medlord_bench.results.step_records import record_steps
from medlord_bench.volumes.planes import planes_of, write_planes


class Tags(HTMLParser):
    """Every tag with its attributes, and the text outside <style>."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] != "style":
            self.words.append(data)


QUANTITIES = quantities_of({one.name: registry.load("metrics", one.name) for one in registry.entries("metrics")})


def render(folder: Path) -> tuple[str, Tags]:
    record_steps(folder, folder.parent.parent)  # as the end of a run does
    page = Page().render(read_run(folder), folder / "report", ReportOptions())[0]
    html = page.read_text(encoding="utf-8")
    return html, Tags(html)


def scores_of(folder: Path) -> ResultsFile:
    return ResultsFile.model_validate_json((folder / "results" / "scores.json").read_text())


def put(folder: Path, *scores: Score, protocols: dict[str, dict[str, object]] | None = None) -> None:
    known = scores_of(folder).protocols if protocols is None else protocols
    write_results(
        folder / "results", ResultsFile(scores=scores, protocols=known, quantities=tuple(QUANTITIES.values())), []
    )


def test_the_page_is_one_file(run_folder: Path) -> None:
    (page,) = Page().render(read_run(run_folder), run_folder / "report", ReportOptions())
    assert page == run_folder / "report" / "page.html"
    assert [path.name for path in (run_folder / "report").rglob("*") if path.is_file()] == ["page.html"]


def test_nothing_is_loaded_from_outside_the_file(run_folder: Path) -> None:
    html, page = render(run_folder)
    for tag, attributes in page.tags:
        assert tag not in {"iframe", "object", "embed", "base"}
        assert tag != "link" or attributes == {"rel": "icon", "href": "data:,"}, "no icon is fetched either"
        for name in ("src", "srcset", "data", "poster", "background"):
            assert (attributes.get(name) or "data:").startswith("data:image/png;base64,") or name not in attributes
        assert tag == "link" or (attributes.get("href") or "#").startswith("#")
    assert not re.search(r"url\(|@import|https?://", html)
    assert "default-src 'none'" in html


def test_every_image_is_described(run_folder: Path) -> None:
    _, page = render(run_folder)
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 5
    assert all(attributes["alt"] for attributes in images)
    assert "coronal" in (images[0]["alt"] or "")
    assert "0.02" in (images[3]["alt"] or "")  # where the loss ended


def test_links_inside_the_page_have_their_targets(run_folder: Path) -> None:
    _, page = render(run_folder)
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    links = {attributes["href"] for tag, attributes in page.tags if tag == "a"}
    assert links
    assert {f"#{name}" for name in ids} >= links


def test_the_page_is_a_pure_function_of_the_run_folder(run_folder: Path, tmp_path: Path) -> None:
    first = [path.read_bytes() for path in Page().render(read_run(run_folder), tmp_path / "a", ReportOptions())]
    second = [path.read_bytes() for path in Page().render(read_run(run_folder), tmp_path / "b", ReportOptions())]
    assert first == second


def test_every_number_stands_with_what_it_must_carry(run_folder: Path) -> None:
    _, page = render(run_folder)
    for words in (
        "41.53",
        "38.25 to 44.75",
        "16 against 17",
        "9.875 n 8",
        "lower is better",
        "95 % delete-one-volume jackknife",
        "Protocol fid-imagenet-0a1b2c3d",
        "three samples were constant",
        "one trained checkpoint",
        "27.91",
        "dB",
    ):
        assert words in page.text, words
    assert re.search(r"301.2 to 324.9 16 against 17 3 9.875", page.text)  # the three failed samples of noise


def test_a_value_that_was_not_run_has_its_reason_and_is_never_blank(bare_folder: Path) -> None:
    _, page = render(bare_folder)
    assert "not run: noise has no autoencoder" in page.text
    put(bare_folder, *(s.model_copy(update={"reason": ""}) for s in scores_of(bare_folder).scores))
    assert "not run: no reason was given" in render(bare_folder)[1].text


def test_a_value_lost_to_nan_says_so(bare_folder: Path) -> None:
    first, *_ = scores_of(bare_folder).scores
    put(bare_folder, first.model_copy(update={"value": float("nan"), "low": None, "high": None}))
    assert "no finite value" in render(bare_folder)[1].text


def test_nobody_is_called_best_without_a_paired_test(bare_folder: Path) -> None:
    _, page = render(bare_folder)  # the intervals lie far apart
    assert "No contestant is marked: this run compared no two contestants" in page.text
    assert not [attributes for _, attributes in page.tags if attributes.get("class") == "place"]


def test_one_metric_under_two_protocols_is_an_error_naming_the_field(bare_folder: Path) -> None:
    results = scores_of(bare_folder)
    first = results.scores[0]
    other = first.model_copy(update={"protocol": "fid-other", "generator": "noise"})
    text = dict(results.protocols[first.protocol]) | {"extractor": "radimagenet"}
    put(bare_folder, first, other, protocols=dict(results.protocols) | {"fid-other": text})
    with pytest.raises(UserError) as caught:
        Page().render(read_run(bare_folder), bare_folder / "report", ReportOptions())
    for words in ("fid", "extractor", "imagenet", "radimagenet", "fid-other", "noise"):
        assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_protocols_of_one_metric_stand_when_every_contestant_has_both(bare_folder: Path) -> None:
    results = scores_of(bare_folder)
    first = results.scores[1]
    both = [
        first.model_copy(update={"protocol": protocol, "generator": name})
        for protocol in (first.protocol, "fid-other")
        for name in ("medlord@tiny", "noise")
    ]
    put(bare_folder, *both, protocols=dict(results.protocols) | {"fid-other": {}})
    _, page = render(bare_folder)
    heads = [words for words in page.text.split("Contestant") if words.strip().startswith("FID test")]
    assert heads and "fid-other" in heads[0] and first.protocol in heads[0]  # two columns, each with its protocol
    put(bare_folder, *both[:3], protocols=dict(results.protocols) | {"fid-other": {}})  # noise was not run under it
    assert "Before" not in render(bare_folder)[1].text


def test_contestants_without_a_protocol_in_common_are_refused_wherever_they_stand(bare_folder: Path) -> None:
    from medlord_bench.reports.page.scores import tables

    results = scores_of(bare_folder)
    given = (("a", "p1"), ("b", "p1"), ("b", "p2"), ("c", "p2"))  # neighbours share one, a and c do not
    scores = [results.scores[0].model_copy(update={"generator": name, "protocol": p}) for name, p in given]
    with pytest.raises(UserError, match="p1 for a and under p2 for c"):
        tables(ResultsFile(scores=tuple(scores), protocols={}))


def test_a_nested_field_is_named_with_its_path() -> None:
    from medlord_bench.reports.page.scores import differing_field

    told = differing_field({"a": {"b": {"c": 1}}, "z": 1}, {"a": {"b": {"c": 2}}, "z": 2})
    assert told.startswith("a.b.c (1 and 2)")


def test_tables_hold_one_protocol_and_one_data_set_each(bare_folder: Path) -> None:
    from medlord_bench.reports.page.scores import tables

    results = scores_of(bare_folder)
    elsewhere = results.scores[0].model_copy(update={"dataset": "luna16"})
    found = tables(results.model_copy(update={"scores": (*results.scores, elsewhere)}))
    assert len(found) == 3
    for table in found:
        rows = [row.score for group in table.main.groups for row in group.rows]
        assert {(score.dataset, score.protocol) for score in rows} == {(table.dataset, table.protocol)}


def test_contestants_stand_beside_each_other_the_test_reference_first(bare_folder: Path) -> None:
    from medlord_bench.reports.page.scores import tables

    rows = tables(scores_of(bare_folder))[0].main.groups[0].rows
    assert [(row.score.generator, row.score.reference) for row in rows] == [
        ("medlord@tiny", "test"),
        ("noise", "test"),
        ("medlord@tiny", "train"),
    ]


def _fid(**changes: object) -> Score:
    fields: dict[str, object] = {
        "metric": "fid", "protocol": "fid-1", "dataset": "phantom", "reference": "test", "value": 1.0, "n": 8,
        "notes": notes("fallback", "not RadImageNet", "one checkpoint"), "floor_note": "8 test volumes",
    }  # fmt: skip
    return Score.model_validate(fields | changes)


def test_planes_and_debiased_values_are_folded_under_the_mean(bare_folder: Path) -> None:
    scores = [
        _fid(generator=name, metric=metric, region=region, value=float(i))
        for i, (name, metric, region) in enumerate(
            (name, metric, region)
            for name in ("medlord@tiny", "noise")
            for metric in ("fid", "fid_debiased")
            for region in ("", "axial", "coronal", "sagittal")
        )
    ]
    put(bare_folder, *scores, protocols={"fid-1": {}})
    html, page = render(bare_folder)
    shown, folded = html.split('<details class="more">', 1)
    assert shown.count('class="n value"') == 2 and folded.count('class="n value"') == 14
    assert "Plane by plane, and with the estimated bias subtracted: 14 rows" in page.text


def test_a_note_stands_once_however_many_rows_it_concerns(bare_folder: Path) -> None:
    some = "equal n on both sides: a seeded subset, 8 of 24 real train volumes"
    scores = [
        _fid(generator=f"g{i}", notes=notes("context", "not RadImageNet", f"IQR {i} to 9", some * (i > 1)))
        for i in range(4)
    ]
    put(bare_folder, *scores, protocols={"fid-1": {}})
    html, page = render(bare_folder)
    assert page.text.count("not RadImageNet") == page.text.count(some) == page.text.count("floor: 8 test volumes") == 1
    assert "Every row: not RadImageNet; floor: 8 test volumes." in page.text
    assert html.count('href="#note-1-1"') == 2 and html.count('id="note-1-1"') == 1
    for i in range(4):  # what concerns one row alone stays in that row
        assert f"IQR {i} to 9" in page.text


def test_what_was_not_run_for_one_reason_is_one_line(bare_folder: Path) -> None:
    absent = {"value": None, "status": "not_run", "reason": "it has no autoencoder", "generator": "noise"}
    scores = [_fid(metric=metric, region=region, **absent) for metric in ("psnr", "ms_ssim") for region in ("", "body")]
    put(bare_folder, _fid(generator="medlord@tiny"), *scores, protocols={"fid-1": {}})
    html, page = render(bare_folder)
    assert html.count('<p class="not-run">') == 1
    assert "noise psnr, psnr body, ms_ssim and ms_ssim body not run: it has no autoencoder" in page.text


def test_contestants_that_lack_the_same_for_the_same_reason_are_named_together(bare_folder: Path) -> None:
    absent = {"value": None, "status": "not_run", "reason": "no voxel size"}
    regions = ("aorta", "lungs", "left_atrium")
    scores = [_fid(metric="rvr_ml", region=region, generator=name, **absent) for name in "abc" for region in regions]
    put(bare_folder, _fid(generator="a"), *scores, protocols={"fid-1": {}})
    html, page = render(bare_folder)
    assert html.count('<p class="not-run">') == 1
    assert "a, b and c rvr_ml (aorta, lungs, left_atrium) not run: no voxel size" in page.text


def test_a_long_table_folds_under_its_values_and_loses_none(bare_folder: Path) -> None:
    names = [f"g{i}" for i in range(16)]
    scores = [_fid(generator=n, metric=m, value=i + 0.5) for m in ("fid", "kid", "odd") for i, n in enumerate(names)]
    put(bare_folder, *scores, protocols={"fid-1": {}})
    html, page = render(bare_folder)
    shown, folded = html.split('<details class="more">', 1)
    assert 'class="n value"' not in shown and folded.count('class="n value"') == 48
    assert "All details of these numbers, with n, failures, intervals and floors: 48 rows" in page.text
    assert shown.count("<table") == 2  # at a glance, and the values of this protocol, "odd" among them
    assert "odd test" in page.text
    assert "16 contestants on" in page.text  # no heading of sixteen names


@pytest.mark.parametrize(("contestants", "folded"), [(6, False), (7, True)])
def test_few_contestants_are_read_row_by_row(bare_folder: Path, contestants: int, folded: bool) -> None:
    put(bare_folder, *(_fid(generator=f"g{i}") for i in range(contestants)), protocols={"fid-1": {}})
    assert ('<details class="more">' in render(bare_folder)[0]) is folded


def test_every_known_metric_has_its_sentence_and_an_unknown_one_none(bare_folder: Path) -> None:
    put(bare_folder, _fid(generator="a"), _fid(generator="a", metric="their_own"), protocols={"fid-1": {}})
    html, page = render(bare_folder)
    assert QUANTITIES["fid"].meaning in page.text
    heading = html.split("their_own", 1)[1].split("</th>")[0]
    assert "meaning" not in heading


def test_the_floor_is_explained_in_one_sentence(bare_folder: Path) -> None:
    assert "The floor is the score of real volumes of one split against" in render(bare_folder)[1].text


def test_quantities_beyond_the_first_look_are_folded_away(run_folder: Path) -> None:
    curve = run_folder / "results" / "curves" / "medlord@tiny" / "autoencoder.jsonl"
    rows = [{"step": step, "perplexity": 3.0, "loss": 1 / step, "split": "train"} for step in (1, 2)]
    curve.write_text("".join(json.dumps(row) + "\n" for row in rows))
    html, page = render(run_folder)
    assert "1 further quantities of autoencoder" in page.text
    assert html.index("loss of medlord@tiny") < html.index("1 further quantities") < html.index("perplexity of medlord")


def test_stages_stand_in_the_order_they_were_trained_in(run_folder: Path) -> None:
    plan = json.loads((run_folder / "plan.json").read_text())
    steps = [{"id": f"train:medlord@tiny:{stage}"} for stage in ("autoencoder", "diffusion", "controlnet")]
    (run_folder / "plan.json").write_text(json.dumps(plan | {"steps": steps}))
    folder = run_folder / "results" / "curves" / "medlord@tiny"
    for stage in ("controlnet", "diffusion"):
        (folder / f"{stage}.jsonl").write_text('{"step": 1, "loss": 1.0}\n')
    text = render(run_folder)[1].text
    places = [
        text.index(f"medlord@tiny: training curves of {stage}") for stage in ("autoencoder", "diffusion", "controlnet")
    ]
    assert places == sorted(places)


def test_bars_keep_the_order_of_the_numbers(bare_folder: Path) -> None:
    from medlord_bench.reports.page.scores import tables

    bar = tables(scores_of(bare_folder))[0].main.groups[0].rows[0].bar
    assert bar is not None
    assert bar.low is not None and bar.high is not None and bar.floor is not None
    assert 0 <= bar.floor < bar.low < bar.value < bar.high <= 100
    low, high = 9.875, 324.9  # the least and the most of the metric's rows
    assert bar.value == pytest.approx(3 + 94 * (41.53217 - low) / (high - low))


def test_the_phantom_is_called_synthetic_and_real_data_are_not(run_folder: Path) -> None:
    assert "Synthetic reference." in render(run_folder)[1].text
    plan = json.loads((run_folder / "plan.json").read_text())
    (run_folder / "plan.json").write_text(json.dumps(plan | {"protocol": {"synthetic": False}}))
    results = scores_of(run_folder)
    put(run_folder, *results.scores, protocols={name: {"data": {"synthetic": False}} for name in results.protocols})
    text = render(run_folder)[1].text
    assert "Synthetic reference." not in text
    assert "phantom cases" not in text


def test_hostile_names_are_text(run_folder: Path) -> None:
    evil = "<script>alert(1)</script>\"'&$\\frac"
    results = scores_of(run_folder)
    changed = {
        "generator": evil,
        "dataset": evil,
        "notes": notes("context", evil),
        "region": evil,
        "metric": evil,
        "protocol": evil,
    }
    put(run_folder, results.scores[0].model_copy(update=changed), protocols={evil: {evil: evil}})
    plan = json.loads((run_folder / "plan.json").read_text())
    plan |= {"contestants": [evil], "dataset": {"name": evil}, "steps": [{"id": evil, "kind": evil, "plugin": evil}]}
    (run_folder / "plan.json").write_text(json.dumps(plan))
    (run_folder / "provenance.json").write_text(json.dumps({"command": evil, "started": evil, evil: evil}))
    (run_folder / "run.yaml").write_text(evil)
    write_planes(run_folder / "evil.safetensors", planes_of(np.zeros((4, 4, 4), np.int16)))
    row = {"title": f"../{evil}", "items": [{"id": evil, "path": "evil.safetensors"}]}
    (run_folder / "results" / "montage.json").write_text(json.dumps({"rows": [row]}))
    html, page = render(run_folder)
    assert html.count("<script") == html.count("</script>") == [tag for tag, _ in page.tags].count("script") <= 4
    assert "<script>alert" not in html
    assert page.text.count("<script>alert(1)</script>") >= 8
    written = [path for path in (run_folder / "report").rglob("*") if path.is_file()]
    assert {path.parent.name for path in written} == {"report"}


@pytest.mark.parametrize(
    ("gone", "told"),
    [
        ("results/montage.json", "no montage"),
        ("results/scores.json", "no results yet"),
        ("results/curves/medlord@tiny/autoencoder.jsonl", "no training is recorded"),
        ("provenance.json", "no provenance.json"),
        ("run.yaml", "no run.yaml"),
        ("results/steps.json", "no results/steps.json. The same command"),
        ("results/comparisons.json", "no results/comparisons.json. The same command"),
    ],
)
def test_a_missing_part_is_named_and_the_rest_is_drawn(run_folder: Path, gone: str, told: str) -> None:
    (run_folder / gone).unlink()
    (page, *_) = Page().render(read_run(run_folder), run_folder / "report", ReportOptions())
    text = Tags(page.read_text(encoding="utf-8")).text
    assert told in text
    assert text.count("Missing:") >= 1
    assert "How to cite" in text


def test_an_empty_run_folder_still_gives_a_page(tmp_path: Path) -> None:
    text = render(tmp_path)[1].text
    assert text.count("Missing:") == 7
    with pytest.raises(UserError, match="not a run folder"):
        read_run(tmp_path / "nowhere")


def test_a_damaged_part_is_an_error_that_names_the_file(run_folder: Path) -> None:
    (run_folder / "plan.json").write_text("{")
    with pytest.raises(UserError, match=r"plan\.json"):
        Page().render(read_run(run_folder), run_folder / "report", ReportOptions())


def test_time_is_summed_over_shards_and_memory_is_the_peak(run_folder: Path) -> None:
    text = render(run_folder)[1].text
    assert "medlord@tiny/sample medlord done 23.0 s 0.75 GiB RSS cpu" in text
    assert "medlord@tiny/train medlord done 3 min 20 s 1.25 GiB RSS cpu" in text
    assert "all steps of this run 3 min 43 s 1.25 GiB highest" in text


def test_a_step_without_events_was_done_before_or_not_run(run_folder: Path) -> None:
    text = render(run_folder)[1].text
    assert "real/features imagenet done before - - -" in text
    assert "noise/sample noise not run - - -" in text


def test_drawing_needs_no_torch(run_folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from medlord_bench.reports.page.page import Page;"
        "from medlord_bench.results.report import ReportOptions; from medlord_bench.results.run_results import read_run;"
        "folder = Path(sys.argv[1]); Page().render(read_run(folder), folder / 'report', ReportOptions());"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(run_folder)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
