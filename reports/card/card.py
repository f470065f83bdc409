"""The benchmark card: what was measured, on what, with what, and which questions the run leaves open."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from medlord_bench.results.report import ReportOptions
from medlord_bench.results.run_results import RunResults


class Card:
    """`card.md`, `card.json`, `results.json`, `methods.md` and `references.bib`."""

    def render(self, run: RunResults, out: Path, options: ReportOptions) -> Sequence[Path]:
        """Write the five files into `out`; returns them."""
        from medlord_bench.results import export, references
        from medlord_bench.util.files import write_text

        from .answers import sections
        from .methods import cited, methods

        own = references.parse(files(__package__).joinpath("references.bib").read_text(encoding="utf-8"))
        found = sections(run)
        title = f"Benchmark card: {', '.join(run.contestants) or 'a run'} on {run.dataset or 'an unrecorded data set'}"
        lines = [f"# {_escaped(title)}", ""]
        for section in found:
            lines += [
                f"## {section.title}",
                "",
                *(f"- **{_escaped(i.question)}** {_escaped(i.answer)}" for i in section.items),
                "",
            ]
        known = {**own, **run.references}
        paths = {
            "card.md": "\n".join(lines),
            "card.json": json.dumps(
                {
                    "title": title,
                    "sections": [
                        {
                            "title": section.title,
                            "items": [
                                {"question": item.question, "answer": item.answer, "answered": item.answered}
                                for item in section.items
                            ],
                        }
                        for section in found
                    ],
                },
                indent=1,
                ensure_ascii=False,
            )
            + "\n",
            "methods.md": methods(run),
        }
        for name, text in paths.items():
            write_text(out / name, text)
        references.write(out / references.FILE, {key: known[key] for key in cited(run, own)})
        return [*(out / name for name in paths), export.write(out, run), out / references.FILE]


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is."""
    for letter in "\\`*_[]<>#|":
        text = text.replace(letter, f"\\{letter}" if letter not in "<>" else {"<": "&lt;", ">": "&gt;"}[letter])
    return " ".join(text.split())
