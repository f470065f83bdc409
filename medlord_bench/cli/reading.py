"""``medlord-bench reading``: blinded reader studies, from the draw of the cases to the analysis of what readers return."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from medlord_bench.cli.options import json_option, store_option
from medlord_bench.errors import UserError

if TYPE_CHECKING:
    from medlord_bench.engine.store import Store
    from medlord_bench.reading.protocol import StudyProtocol


@click.group()
def reading() -> None:
    """Blinded reader studies: export packs for readers, and analyse what they return."""


@reading.command()
@click.argument("runs", nargs=-1)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="The study's new folder.")
@click.option("--protocol", type=click.Path(path_type=Path), help="YAML protocol; without it, a RUN and the defaults.")
@click.option("--contestant", multiple=True, help="Of the run; may be repeated. Default: all that are not controls.")
@click.option("--n", type=click.IntRange(1), help="Volumes of each source. Default: 10.")
@click.option("--reader", "readers", multiple=True, help="Alias of a reader; may be repeated. Default: R1.")
@click.option("--rubric", help="Name of a rubric, or a YAML file. Default: ct-synthesis-v1.")
@click.option("--design", type=click.Choice(["ratings", "pairs"]), help="Default: ratings.")
@click.option("--language", type=click.Choice(["en", "de"]), help="Of the reader. Default: en.")
@click.option("--recipient", default="", help="Encrypt the key to this age recipient (age1...).")
@store_option
@json_option
def export(
    runs: tuple[str, ...],
    out: Path,
    protocol: Path | None,
    contestant: tuple[str, ...],
    recipient: str,
    store: Path,
    as_json: bool,
    **fields: object,
) -> None:
    """Draw the cases of a study and write its key and a pack for each reader.

    Without --protocol: contestants of the RUNs beside their real test volumes. Nobody sees a picture before the draw. The key
    is in OUT/sealed; a reader gets OUT/packs/READER and nothing else.

    \b
    medlord-bench reading export RUN --out STUDY --n 10 --reader R1 --reader R2
    medlord-bench reading export --protocol study.yaml --out STUDY
    """
    from medlord_bench.engine.store import Store
    from medlord_bench.reading.check import check_study
    from medlord_bench.reading.export import export as write
    from medlord_bench.reading.formats import finish
    from medlord_bench.reading.protocol import read_protocol
    from medlord_bench.reading.study import Study

    given = {name: value for name, value in fields.items() if value not in (None, ())}
    if protocol is not None:
        if runs or contestant or given:
            named = ", ".join(
                (*("RUN",) * bool(runs), *("--contestant",) * bool(contestant), *(f"--{n}" for n in given))
            )
            raise UserError(f"--protocol {protocol} has all fields of the study; remove {named}")
        study = read_protocol(protocol)
    else:
        study = _of_runs(runs, contestant, Store(store), given)
    notes: list[str] = []
    packs = write(
        study, Study(out), Store(store), finish, lambda made, key: notes.extend(check_study(made, key)), recipient
    )
    names = [str(pack) for pack in packs]
    text = {"study": str(out), "packs": names, "notes": notes}
    click.echo(json.dumps(text) if as_json else "\n".join(names))
    for note in notes:
        click.echo(f"note: {note}", err=True)
    for source in study.sources:
        click.echo(f"source {source.name}: {source.run or source.folder}", err=True)
    items = f"{study.cases} cases and {study.hidden_repeats} hidden repeats"
    items = f"{study.choices} pairs" if study.design == "pairs" else items
    click.echo(f"each reader reads {items}; the key is in {out / 'sealed'}: keep it away from the readers", err=True)


def _of_runs(
    runs: tuple[str, ...], contestants: tuple[str, ...], store: Store, fields: dict[str, object]
) -> StudyProtocol:
    """The protocol of contestants of runs, and the real test volumes of the first."""
    from medlord_bench.contracts.validation import validate
    from medlord_bench.engine.run_folder import locate, newest_finished
    from medlord_bench.reading.protocol import REAL, StudyProtocol
    from medlord_bench.results.run_results import read_run

    folders = [locate(store, run) for run in runs] or [newest_finished(store)]
    named = dict.fromkeys(name for folder in folders for name in read_run(folder).contestants)
    unknown = next((name for name in contestants if name not in named), None)
    if unknown is not None:
        raise UserError(f"--contestant {unknown}: not in {folders[0].name}; it has {', '.join(named)}")
    sources: list[dict[str, object]] = [{"name": REAL, "run": folders[0], "contestant": REAL}]
    chosen = []
    for folder in folders:
        run = read_run(folder)
        chosen += [(name, folder) for name in contestants or run.ranked or run.contestants if name in run.contestants]
    names = [name for name, _ in chosen]
    for name, folder in chosen:
        own = name if names.count(name) == 1 else f"{name} of {folder.name}"
        sources.append({"name": own, "run": folder, "contestant": name})
    return validate(StudyProtocol, {"sources": sources, **fields}, "reading export")


@reading.command()
@click.argument("pack", type=click.Path(path_type=Path))
@click.option(
    "--key", type=click.Path(path_type=Path), help="The study's key, or a CSV file with columns code, source."
)
@click.option("--identity", type=click.Path(path_type=Path), help="The age identity that opens an encrypted key.")
@click.option("--waive", "waived", multiple=True, help="A quantity that the audit leaves out; may be repeated.")
@json_option
def check(pack: Path, key: Path | None, identity: Path | None, waived: tuple[str, ...], as_json: bool) -> None:
    """Look for leaks in a PACK: whether anything but its pictures says which source made a case.

    PACK is a pack of this bench, or a folder of NIfTI, MetaImage, DICOM or raw files that others made. With --key the names
    of the sources are looked for, and numbers of the files are compared with the source. Exit 1 on a leak.

    \b
    medlord-bench reading check STUDY/packs/R1 --key STUDY/sealed/key.json
    """
    from medlord_bench.reading.check import check_pack, protocol_of, read_labels, shortened

    protocol = protocol_of(key)
    waived = waived or (protocol.waived if protocol else ())
    found = check_pack(pack, read_labels(key, identity) if key else None, protocol, waived)
    if as_json:
        leaks = [{"file": leak.file, "leak": leak.what} for leak in found.leaks]
        text = {"pack": str(pack), "files": found.files, "cases": found.cases, "leaks": leaks, "notes": found.notes}
        click.echo(json.dumps(text))
    else:
        click.echo(
            "\n".join([*shortened([str(leak) for leak in found.leaks]), *(f"note: {note}" for note in found.notes)])
        )
        count = f"{len(found.leaks) or 'no'} {'leak' if len(found.leaks) == 1 else 'leaks'}"
        click.echo(f"{found.cases} cases, {found.files} files: {count}")
    if found.leaks:
        raise click.exceptions.Exit(1)


@reading.command()
@click.argument("pack", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Default: a free one.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder of the answers; see above.")
def serve(pack: Path, port: int, out: Path | None) -> None:
    """Show a PACK to its reader in a browser, on this machine only, until Ctrl-C.

    Every answer is on the disk before the next case is shown: in READER.jsonl of the folder `returns` of the study that contains
    the pack, else of the current folder. The same command goes on at the next open case.
    """
    from contextlib import closing, suppress

    from medlord_bench.reading.answer_log import AnswerLog
    from medlord_bench.reading.serve import address, returns_of, server_of, sound_pack

    found = sound_pack(pack)
    path = returns_of(pack, found, out)
    with closing(AnswerLog(path, found)) as log, server_of(pack, found, log, port) as server:
        if log.repaired:
            click.echo(f"{path}: an incomplete last line was moved to {path.name}.incomplete", err=True)
        click.echo(f"answers: {path}", err=True)
        click.echo(address(server))
        with suppress(KeyboardInterrupt):
            server.serve_forever()


study_argument = click.argument("study", type=click.Path(path_type=Path, file_okay=False))


@reading.command()
@click.argument("returns", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--pack", "packs", multiple=True, required=True, type=click.Path(path_type=Path), help="That was read.")
@json_option
def score(returns: tuple[Path, ...], packs: tuple[Path, ...], as_json: bool) -> None:
    """Check returns without the key: whole, of this pack, each item once, on the scale.

    RETURNS are files READER.jsonl, or form.csv filled by hand. Says how far each reader is; exit code 2 if items are missing.

    \b
    medlord-bench reading score STUDY/returns/R1.jsonl --pack STUDY/packs/R1
    """
    from medlord_bench.reading.pack import read_pack
    from medlord_bench.reading.returns import read_returns

    found = read_returns(returns, [read_pack(folder) for folder in packs])
    lines = [one.progress() for one in found]
    click.echo(json.dumps(lines) if as_json else "\n".join(str(line["text"]) for line in lines))
    for one in found:
        if one.missing:
            raise UserError(one.incomplete())


@reading.command()
@study_argument
@click.option("--partial", is_flag=True, help="Lock although items or readers are missing; this is recorded.")
@click.option("--withdraw", "reader", help="Take this reader's return out of the lock, before or after unblinding.")
@click.option("--delete", is_flag=True, help="With --withdraw: delete the file of the return too.")
@json_option
def lock(study: Path, partial: bool, reader: str | None, delete: bool, as_json: bool) -> None:
    """Write the hashes of all returns to STUDY/returns/lock.json, before the key is opened.

    Publish the hash that it prints before you open the key: it shows later that no answer was changed after that.
    """
    from medlord_bench.reading.lock import FILE, lock_hash
    from medlord_bench.reading.lock import lock as write
    from medlord_bench.reading.study import Study
    from medlord_bench.reading.withdrawal import withdraw

    if reader is None and delete:
        raise UserError("--delete: needs --withdraw READER")
    if reader is not None and partial:
        raise UserError("--withdraw: changes a lock that is there; remove --partial")
    made = write(Study(study), partial) if reader is None else withdraw(Study(study), reader, delete)
    path = study / "returns" / FILE
    text = f"{path}: {len(made.returns)} returns{', partial' if made.partial else ''}\nsha256 of {FILE}: {lock_hash(Study(study))}"
    click.echo(json.dumps(made.model_dump(mode="json")) if as_json else text)
    if reader is not None:
        file = made.withdrawn[-1].entry.file
        kept = "was deleted" if delete else f"is still in {study / 'returns'}"
        click.echo(
            f"reader {reader} withdrew; {file} {kept}; the analysis was removed: unblind and analyse again", err=True
        )


@reading.command()
@study_argument
@click.option("--key", type=click.Path(path_type=Path), required=True, help="Of the export: STUDY/sealed/key.json.")
@click.option("--identity", type=click.Path(path_type=Path), help="Age identity that opens an encrypted key.")
def unblind(study: Path, key: Path, identity: Path | None) -> None:
    """Open the key and write every answer with its source to STUDY/analysis.

    Needs the lock. Refuses returns that were changed after it, and a key whose commitment is not that of the packs.
    """
    from medlord_bench.reading.study import Study
    from medlord_bench.reading.unblind import unblind as join

    joined = join(Study(study), key, identity)
    click.echo(f"commitment {joined.commitment}: as in the packs\n{study / 'analysis'}")


@reading.command()
@study_argument
@click.option("--run", help="Run that gets results/ratings.csv, so that `medlord-bench report` draws the answers.")
@store_option
def analyse(study: Path, run: str | None, store: Path) -> None:
    """Write numbers, tables, figures and a checklist of an unblinded study to STUDY/analysis.

    Refuses unblinded answers that are not those of the lock.
    """
    from medlord_bench.engine.run_folder import locate
    from medlord_bench.engine.store import Store
    from medlord_bench.reading.analysis import analyse as write
    from medlord_bench.reading.study import Study

    folder = locate(Store(store), run) if run is not None else None
    summary = write(Study(study), folder)
    none = sum(one.value is None for one in summary.findings)
    click.echo(
        f"{study / 'analysis' / 'summary.md'}: {len(summary.findings)} numbers; {none} could not be computed, the page says why"
    )
    if folder is not None and summary.design == "pairs":
        click.echo(f"{folder}: unchanged; a study of pairs has no ratings that its report can draw", err=True)
    elif folder is not None:
        click.echo(f"{folder / 'results' / 'ratings.csv'}: draw it with: medlord-bench report {folder}")


@reading.command()
@click.option("--protocol", type=click.Path(path_type=Path), help="YAML protocol: its readers, sources, n and design.")
@click.option("--readers", multiple=True, type=click.IntRange(1), help="May be repeated. Default: 1, 2 and 3.")
@click.option("--models", type=click.IntRange(1), help="Compared with real volumes. Default: 1.")
@click.option(
    "--auc", "efforts", multiple=True, type=click.FloatRange(0.5, 1, min_open=True, max_open=True), help="Effect."
)
@click.option("--rating-seconds", type=click.FloatRange(0, min_open=True), default=60, show_default=True)
@click.option("--pair-seconds", type=click.FloatRange(0, min_open=True), default=30, show_default=True)
@click.option("--shared", type=click.FloatRange(0, 1), default=0.5, show_default=True, help="Of what readers see.")
@click.option("--simulations", type=click.IntRange(100), default=1000, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@json_option
def plan(
    protocol: Path | None,
    readers: tuple[int, ...],
    models: int | None,
    efforts: tuple[float, ...],
    as_json: bool,
    **assumed: float,
) -> None:
    """How many volumes a study needs, and how many reader-minutes: ratings and pairs beside each other.

    An effect is how often a real volume looks more real to one reader (--auc). The seconds are guesses; take those of a
    pilot: `reading score` prints them.
    """
    from dataclasses import asdict

    from medlord_bench.reading.power import Assumptions, page, table
    from medlord_bench.reading.protocol import read_protocol

    study = read_protocol(protocol) if protocol is not None else None
    if study is not None and (readers or models):
        raise UserError(f"--protocol {protocol} has readers and sources; remove --readers and --models")
    if study is not None and not study.has_real:
        raise UserError(
            f"--protocol {protocol}: no source is named real, and `plan` is of models against real volumes; for two models give "
            "--models 1 instead: the AUC is then how often a volume of one looks more real than one of the other"
        )
    count = (models or 1) if study is None else len(study.sources) - 1
    numbers = (len(study.readers),) if study is not None else readers or (1, 2, 3)
    given = [Assumptions(readers=number, models=count, **assumed) for number in numbers]  # type: ignore[arg-type]
    effects = efforts or (0.6, 0.7, 0.8, 0.9)
    if as_json:
        click.echo(json.dumps([asdict(row) for row in table(effects, given)]))
    else:
        click.echo(page(study, effects, given))
