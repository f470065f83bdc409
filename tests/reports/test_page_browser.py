"""The page in a real browser, opened from its file: nothing is fetched, slices scroll, windows and keys work."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medlord_bench.contracts import registry
from medlord_bench.contracts.metrics import quantities_of
from medlord_bench.contracts.results import CaseRow, read_results, write_results
from medlord_bench.reports.page.page import Page
from medlord_bench.results.pictures import Montage, MontageItem, MontageRow, picture_path, volume_path, write_montage
from medlord_bench.results.report import ReportOptions
from medlord_bench.results.run_results import read_run
from medlord_bench.volumes.planes import planes_of, write_planes
from medlord_bench.volumes.small import small_of, write_small

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (Debian: apt-get install chromium)")
QUANTITIES = quantities_of({one.name: registry.load("metrics", one.name) for one in registry.entries("metrics")})
FLAGS = "--no-sandbox --disable-background-networking --disable-component-update --disable-sync --disable-quic"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        yield browser
        browser.close()


@pytest.fixture
def page_file(run_folder: Path) -> Path:
    """A page with a real volume (bright in its upper half) with a mask, a sample, and rows of cases."""
    hu = np.full((16, 12, 10), -1000, np.int16)
    hu[:, :, 5:] = 200
    hu[2, 3, 1] = 1000
    labels = np.zeros(hu.shape, np.uint8)
    labels[4:12, 3:9, 3:7] = 1
    rows = []
    for kind, contestant, item, mask in (
        ("images", "real", "case-0", labels),
        ("samples", "noise", "sample-00000", None),
    ):
        write_planes(run_folder / picture_path(kind, contestant, item), planes_of(hu))
        write_small(run_folder / volume_path(kind, contestant, item), small_of(hu, (1.0, 1.0, 2.0), mask))
        item_row = MontageItem(id=item, path=picture_path(kind, contestant, item))
        rows.append(MontageRow(title=contestant, kind=kind, contestant=contestant, items=(item_row,)))
    montage = Montage(spacing=(1.0, 1.0, 2.0), rows=tuple(rows), regions={"left_ventricle": (1,)})
    write_montage(run_folder, montage)
    results, _ = read_results(run_folder / "results")
    cases = [CaseRow(metric="psnr", generator="noise", case=f"case-{i}", value=float(30 - i)) for i in range(12)]
    write_results(run_folder / "results", results, cases)
    return Page().render(read_run(run_folder), run_folder / "report", ReportOptions())[0]


class Opened:
    """A page in the browser. seen: requests and console messages."""

    def __init__(self, browser: Any, path: Path, width: int, height: int, scheme: str) -> None:
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, offline=True, has_touch=width < 500
        )
        self.page = context.new_page()
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.errors.append(message.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("#viewer-root figcaption:not(:empty)")

    def captions(self) -> list[str]:
        return [text.split(",")[0] for text in self.page.locator("#viewer-root figcaption").all_text_contents()]

    def grey(self, canvas: int, x: float, y: float) -> int:
        """Brightness of a canvas at a fraction of its width and height, after the next drawing."""
        code = (
            "([n, x, y]) => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => {"
            "const c = document.querySelectorAll('#viewer-root canvas')[n];"
            "done(c.getContext('2d').getImageData(Math.floor(x * c.width), Math.floor(y * c.height), 1, 1).data[0]);})))"
        )
        return int(self.page.evaluate(code, [canvas, x, y]))


@pytest.mark.parametrize(
    ("width", "height", "scheme"), [(360, 740, "light"), (1600, 900, "dark"), (1280, 800, "light")]
)
def test_the_page_opens_from_its_file_without_a_request_or_an_error(
    chromium: Any, page_file: Path, width: int, height: int, scheme: str
) -> None:
    opened = Opened(chromium, page_file, width, height, scheme)
    assert opened.requests == [page_file.as_uri()]
    assert opened.errors == []
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width, "nothing sticks out"
    assert opened.page.evaluate("document.documentElement.scrollHeight") < 5000
    background = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, background[4:-1].split(","))) < 200) is (scheme == "dark")


def test_slices_scroll_by_wheel_and_keys_and_all_panels_follow(chromium: Any, page_file: Path) -> None:
    opened = Opened(chromium, page_file, 1280, 800, "light")
    assert opened.captions() == ["axial 6/10", "coronal 7/12", "sagittal 9/16"] * 2
    first = opened.page.locator("#viewer-root canvas").first
    first.hover()
    opened.page.mouse.wheel(0, 100)
    opened.grey(0, 0.5, 0.5)
    assert opened.captions()[0] == opened.captions()[3] == "axial 7/10"
    first.focus()
    opened.page.keyboard.press("ArrowDown")
    opened.page.keyboard.press("PageDown")
    assert opened.grey(0, 0.5, 0.5) < 5, "air at the bottom"
    assert opened.captions()[0] == "axial 1/10"
    assert opened.captions()[1] == "coronal 7/12", "other axes stay"


def test_planes_are_in_radiological_convention(chromium: Any, page_file: Path) -> None:
    """The one bright voxel lies left, posterior and low: it is on the right and at the bottom."""
    opened = Opened(chromium, page_file, 1280, 800, "light")
    opened.page.evaluate("viewer.at = [2.5 / 16, 3.5 / 12, 1.5 / 10]; viewer.later()")
    assert opened.grey(0, 1 - 2.5 / 16, 1 - 3.5 / 12) == 255
    assert opened.grey(1, 1 - 2.5 / 16, 1 - 1.5 / 10) == 255
    assert opened.grey(2, 1 - 3.5 / 12, 1 - 1.5 / 10) == 255


def test_window_presets_work_by_button_and_key(chromium: Any, page_file: Path) -> None:
    opened = Opened(chromium, page_file, 1280, 800, "light")
    assert opened.grey(1, 0.5, 0.25) == round(255 * 1200 / 2000)
    opened.page.get_by_role("button", name="window mediastinum").click()
    assert opened.grey(1, 0.5, 0.25) == round(255 * 360 / 400)
    opened.page.locator("#viewer-root canvas").first.focus()
    opened.page.keyboard.press("1")
    assert opened.grey(1, 0.5, 0.25) == 255
    assert opened.page.get_by_role("button", name="window lung").get_attribute("aria-pressed") == "true"


def test_a_click_moves_the_other_planes_and_masks_can_be_outlined(chromium: Any, page_file: Path) -> None:
    opened = Opened(chromium, page_file, 1280, 800, "light")
    box = opened.page.locator("#viewer-root canvas").first.bounding_box()
    opened.page.mouse.click(box["x"] + 0.9 * box["width"], box["y"] + 0.5 * box["height"])
    opened.grey(0, 0.5, 0.5)
    assert opened.captions()[2] == "sagittal 2/16"
    opened.page.evaluate("viewer.at = [0.5, 0.5, 0.5]")
    before = opened.grey(0, 1 - 4.5 / 16, 0.5)
    legend = opened.page.locator(".viewer-legend")
    assert legend.is_hidden()
    opened.page.get_by_role("button", name="outline the masks").click()
    assert legend.is_visible() and "left ventricle" in legend.inner_text()
    assert opened.grey(0, 1 - 4.5 / 16, 0.5) != before


def test_a_case_worth_a_look_is_one_click_away(chromium: Any, run_folder: Path, page_file: Path) -> None:
    results, rows = read_results(run_folder / "results")
    quantities = tuple(
        one.model_copy(update={"cases_of": "samples"}) if one.name == "psnr" else one for one in QUANTITIES.values()
    )
    rows = [CaseRow(metric="psnr", generator="noise", case="sample-00000", value=1.0)]
    write_results(run_folder / "results", results.model_copy(update={"quantities": quantities}), rows)
    for kind in ("images", "samples"):  # the pick's real volume has the case's own name
        source = run_folder / volume_path("images", "real", "case-0")
        place = run_folder / volume_path(kind, "real" if kind == "images" else "noise", "sample-00000")
        place.write_bytes(source.read_bytes())
    page = Page().render(read_run(run_folder), run_folder / "report", ReportOptions())[0]
    opened = Opened(chromium, page, 1280, 800, "light")
    chooser = opened.page.get_by_label("cases worth a look")
    texts = chooser.locator("option").all_text_contents()
    assert texts[1:] == ["worst psnr, noise: 1", "median psnr, noise: 1"]
    chooser.select_option(texts[1])
    opened.page.wait_for_selector("canvas[aria-label^='axial plane of noise'] >> nth=0")
    selects = [opened.page.get_by_label(f"volume {number}").input_value() for number in (1, 2)]
    assert selects == ["images/real/sample-00000", "samples/noise/sample-00000"]
    assert opened.errors == []


def test_past_the_last_slice_the_wheel_scrolls_the_page(chromium: Any, page_file: Path) -> None:
    opened = Opened(chromium, page_file, 1280, 500, "light")
    opened.page.locator("#viewer-root canvas").first.hover()
    for _ in range(20):
        opened.page.mouse.wheel(0, 100)
    opened.page.wait_for_function("window.scrollY > 50")
    assert opened.captions()[0] == "axial 10/10"


def test_another_volume_is_chosen_by_name(chromium: Any, page_file: Path) -> None:
    opened = Opened(chromium, page_file, 1280, 800, "light")
    options = opened.page.get_by_label("volume 2").locator("option").all_text_contents()
    assert options == ["real: case-0", "noise: sample 00000"]
    opened.page.get_by_label("volume 2").select_option("real: case-0")
    opened.page.wait_for_selector("canvas[aria-label^='axial plane of real'] >> nth=1")


def test_tables_of_cases_sort_and_filter(chromium: Any, page_file: Path) -> None:
    opened = Opened(chromium, page_file, 1280, 800, "light")
    opened.page.get_by_text("psnr: 12 rows").click()
    rows = opened.page.locator("details[data-metric=psnr] tbody tr")
    rows.first.wait_for()
    assert rows.count() == 12
    opened.page.get_by_role("button", name="psnr").click()
    assert rows.first.text_content() == "noisecase-1119"
    opened.page.get_by_role("button", name="psnr").click()
    assert rows.first.text_content() == "noisecase-030"
    opened.page.get_by_label("filter the cases of psnr").fill("case-1")
    opened.page.get_by_text("3 of 12 rows").wait_for()
    assert rows.count() == 3
