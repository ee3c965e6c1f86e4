"""The `modiste` command. Thin: each command reads its options, calls one package and prints.

Heavy imports live inside the commands, so that `modiste --help` is instant.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import typer

from cli import (
    auditing,
    backgrounds,
    catalogs,
    comparing,
    demonstrating,
    evaluating,
    explaining,
    exporting,
    finetuning,
    items,
    labelling,
    searching,
    serving,
    upkeep,
)
from cli.lean_import import leave_out_remote_catalogs

app = typer.Typer(
    help="Visual search and labelling for fashion catalogs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
evaluate = typer.Typer(help="Measure how good the answers are.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(evaluate, name="evaluate")
evaluate.command("neighbours")(evaluating.evaluate_neighbours)
evaluate.command("heads")(evaluating.evaluate_heads)

key = typer.Typer(help="API keys of the service.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(key, name="key")
key.command("add")(serving.key_add)
key.command("list")(serving.key_list)
key.command("remove")(serving.key_remove)

# As `modiste --help` lists them.
_COMMANDS: tuple[Callable[..., None], ...] = (
    catalogs.sample,
    catalogs.encoders,
    catalogs.index,
    catalogs.watch,
    items.add,
    items.delete,
    items.relabel,
    searching.search,
    labelling.fit,
    labelling.classify,
    labelling.suspects,
    explaining.explain,
    explaining.neighbours_sheet,
    finetuning.finetune,
    finetuning.transfer,
    finetuning.recipes,
    comparing.compare,
    auditing.audit,
    exporting.export,
    backgrounds.mask,
    serving.serve,
    demonstrating.ui,
    demonstrating.demo,
    searching.duplicates,
    searching.stats,
    upkeep.migrate,
    upkeep.rollback,
    upkeep.verify,
    upkeep.repair,
    upkeep.compact,
)
for _command in _COMMANDS:
    app.command()(_command)


def main() -> None:
    """Runs the command: exit status 0 for success, 1 where it could not be done, 2 for bad input, 130 for Ctrl-C."""
    leave_out_remote_catalogs()
    try:
        app(prog_name="modiste")
    except KeyboardInterrupt:
        sys.exit(130)
    except RuntimeError as error:
        # Before ValueError: a stored head that cannot be used is both, and no bad input.
        _fail(error, 1)
    except ValueError as error:
        _fail(error, 2)
    except OSError as error:
        # A file or folder of the user's own that cannot be read or written.
        place = f"{error.filename}: " if error.filename else ""
        print(f"modiste: {place}{error.strerror or error}.", file=sys.stderr)
        sys.exit(1)


def _fail(error: Exception, status: int) -> None:
    # Our own errors are sentences; any other is a defect, and its place is wanted.
    if type(error).__module__.split(".")[0] not in ("cli", "data", "finetune", "heads", "indexer", "service"):
        raise error
    print(f"modiste: {error}", file=sys.stderr)
    sys.exit(status)
