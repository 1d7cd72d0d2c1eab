"""The tree of commands, and what happens to errors: one line, one fix, one exit code."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Sequence

import typer

# Typer carries its own copy of Click since 0.26 and exports none of its exception classes but one.
from typer._click.exceptions import ClickException

from engine.errors import InternalError, MantaError, UsageError
from serve.cli import (
    admin,
    audit,
    cost,
    demo,
    export,
    init,
    keys,
    local,
    migrations,
    procedures,
    query,
    quotas,
    reference,
    runs,
    saas,
    schedules,
    tenants,
    vault,
)
from serve.cli.desk import Desk, terminal_desk
from serve.cli.output import FAILED, exit_code, line, say_error

INTERRUPTED = 130

app = typer.Typer(
    name="manta",
    help="What every organisation spent on AI: pull, price, check and load into BigQuery, on Ray.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
for part in (
    local,
    demo,
    init,
    tenants,
    admin,
    keys,
    quotas,
    audit,
    runs,
    schedules,
    cost,
    saas,
    query,
    export,
    vault,
    procedures,
    migrations,
    reference,
):
    part.register(app)


def main() -> None:
    """Entry point of the command `manta`."""
    # Google's and Ray's loggers say on stderr what the error line says already.
    logging.basicConfig(level=logging.CRITICAL)
    sys.exit(run(sys.argv[1:], terminal_desk()))


def run(arguments: Sequence[str], desk: Desk) -> int:
    """Carry out one call and answer its exit code; nothing but the result goes to stdout."""
    as_json = "--json" in arguments
    try:
        done = app(args=list(arguments), prog_name="manta", standalone_mode=False, obj=desk)
        return done if isinstance(done, int) else 0
    except MantaError as error:
        _debug(desk)
        say_error(desk.err, error, as_json=as_json)
        return exit_code(error)
    except ClickException as error:
        return _usage(error, desk, as_json=as_json)
    except (KeyboardInterrupt, typer.Abort):
        line(desk.err, "manta: interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # `manta query ... | head`: whoever read has enough; the interpreter must not complain at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 - the last resort: a traceback helps nobody at a terminal
        _debug(desk)
        unexpected = InternalError(
            f"{type(error).__name__}: {error}",
            fix="Run it again with MANTA_DEBUG=1 and report what it shows.",
        )
        say_error(desk.err, unexpected, as_json=as_json)
        return FAILED


def _usage(error: ClickException, desk: Desk, *, as_json: bool) -> int:
    """What Typer itself refuses; `manta` alone shows its help."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "manta"
    said = error.format_message()
    if type(error).__name__ == "NoArgsIsHelpError":
        line(desk.out, said)
        return error.exit_code
    say_error(
        desk.err,
        UsageError(said, fix=f"See {command} --help.", field=getattr(error, "param_hint", None)),
        as_json=as_json,
    )
    return error.exit_code


def _debug(desk: Desk) -> None:
    if desk.environ.get("MANTA_DEBUG") == "1":
        line(desk.err, traceback.format_exc())
