"""The reader in a real browser: three cases by keyboard, over `serve` and from its file, in both languages."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from medlord_bench.reading.answer_log import AnswerLog
from medlord_bench.reading.pack import Pack
from medlord_bench.reading.serve import address, server_of, sound_pack
from tests.reading.pack_data import write_pack

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (Debian: apt-get install chromium)")
FLAGS = "--no-sandbox --disable-background-networking --disable-component-update --disable-sync --disable-quic"
NO_WEBGL = "--disable-gpu --disable-3d-apis"
# The quarter of the display check that has the square: 1 to 4.
QUARTER = (
    "() => { const c = document.querySelector('canvas.square').getContext('2d');"
    "const grey = (x, y) => c.getImageData(x, y, 1, 1).data[0];"
    "return 1 + [0, 1, 2, 3].findIndex((n) => grey((n % 2) * 160 + 80, Math.floor(n / 2) * 160 + 80) !=="
    " grey((n % 2) * 160 + 140, Math.floor(n / 2) * 160 + 140)); }"
)
GREY = (
    "([n, x, y]) => { const c = document.querySelectorAll('.viewer canvas')[n];"
    "return c.getContext('2d').getImageData(Math.floor(x * c.width), Math.floor(y * c.height), 1, 1).data[0]; }"
)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=f"{FLAGS} {NO_WEBGL}".split())
        yield browser
        browser.close()


class Opened:
    """A reader in the browser. requests: addresses asked for. errors: of the console."""

    def __init__(self, context: Any, url: str) -> None:
        self.page, self.url = context.new_page(), url
        self.page.set_default_timeout(10_000)
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda one: self.errors.append(one.text) if one.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(url)

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def at(self, state: str) -> None:
        self.page.wait_for_selector(f"body[data-state='{state}']")

    def consent(self, quarter: int | None = None) -> None:
        """Consent and display check, answered rightly or with `quarter`, up to the page of the keys.

        After a failed check Enter repeats it; the second time the reader goes on.
        """
        self.page.wait_for_selector("main.page")
        for _ in range(1 if quarter is None else 2):
            self.press("Enter")
            for number in range(3):
                self.page.wait_for_selector("canvas.square")
                self.press(str(self.page.evaluate(QUARTER) if quarter is None else quarter))
                self.page.wait_for_timeout(50 * number)
            self.page.wait_for_selector("main.page .primary")
        if quarter is None:
            self.press("Enter")
        else:
            self.page.locator(".primary").click()
        self.page.wait_for_selector(".keys")

    def answer(self, *levels: int) -> None:
        for level in levels:
            self.press(str(level), "Enter")


@contextmanager
def serving(folder: Path, path: Path) -> Iterator[str]:
    pack = sound_pack(folder)
    log = AnswerLog(path, pack)
    with server_of(folder, pack, log) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield address(server)
        server.shutdown()
        thread.join()
    log.close()


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def context_of(browser: Any, width: int = 1280, height: int = 800) -> Any:
    return browser.new_context(viewport={"width": width, "height": height}, has_touch=width < 500)


def test_three_cases_are_read_by_keyboard_and_a_reload_goes_on(chromium: Any, tmp_path: Path) -> None:
    pack = write_pack(tmp_path / "pack")
    path = tmp_path / "R1.jsonl"
    with serving(tmp_path / "pack", path) as url:
        opened = Opened(context_of(chromium), url)
        page = opened.page
        opened.consent()
        opened.press("Enter")
        opened.at("practice 0")
        assert "not scored" in page.locator("header").inner_text()
        opened.answer(3, 0, 3, 3, 3, 3, 1, 5)
        page.get_by_text("The practice is finished").wait_for()
        opened.press("Enter")
        opened.at("case 0")
        opened.press("m", "p")
        page.get_by_label("what", exact=True).select_option("vessel")
        page.get_by_label("in words").fill("ends <b>abruptly</b>")
        opened.press("Enter")  # leaves the field
        page.get_by_label("Comment").fill("odd")
        opened.press("Escape")
        opened.answer(5, 4, 3)
        page.reload()
        opened.at("case 0")
        assert page.get_by_label("in words").input_value() == "ends <b>abruptly</b>", "a reload keeps what was entered"
        assert page.locator(".questions li.current").inner_text().startswith("Overall realism")
        opened.press("Enter", "Enter", "Enter")
        opened.answer(2, 1, 2, 2, 4)
        opened.at("case 1")
        assert lines(path)[-1]["item"] == 0, "it is saved before the next case is shown"
        page.close()
    with serving(tmp_path / "pack", path) as url:  # another server, another day
        opened = Opened(context_of(chromium), url)
        opened.at("case 1")
        assert "Case 2 of 3" in opened.page.locator("header").inner_text()
        opened.answer(1, 1, 1, 1, 1, 1, 1, 1)
        opened.at("case 2")
        opened.answer(5, 5, 5, 5, 5, 5, 2, 5)
        opened.at("finished")
        assert opened.errors == [] and {one.split("/")[2] for one in opened.requests} == {url.split("/")[2]}
    first, trial, *answers, last = lines(path)
    assert first["pack_sha256"] == pack.digest() and first["display_check"] == {"passed": True}
    assert first["screen"] == {"width": 1280, "height": 800, "pixel_ratio": 1}
    assert trial["practice"] and trial["answers"]["anatomy"] == "cannot" and trial["answers"]["confidence"] == 5
    assert [one["codes"] for one in answers] == [list(item) for item in pack.items]
    assert list(answers[0]["answers"].values()) == [5, 4, 3, 2, 1, 2, 2, 4] and answers[0]["comment"] == "odd"
    mark = {"code": "K7Q2MA", "plane": "axial", "point": [16, 14, 12], "cue": "vessel", "words": "ends <b>abruptly</b>"}
    assert answers[0]["marks"] == [mark] and answers[0]["ms"] > 100
    assert answers[0]["windows"][:2] == ["lung", "mediastinum"]
    assert list(last) == ["finished"]


def test_a_pack_opens_from_its_file_and_gives_the_answers_as_a_file(chromium: Any, tmp_path: Path) -> None:
    pack = write_pack(tmp_path / "pack", language="de", practice=False)
    context = context_of(chromium)
    context.set_offline(True)
    opened = Opened(context, (tmp_path / "pack/index.html").as_uri())
    page = opened.page
    opened.consent(quarter=0)  # the check is failed, and repeated once
    assert page.locator("html").get_attribute("lang") == "de"
    opened.press("Enter")
    opened.at("case 0")
    opened.answer(5, 4, 3, 2, 1, 2, 2, 4)
    opened.at("case 1")
    page.reload()
    opened.at("case 1")
    for item in (1, 2):
        opened.at(f"case {item}")
        opened.answer(1, 1, 1, 1, 1, 1, 1, 1)
    opened.at("finished")
    with page.expect_download() as started:
        page.get_by_role("button", name="Antworten speichern").click()
    assert started.value.suggested_filename == "R1.jsonl"
    found = lines(Path(started.value.path()))
    assert found[0]["pack_sha256"] == pack.digest() and found[0]["display_check"] == {"passed": False}
    assert [one.get("item") for one in found] == [None, 0, 1, 2, None] and "finished" in found[-1]
    assert opened.errors == [] and all(one.startswith(("file://", "blob:")) for one in opened.requests)
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Meine Antworten löschen").click()
    page.get_by_text("Was über Sie gespeichert wird").wait_for()
    context.close()


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"design": "pairs", "real_share": 0.5}, "One of the two is of a patient; the other was made by a computer."),
        ({"design": "pairs", "real_share": 0.0}, "All volumes were made by a computer."),
        ({"real_share": 0.25}, "25 % of the volumes are of patients; the others were made by a computer."),
        ({}, "How many there are of each is not disclosed."),
    ],
)
def test_the_share_of_real_volumes_is_told_as_it_is(
    chromium: Any, tmp_path: Path, fields: dict[str, Any], sentence: str
) -> None:
    write_pack(tmp_path / "pack", **fields)
    opened = Opened(context_of(chromium), (tmp_path / "pack" / "index.html").as_uri())
    opened.page.get_by_text(sentence).wait_for()


def test_pairs_are_chosen_by_key_with_a_pause_between_sessions(chromium: Any, tmp_path: Path) -> None:
    write_pack(tmp_path / "pack", design="pairs", practice=False, sessions=(0, 1))
    path = tmp_path / "R1.jsonl"
    with serving(tmp_path / "pack", path) as url:
        opened = Opened(context_of(chromium), url)
        opened.consent()
        opened.press("Enter")
        opened.at("case 0")
        assert opened.page.locator(".viewer canvas").count() == 6
        opened.answer(2, 5)
        opened.page.get_by_text("Session 1 of 2 is finished").wait_for()
        opened.press("Enter")
        opened.at("case 1")
        opened.answer(1, 1)
        opened.at("finished")
    assert [(one["choice"], one["answers"]) for one in lines(path)[1:3]] == [
        ("right", {"confidence": 5}),
        ("left", {"confidence": 1}),
    ]


@contextmanager
def first_case(browser: Any, tmp_path: Path, width: int = 1280, **fields: Any) -> Iterator[tuple[Opened, Path]]:
    """A reader at its first case."""
    write_pack(tmp_path / "pack", practice=False, **fields)
    with serving(tmp_path / "pack", tmp_path / "R1.jsonl") as url:
        opened = Opened(context_of(browser, width), url)
        opened.consent()
        opened.press("Enter")
        opened.at("case 0")
        yield opened, tmp_path / "R1.jsonl"
        assert opened.errors == []


def test_planes_follow_keys_wheel_and_mouse(chromium: Any, tmp_path: Path) -> None:
    with first_case(chromium, tmp_path) as (opened, _):
        page = opened.page

        def captions() -> list[str]:
            page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
            return [one.split(",")[0] for one in page.locator(".viewer figcaption").all_text_contents()]

        assert captions() == ["axial 13/24", "coronal 15/28", "sagittal 17/32"]
        opened.press("ArrowUp", "c", "PageDown")
        assert captions() == ["axial 14/24", "coronal 5/28", "sagittal 17/32"], "the large plane scrolls"
        sagittal = page.locator(".viewer canvas").nth(2)
        sagittal.hover()
        page.mouse.wheel(0, 80)
        assert captions()[2] == "sagittal 19/32", "the plane under the mouse scrolls"
        box = sagittal.bounding_box()
        page.mouse.click(box["x"] + 0.25 * box["width"], box["y"] + 0.5 * box["height"])
        assert captions()[1] == "coronal 22/28", "front is on the left"
        before = page.evaluate("reader.planes.zoom")
        opened.press("+", "+")
        assert page.evaluate("reader.planes.zoom") > 2 * before
        page.keyboard.down("Shift")
        page.mouse.move(box["x"] + 60, box["y"] + 60)
        page.mouse.down()
        page.mouse.move(box["x"] + 90, box["y"] + 60)
        page.mouse.up()
        page.keyboard.up("Shift")
        assert page.evaluate("reader.planes.centre")[1] != 0.5
        opened.press("r")
        assert page.evaluate("[reader.planes.zoom, ...reader.planes.centre]") == [1, 0.5, 0.5, 0.5]
        page.keyboard.down("Control")
        page.mouse.click(box["x"] + 30, box["y"] + 40)
        page.keyboard.up("Control")
        assert page.locator(".marks .go").inner_text() == "1 · sagittal"


def test_windows_by_key_drag_and_fields(chromium: Any, tmp_path: Path) -> None:
    with first_case(chromium, tmp_path) as (opened, path):
        page = opened.page
        level, width = page.get_by_label("Level"), page.get_by_label("Width")
        assert (level.input_value(), width.input_value()) == ("-600", "1500")
        opened.press("b")
        assert (level.input_value(), width.input_value()) == ("600", "1800")
        width.fill("100")
        opened.press("Enter")
        page.wait_for_timeout(50)
        assert page.evaluate(GREY, [0, 0.5, 0.5]) == 0, "soft tissue is black below 550 HU"
        box = page.locator(".viewer canvas").first.bounding_box()
        page.mouse.move(box["x"] + 100, box["y"] + 300)
        page.mouse.down(button="right")
        page.mouse.move(box["x"] + 400, box["y"] + 100)
        page.mouse.up(button="right")
        assert (level.input_value(), width.input_value()) == ("400", "400")
        opened.answer(1, 1, 1, 1, 1, 1, 1, 1)
        opened.at("case 1")
        assert lines(path)[-1]["windows"] == ["lung", "bone", "free"]


def test_fingers_scroll_set_the_crosshair_and_zoom(chromium: Any, tmp_path: Path) -> None:
    with first_case(chromium, tmp_path, 390) as (opened, _):
        page = opened.page
        box = page.locator(".viewer canvas").first.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        fingers = page.context.new_cdp_session(page)

        def touch(kind: str, *points: tuple[float, float]) -> None:
            given = [{"x": at[0], "y": at[1], "id": number} for number, at in enumerate(points)]
            fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": given})

        page.touchscreen.tap(box["x"] + 0.25 * box["width"], y)
        assert abs(page.evaluate("reader.planes.at")[0] - 0.75) < 0.02
        touch("touchStart", (x, y))
        touch("touchMove", (x, y + 30))
        touch("touchEnd")
        assert page.evaluate("reader.planes.voxel()")[2] == 12 + 5
        touch("touchStart", (x - 20, y))
        touch("touchStart", (x - 20, y), (x + 20, y))
        touch("touchMove", (x - 40, y), (x + 40, y))
        touch("touchEnd")
        assert abs(page.evaluate("reader.planes.zoom") - 2) < 0.1


@pytest.mark.parametrize(("width", "language"), [(1280, "en"), (1280, "de"), (390, "de")])
def test_nothing_sticks_out(chromium: Any, tmp_path: Path, width: int, language: str) -> None:
    with first_case(chromium, tmp_path, width, language=language) as (opened, _):
        page = opened.page
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        if width > 820:
            for one in page.locator(".viewer canvas").all() + [page.locator(".form .primary")]:
                box = one.bounding_box()
                assert box["y"] + box["height"] <= 800 and box["width"] > 150, "all is on the screen"
        assert page.evaluate("scrollY") == 0


def test_an_unsaved_answer_stays_on_the_page(chromium: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pack(tmp_path / "pack", practice=False)
    path = tmp_path / "R1.jsonl"
    with serving(tmp_path / "pack", path) as url:
        opened = Opened(context_of(chromium), url)
        opened.consent()
        opened.press("Enter")
        opened.at("case 0")

        def full(log: AnswerLog, content: bytes) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(AnswerLog, "_write", full)
            opened.answer(1, 1, 1, 1, 1, 1, 1, 1)
            opened.page.get_by_text("The disk is full").wait_for()
        assert len(lines(path)) == 1
        opened.press("Enter")
        opened.at("case 1")
        assert [one.get("item") for one in lines(path)] == [None, 0]


def test_a_second_window_cannot_answer_a_locked_item(chromium: Any, tmp_path: Path) -> None:
    write_pack(tmp_path / "pack", practice=False)
    with serving(tmp_path / "pack", tmp_path / "R1.jsonl") as url:
        first = Opened(context_of(chromium), url)
        first.consent()
        first.press("Enter")
        first.at("case 0")
        second = Opened(context_of(chromium), url)
        second.page.wait_for_selector(".keys")
        second.press("Enter")
        second.at("case 0")
        for opened in (first, second):
            opened.answer(1, 1, 1, 1, 1, 1, 1, 1)
        first.at("case 1")
        second.page.get_by_text("This case is answered already").wait_for()
        assert len(lines(tmp_path / "R1.jsonl")) == 2


def test_a_large_pack_says_how_it_is_opened(chromium: Any, tmp_path: Path) -> None:
    write_pack(tmp_path)
    (tmp_path / "study.js").unlink()
    opened = Opened(context_of(chromium), (tmp_path / "index.html").as_uri())
    assert "medlord-bench reading serve" in opened.page.locator("body").inner_text()


def test_packs_are_of_one_reader_each(tmp_path: Path) -> None:
    """Two packs of one study keep their answers apart in one browser, as their hashes differ."""
    packs: list[Pack] = [write_pack(tmp_path / reader, reader=reader) for reader in ("R1", "R2")]
    assert packs[0].digest() != packs[1].digest()
