"""A report as a research object: RO-Crate metadata beside its files (package `rocrate`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medlord_bench.errors import MissingError
from medlord_bench.results.run_results import RunResults

FILE = "ro-crate-metadata.json"
WHAT = {
    "page.html": "the report as a page",
    "results.json": "all results, valid under results.schema.json of medlord-bench",
    "card.json": "the benchmark card",
    "card.md": "the benchmark card",
    "methods.md": "a methods paragraph with citations",
    "references.bib": "the literature cited",
}


def write_crate(run: RunResults, out: Path, files: Sequence[Path]) -> Path:
    """Write `ro-crate-metadata.json` for the files of a report below `out`; returns it.

    Raises `MissingError` where the package `rocrate` is not installed.
    """
    try:
        from rocrate.rocrate import ROCrate
    except ImportError:
        raise MissingError(
            "--crate needs the package rocrate, which is not installed: pip install 'medlord-bench[crate]'"
        ) from None
    crate = ROCrate(gen_preview=False)
    crate.name = f"medlord-bench report of {', '.join(run.contestants)} on {run.dataset}"
    crate.description = "Tables, figures, page and data of an evaluation of generative models of 3D CT."
    started = run.started or "1970-01-01"
    crate.datePublished = started  # of the run, so that the same results give the same file
    software = crate.add_jsonld(
        {
            "@id": "#medlord-bench",
            "@type": "SoftwareApplication",
            "name": "medlord-bench",
            "version": str((run.origins[0].provenance or {}).get("medlord_bench", "not recorded")),
        }
    )
    written = [
        crate.add_file(path, path.relative_to(out).as_posix(), properties={"name": WHAT.get(path.name, path.stem)})
        for path in files
    ]
    crate.add_jsonld(
        {
            "@id": f"#{run.name}",
            "@type": "CreateAction",
            "name": f"run {run.name}",
            "startTime": started,
            "instrument": {"@id": software.id},
            "result": [{"@id": entity.id} for entity in written],
        }
    )
    crate.metadata.write(out)
    return out / FILE
