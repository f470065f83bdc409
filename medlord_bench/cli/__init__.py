"""The command line: one file per verb, each imported only when it is called."""

from __future__ import annotations

import logging
import os
import sys
from importlib import import_module

import click

from medlord_bench.contracts import registry
from medlord_bench.errors import ExitCode, UserError
from medlord_bench.util.files import DISK_FULL
from medlord_bench.util.version import __version__

VERBS = {
    "run": "Train or load a generator, sample, measure, report.",
    "evaluate": "Measure generated volumes in a folder against real ones, or their statistics.",
    "reference": "Write aggregate statistics of real volumes, for others to measure against.",
    "report": "Write the report of finished runs again.",
    "reading": "Blinded reader studies: packs for readers, and what they return.",
    "fetch": "Fetch data sets and pretrained weights, resumable and verified.",
    "list": "List plugins: generators, datasets, metrics, ...",
    "status": "Show the progress of a run.",
    "cancel": "Cancel the jobs of a run on a cluster.",
    "plan": "Show the steps of a run without executing them.",
    "memory": "Predict the GPU memory of every stage, without a GPU.",
    "new": "Write a plugin of your own from a template.",
    "check": "Test a plugin against its contract.",
    "calibrate": "Test the bench itself with known faults.",
    "doctor": "Check this machine and say what to install.",
    "verify": "Find published files that changed.",
    "clean": "Remove objects that no run needs any more.",
    "worker": "Execute one step of a run (for executors).",
}


class Verbs(click.Group):
    """A group whose verbs are modules of this package, and those of the `medlord_bench.commands` entry points."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*VERBS, *(entry.name for entry in registry.entries("commands"))]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name in VERBS:
            module = import_module(f"medlord_bench.cli.{name}")
            command: click.Command = getattr(module, f"{name}_command", None) or getattr(module, name)
            return command
        if name in (entry.name for entry in registry.entries("commands")):
            found: click.Command = registry.load("commands", name)
            return found
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            ctx.fail(registry.unknown("verb", args[0], self.list_commands(ctx)))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(name, help) for name, help in VERBS.items() if name != "worker"])


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="medlord-bench")
@click.option("--debug", is_flag=True, envvar="MEDLORD_BENCH_DEBUG", help="Show tracebacks and debug messages.")
@click.option("--quiet", is_flag=True, help="Only warnings and errors on stderr.")
def cli(debug: bool, quiet: bool) -> None:
    """Evaluation-first benchmarking of generative models of 3D CT.

    Start with:  medlord-bench run --generator medlord --dataset phantom
    """
    level = logging.DEBUG if debug else logging.WARNING if quiet else logging.INFO
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter())
    logger = logging.getLogger("medlord_bench")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(level)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        prefix = "" if record.levelno <= logging.INFO else f"{record.levelname.capitalize()}: "
        return prefix + record.getMessage()


def main() -> None:
    """Run the command line; every `UserError` is one line on stderr and its exit code."""
    # With this the GPU memory reserved by the allocator stays close to the allocated memory. Before torch 2.9 the
    # variable has another name, and this one is ignored; the user may set either.
    if not {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"} & set(os.environ):
        os.environ["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"
    debug = "--debug" in sys.argv
    try:
        code = cli.main(standalone_mode=False)  # click returns the code of an `Exit`, and None for a command
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(ExitCode.USAGE)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(ExitCode.INTERRUPTED)
    except UserError as error:
        if debug:
            raise
        _fail(str(error), error.code)
    except BrokenPipeError:  # the reader of the output has closed it
        sys.exit(ExitCode.OK)
    except OSError as error:
        if debug or (error.filename is None and error.errno not in DISK_FULL):
            raise
        _fail(
            f"{error.filename or 'the store'}: {error.strerror}; published items are kept: free disk space, raise the "
            "file size limit (ulimit -f) or fix permissions and run the same command again, or give another --store"
        )
    else:
        sys.exit(code or ExitCode.OK)


def _fail(message: str, code: ExitCode = ExitCode.USAGE) -> None:
    click.echo(f"Error: {message}", err=True)
    sys.exit(code)
