"""Names that mean something to LaTeX, HTML, Markdown, a spreadsheet or a file system are only text in a table."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from medlord_bench.contracts.metrics import Quantity
from medlord_bench.contracts.results import CaseRow, Replicates, Score
from medlord_bench.reports.tables import latex, tidy
from medlord_bench.reports.tables.tables import Tables
from medlord_bench.results.comparisons import Comparison
from medlord_bench.results.report import ReportOptions
from tests.reports.tables_data import records, run, written

HOSTILE = (
    r"MAISI_PT & 100% $x^2$ #1 {a} ~ \input{/etc/passwd}",
    "<script>alert(1)</script>",
    '=HYPERLINK("http://x","y")',
    "+1|2\n**bold** [x](y) `z` --weights",
    "@../../etc/passwd é ö 漢字 µ ≤ \u202e \x07",
    "-1 %[x]*",
    "[label",
)


def hostile(out: Path) -> Path:
    """Tables in which every text is hostile: contestants, regions, protocols, data sets, titles, reasons."""
    quantities = [
        Quantity(name="q", title=HOSTILE[0], unit=HOSTILE[5], meaning="", better="lower", table="whole"),
        Quantity(name="r", title=HOSTILE[4], meaning="", better="lower", table="regions", decimals=2),
    ]
    common = {"dataset": HOSTILE[0], "better": "lower", "reference": HOSTILE[3], "interval": HOSTILE[0], "n": 3}
    scores, replicates = [], []
    for place, name in enumerate(HOSTILE):
        own = {**common, "generator": name, "value": place + 1.0}
        scores.append(Score(metric="q", protocol=f"{HOSTILE[0]}-1", low=-1.0, high=99.0, failed=1, **own))
        scores += [Score(metric="r", protocol="r-1", region=region, quartiles=(0.0, 1.0), **own) for region in HOSTILE]
        replicates.append(
            Replicates(
                metric="q", protocol=f"{HOSTILE[0]}-1", generator=name, dataset=HOSTILE[0], reference=HOSTILE[3],
                value=place + 1.0, samples={"a": 1.0, "b": place + 2.0}, real={"a": 1.0, "b": 1.2},
            )
        )  # fmt: skip
    scores.append(
        Score(metric="q", protocol="other-1", status="not_run", reason=HOSTILE[1], generator="last", dataset="d")
    )
    scores.append(Score(metric="q", protocol="other-1", value=1.0, generator=HOSTILE[0], dataset=HOSTILE[0]))
    first, second = HOSTILE[:2]
    tie = Comparison(
        metric="q", protocol=f"{HOSTILE[0]}-1", dataset=HOSTILE[0], reference=HOSTILE[3], first=first, second=second,
        difference=1.0, how=HOSTILE[0], p=1.0, p_holm=1.0, n=9, verdict="tie", n_needed=99, detectable=1.5,
    )  # fmt: skip
    rows = [CaseRow(metric="r", generator=first, case=HOSTILE[0], value=1.0, patient="p")]
    given = run(
        scores, quantities, [tie], rows, controls=HOSTILE[4:5], seen={HOSTILE[0]: HOSTILE[0]}, replicates=replicates
    )
    Tables().render(given, out, ReportOptions(published=True))
    return out / "tables"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hostile(tmp_path_factory.mktemp("hostile"))


# -------------------------------------------------------------------------------------------------------------- LaTeX
ALLOWED_TEXT = (
    "begin end centering caption label smallskip medskip small footnotesize scriptsize tiny setlength tabcolsep "
    "toprule midrule bottomrule cmidrule multicolumn textbf textsuperscript rlap par linewidth raggedright "
    "shortstack textbackslash textasciitilde textasciicircum textless textgreater textbar textendash textemdash "
    "approx pm times cdot mu leq geq infty ss c dagger hskip "
)
ALLOWED = frozenset(ALLOWED_TEXT.split())


def faults(text: str) -> list[str]:
    """What would not compile, or mean something: braces, commands that are not ours, ampersands of each row."""
    found, depth = [], 0
    body = re.sub(r"(?<!\\)%.*", "", text)
    body = re.sub(r"\\`", "", body)
    plain = re.sub(r"\\[\\{}&%$#_]", lambda match: "\\\\" if match.group() == "\\\\" else "", body)
    for one in plain:
        depth += {"{": 1, "}": -1}.get(one, 0)
        if depth < 0:
            break
    found += [f"braces: {depth}"] if depth else []
    found += [f"command: {one}" for one in re.findall(r"\\([A-Za-z]+)", body) if one not in ALLOWED]
    found += [
        f"bare {one!r}"
        for one in set(re.findall(r"[#_~^]", plain.replace(r"\^", "").replace(r"\~", "")))
        if one not in "~"
    ]
    if re.search(r"[^\x00-\x7f]", text):
        found.append("a character that pdflatex may not show")
    if plain.count("$") % 2:
        found.append("an odd number of $")
    plain = re.sub(r"@\{\\hskip \d+pt\}", "", plain)
    for tabular in re.findall(r"\\begin\{tabular\}\{([lr]+)\}(.*?)\\end\{tabular\}", plain, re.DOTALL):
        for line in tabular[1].splitlines():
            if "&" in line:
                wide = line.count("&") + 1 + sum(int(n) - 1 for n in re.findall(r"\\multicolumn\{(\d+)\}", line))
                found += [f"{wide} cells of {len(tabular[0])}: {line}"] if wide != len(tabular[0]) else []
    return found


def test_the_checker_sees_what_it_is_for() -> None:
    row = "\\begin{tabular}{lr}\n%s \\\\\n\\end{tabular}\n"
    assert faults(row % r"a\_b \& 5\% & 1 \textbf{2}") == []
    for wrong in ("a & 1 & 2", "{a & 1", "a_b & 1", "a & $1", r"a & \input{x}", "a# & 1", "ö & 1", "a} & {1"):
        assert faults(row % wrong), wrong


@pytest.mark.parametrize("name", ["whole", "regions"])
def test_latex_is_well_formed_with_any_name(folder: Path, name: str) -> None:
    text = (folder / f"{name}.tex").read_text()
    assert faults(text) == []
    labels = re.findall(r"\\label\{(.*?)\}", text)
    assert labels and len(set(labels)) == len(labels) and all(re.fullmatch(r"tab:[a-z0-9-]+", one) for one in labels)
    assert text.count(r"\caption{") == text.count(r"\begin{table}") == len(labels)


def test_escapes_of_latex() -> None:
    assert latex.escape(r"a_b & 5 % \x {y} ~ ^ < >") == (
        r"a\_b \& 5~\% \textbackslash{}x \{y\} \textasciitilde{} \textasciicircum{} \textless{} \textgreater{}"
    )
    assert latex.escape("é ö ç 漢 \x07") == r"\'{e} \"{o} \c{c} ? ?"
    assert latex.escape("[a] * --x") == "{[}a{]} {*} -{}-x"
    assert latex.label("A/B: ../ü") == "tab:a-b" and latex.label("漢") == "tab:table"


def compiled(folder: Path, out: Path) -> str:
    names = sorted(path.name for path in folder.glob("*.tex"))
    body = "\n".join(f"\\input{{{folder / name}}}\n\\clearpage" for name in names)
    (out / "all.tex").write_text(
        f"\\documentclass{{article}}\n\\usepackage{{booktabs}}\n\\begin{{document}}\n{body}\n\\end{{document}}\n"
    )
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"], cwd=out, capture_output=True, text=True,
        timeout=120, errors="replace",
    )  # fmt: skip
    assert done.returncode == 0 and (out / "all.pdf").exists(), done.stdout[-2000:]
    return done.stdout


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed (texlive-latex-recommended)")
def test_latex_compiles_with_booktabs_alone(folder: Path, tmp_path: Path) -> None:
    said = compiled(folder, tmp_path)
    assert "multiply-defined" not in said and "LaTeX Error" not in said


# ------------------------------------------------------------------------------------------------- HTML, Markdown, CSV
class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("name", ["whole", "regions"])
def test_html_has_only_its_own_tags(folder: Path, name: str) -> None:
    page = Tags()
    page.feed((folder / f"{name}.html").read_text())
    known = "html head meta title style body section table caption thead tbody tr th td b small sup ul li"
    assert page.tags <= {*known.split()}
    assert "<script>alert(1)</script>" in page.text


@pytest.mark.parametrize("name", ["whole", "regions"])
def test_markdown_has_a_row_for_each_contestant_and_no_markup_of_names(folder: Path, name: str) -> None:
    text = (folder / f"{name}.md").read_text()
    for line in text.splitlines():
        assert not re.search(r"<(?!/?sup>)", line) and "](" not in line.replace(r"\]", ""), line
    grids = [grid for grid in written(folder.parent, name) if grid[0][0] == "Contestant"]
    assert grids and all(len({len(row) for row in grid}) == 1 for grid in grids)


def test_csv_cells_are_no_formulas_and_numbers_stay_numbers(folder: Path) -> None:
    rows = records(folder.parent, "whole")
    assert {row["contestant"][0] for row in rows}.isdisjoint("=+-@\t\r")
    assert {row["contestant"] for row in rows} >= {"'" + HOSTILE[2], "'" + HOSTILE[3], HOSTILE[0]}
    assert float(rows[0]["low"]) == -1.0
    for text in ("=1", "+1", "-x", "@x", "\tx", "\rx"):
        assert tidy.safe(text) == "'" + text
    assert tidy.safe(-1.5) == -1.5 and tidy.safe("a=1") == "a=1"
