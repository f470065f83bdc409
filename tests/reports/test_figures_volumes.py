"""Figures of volumes: which are shown, from where, and which must not be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medlord_bench.contracts.results import ResultsFile
from medlord_bench.drawing.files import Drawn
from medlord_bench.drawing.style import MM, style
from medlord_bench.reports.figures.conditional import conditional
from medlord_bench.reports.figures.figures import Figures
from medlord_bench.reports.figures.montage import montage
from medlord_bench.reports.figures.samples import samples
from medlord_bench.reports.figures.volumes import draw
from medlord_bench.results.pictures import Montage, MontageItem, MontageRow, picture_path
from medlord_bench.results.report import ReportOptions
from medlord_bench.results.run_results import Origin, RunResults, read_run
from medlord_bench.volumes.planes import planes_of, write_planes

CASES = ("case-a-0123456789", "case-b-0123456789")
OPTIONS, SHARE = ReportOptions(), ReportOptions(share=True)
GREY = {"real": 900, "alpha": -200, r"$b_2$": 100, "holdout": 900}  # HU of a contestant's volumes


def volume(hu: int, item: int) -> np.ndarray:
    made = np.full((16, 12, 10), hu, np.int16)
    made[0, 0, 0] = item
    return made


@pytest.fixture
def run(bare_folder: Path) -> RunResults:
    """Two generators and a control that passes on real volumes, with pictures."""
    rows = []
    for kind, contestant, items in (
        ("images", "real", CASES),
        ("samples", "alpha", ("sample-00000", "sample-00001", "sample-00002")),
        ("samples", "holdout", ("sample-00000", "sample-00001", "sample-00002")),
        ("samples", r"$b_2$", ("sample-00000", "sample-00001")),
        ("conditional", "alpha", CASES),
        ("conditional", r"$b_2$", CASES),
    ):
        shown = []
        for place, item in enumerate(items):
            path = bare_folder / picture_path(kind, contestant, item)
            write_planes(path, planes_of(volume(GREY[contestant], place), (1.0, 2.0, 3.0)))
            shown.append(MontageItem(id=item, path=str(path)))
        rows.append(MontageRow(title=contestant, kind=kind, contestant=contestant, items=tuple(shown)))
    labels = np.zeros((16, 12, 10), np.int16)
    labels[2:8, 2:8, 2:8], labels[9:14, 2:8, 2:8] = 4, 5
    for case in CASES:
        write_planes(bare_folder / picture_path("masks", "real", case), planes_of(labels))
    names = ("alpha", "holdout", r"$b_2$")
    return replace(
        read_run(bare_folder),
        contestants=names,
        origins=[Origin("r", bare_folder, {name: name for name in names}, "seed: 7\n", None)],
        results=ResultsFile(scores=(), protocols={}, controls=("holdout",)),
        montage=Montage(window=(-1000, 1000), rows=tuple(rows), regions={"lungs": (4, 5), "aorta": (9,)}),
        rows=[],
    )


def one(made: Any) -> Drawn:
    found = list(made)
    assert len(found) == 1
    return found[0]


def records(drawn: Drawn) -> list[dict[str, Any]]:
    return [dict(zip(drawn.columns, row, strict=True)) for row in drawn.rows]


def words(drawn: Drawn) -> list[str]:
    from matplotlib.text import Text

    return [text.get_text() for text in drawn.figure.findobj(Text) if text.get_text()]


def pixels(drawn: Drawn) -> list[int]:
    """The middle grey of each picture, from 0 to 255."""
    return [int(np.median(np.asarray(axes.images[0].get_array()))) for axes in drawn.figure.axes if axes.images]


def grey(hu: int) -> int:
    return round(255 * (hu + 1000) / 2000)


def test_the_montage_has_real_on_top_then_contestants_then_controls(run: RunResults) -> None:
    with style():
        drawn = one(montage(run, OPTIONS))
    assert [row["contestant"] for row in records(drawn)] == ["real", "alpha", r"$b_2$", "holdout"]
    assert pixels(drawn) == [grey(GREY[name]) for name in ("real", "alpha", r"$b_2$", "holdout") for _ in range(3)]
    assert r"$b_2$" in words(drawn)
    assert any("Window -1000 to 1000 HU" in text for text in words(drawn))
    assert words(drawn).count("R") == 8 and words(drawn).count("A") == 8 and words(drawn).count("S") == 8
    assert drawn.figure.get_figwidth() / MM == pytest.approx(122)


def test_panels_have_their_size_in_mm_at_one_scale(run: RunResults) -> None:
    with style():
        drawn = one(montage(run, OPTIONS))
    width, height = drawn.figure.get_size_inches()
    sizes = [(box.width * width, box.height * height) for box in (axes.get_position() for axes in drawn.figure.axes)]
    axial, coronal, sagittal = sizes[:3]
    assert axial[1] / axial[0] == pytest.approx(24 / 16)  # 16 x 12 x 10 voxels of 1 x 2 x 3 mm
    assert coronal[1] / coronal[0] == pytest.approx(30 / 16)
    assert sagittal[1] / sagittal[0] == pytest.approx(30 / 24)
    assert coronal[0] == pytest.approx(axial[0])


def test_a_sample_is_drawn_by_the_seed_of_the_run_and_recorded(run: RunResults) -> None:
    items = [MontageItem(id=str(place)) for place in range(5)]
    other = replace(run, origins=[replace(run.origins[0], config="seed: 8\n")])
    assert draw(run, "alpha", items) == draw(run, "alpha", items)
    assert len({draw(one, name, items).seed for one in (run, other) for name in ("alpha", "holdout")}) == 4
    spread = {
        draw(replace(run, origins=[replace(run.origins[0], config=f"seed: {n}")]), "alpha", items).place
        for n in range(40)
    }
    assert spread == set(range(5))
    with style():
        record = records(one(montage(run, OPTIONS)))[1]
    lot = draw(run, "alpha", run.montage.rows[1].items)  # type: ignore[union-attr]
    assert (record["item"], record["seed"], record["drawn_from"]) == (lot.item.id, str(lot.seed), 3)


def test_samples_stand_in_a_grid(run: RunResults) -> None:
    with style():
        drawn = one(samples(run, OPTIONS))
    found = [(row["contestant"], row["place"]) for row in records(drawn)]
    assert found == [*(("real", i) for i in range(2)), *(("alpha", i) for i in range(3)), *((r"$b_2$", i) for i in range(2)), *(("holdout", i) for i in range(3))]  # fmt: skip
    assert words(drawn).count("not there") == 2


def test_conditional_samples_have_the_contours_of_their_mask(run: RunResults) -> None:
    from matplotlib.contour import ContourSet

    with style():
        drawn = one(conditional(run, OPTIONS))
    assert pixels(drawn) == [grey(GREY[name]) for _ in range(3) for name in ("real", "alpha", r"$b_2$")]
    axes = drawn.figure.axes[0]
    (contour,) = [one for one in axes.collections if isinstance(one, ContourSet)]
    assert len(contour.get_paths()[0].to_polygons(closed_only=False)) == 2, "both lungs are one region"
    legend = drawn.figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["lungs"]
    assert {row["region"] for row in records(drawn)} == {"lungs"}
    assert [row["mask_pixels"] for row in records(drawn) if row["plane"] == "axial"] == [36 + 30] * 3


def test_labels_without_names_and_cases_without_a_mask_are_drawn(run: RunResults) -> None:
    assert run.montage is not None
    unnamed = replace(run, montage=run.montage.model_copy(update={"regions": {}}))
    with style():
        drawn = one(conditional(unnamed, OPTIONS))
        assert [text.get_text() for text in drawn.figure.legends[0].get_texts()] == ["label 4", "label 5"]
        for case in CASES:
            run.picture("real", "masks", case, real=True).unlink()
        assert "No contours" in " ".join(words(one(conditional(run, OPTIONS))))


def test_a_picture_that_is_gone_and_a_failed_sample_leave_a_panel_that_says_so(run: RunResults) -> None:
    assert run.montage is not None
    rows = list(run.montage.rows)
    rows[1] = rows[1].model_copy(update={"items": (MontageItem(id="sample-00000", failed="not finite"),)})
    for item in rows[3].items:
        Path(str(item.path)).unlink()
    with style():
        drawn = one(montage(replace(run, montage=run.montage.model_copy(update={"rows": tuple(rows)})), OPTIONS))
    assert words(drawn).count("not finite") == 3
    assert words(drawn).count("missing") == 3
    assert [row["state"] for row in records(drawn)] == ["shown", "not finite", "missing", "shown"]


def test_shared_figures_show_no_real_volume_and_no_case(run: RunResults, tmp_path: Path) -> None:
    Figures().render(run, tmp_path, OPTIONS)
    written = Figures().render(run, tmp_path, SHARE)
    assert {path.stem for path in written} == {"montage", "samples", "conditional"}
    with style():
        for figure in (montage, samples, conditional):
            drawn = one(figure(run, SHARE))
            assert grey(GREY["real"]) not in pixels(drawn), "neither real nor what a control passes on"
            assert not any("case-" in text for text in words(drawn))
            assert not any("case-" in str(value) for row in drawn.rows for value in row)
            assert not any(axes.collections for axes in drawn.figure.axes), "no mask of a patient"
    for path in (tmp_path / "figures").iterdir():
        content = path.read_bytes()
        assert b"case-" not in content and str(tmp_path).encode() not in content
    nothing_known = replace(run, results=None)
    with style():
        assert list(montage(nothing_known, SHARE)) == []


def test_many_contestants_fill_pages_below_the_same_real_volume(run: RunResults) -> None:
    assert run.montage is not None
    rows = [
        run.montage.rows[0],
        *(run.montage.rows[1].model_copy(update={"contestant": f"g{i}" * 30}) for i in range(13)),
    ]
    many = replace(run, montage=run.montage.model_copy(update={"rows": tuple(rows)}))
    with style():
        pages = list(montage(many, OPTIONS))
    assert [page.name for page in pages] == ["montage", "montage-2", "montage-3"]
    assert [len(page.rows) for page in pages] == [7, 7, 2]
    assert {page.rows[0][1] for page in pages} == {pages[0].rows[0][1]}
    assert max(page.figure.get_figheight() / MM for page in pages) < 240
    for page in pages:
        page.figure.canvas.draw()
        box = page.figure.get_tightbbox()
        assert box.x0 >= -0.02 and box.x1 <= page.figure.get_figwidth() + 0.02


def test_a_volume_of_another_shape_than_its_mask_has_no_contour(run: RunResults) -> None:
    for case in CASES:
        path = run.origins[0].folder / picture_path("conditional", "alpha", case)
        write_planes(path, planes_of(np.zeros((8, 8, 8), np.int16)))
    with style():
        drawn = one(conditional(run, OPTIONS))
    assert [bool(axes.collections) for axes in drawn.figure.axes[:3]] == [True, False, True]


def test_a_volume_without_any_contrast_is_drawn(run: RunResults, tmp_path: Path) -> None:
    assert run.montage is not None
    flat = replace(run, montage=run.montage.model_copy(update={"window": (2000.0, 3000.0)}))
    assert Figures().render(flat, tmp_path, OPTIONS)
