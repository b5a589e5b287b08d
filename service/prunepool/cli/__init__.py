"""The command line: `prunepool serve`, `classify`, `models`, `settings`.

Exit status: 0 success, 1 failure, 2 wrong usage. An error is one line on standard error.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from prunepool.cli import streams
from prunepool.cli.last_words import form
from prunepool.errors import InvalidParameter, PrunepoolError, limit_reached
from prunepool.machine import set_openmp_wait_policy, tune_malloc
from prunepool.server.signals import prepare_to_serve

USAGE_ERROR = 2
_LEVEL = "PRUNEPOOL_LOG_LEVEL"
#: Characters of a message: torch's about a checkpoint of another network has thousands.
_LONGEST_LINE = 1000

#: Command, module, attribute, help. The module is imported only when the command runs, so that --help is fast.
_COMMANDS = (
    ("serve", "prunepool.cli.serve", "serve", "Serve a model over HTTP."),
    ("classify", "prunepool.cli.classify", "classify", "Classify images, in process or by a server."),
    ("models", "prunepool.cli.models", "models_app", "List, show, add, pull, verify and remove models."),
    ("evaluate", "prunepool.cli.evaluate", "evaluate", "Measure what each ratio costs in accuracy."),
    ("calibrate", "prunepool.cli.calibrate", "calibrate", "Choose a model's plans, and measure its profile."),
    ("train", "prunepool.cli.train", "train", "Train a model with labels, a teacher or both."),
    ("benchmark", "prunepool.cli.benchmark", "benchmark", "Measure images/s across the dial."),
    ("keys", "prunepool.cli.keys", "keys_app", "Create, list and revoke API keys."),
    ("doctor", "prunepool.cli.doctor", "doctor", "Look for what would keep a server from serving here."),
    ("settings", "prunepool.cli.settings", "settings", "Show every setting, its value and where it is from."),
)


class _LazyGroup(TyperGroup):
    """Lists commands without importing their modules."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Import the module of the command that runs."""
        for name, module, attribute, _ in _COMMANDS:
            if args and args[0] == name:
                self.commands[name] = _load(name, module, attribute)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command with logging that shows no variables; --help does without."""
        from prunepool.logs import logging_to

        with logging_to(sys.stderr, "console", "warning"):
            return super().invoke(ctx)


def _load(name: str, module: str, attribute: str) -> Any:
    found = getattr(import_module(module), attribute)
    if not isinstance(found, typer.Typer):
        command = found
        found = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        found.command(name)(command)
    loaded = typer.main.get_command(found)
    loaded.name = name
    return loaded


def _version(wanted: bool) -> None:
    if wanted:
        from prunepool import __version__

        typer.echo(f"prunepool {__version__}")
        raise typer.Exit


app = typer.Typer(
    name="prunepool",
    cls=_LazyGroup,
    help="Vision Transformer inference where every request chooses how many tokens to spend.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def _placeholder(name: str, text: str) -> None:
    @app.command(name, help=text)
    def listed() -> None:
        raise AssertionError("the command itself replaces this before it runs")


for _name, _, _, _text in _COMMANDS:
    _placeholder(_name, _text)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line.

    Args:
        arguments: the arguments after `prunepool`; None takes those of the process.

    Returns:
        The exit status.
    """
    status = _status(arguments)
    lost = streams.flush()
    return status if lost is None else _output_lost(lost)


def _status(arguments: Sequence[str] | None) -> int:
    given = sys.argv[1:] if arguments is None else list(arguments)
    form.begin(given[:1] == ["serve"])
    try:
        status = app(args=given, prog_name="prunepool", standalone_mode=False)
    except typer.TyperException as error:
        hint = " (see prunepool --help)" if error.exit_code == USAGE_ERROR else ""
        return _complain(error.format_message().removesuffix(".") + hint, error.exit_code)
    except InvalidParameter as error:
        return _complain(error.detail, USAGE_ERROR)
    except PrunepoolError as error:
        return _complain(error.detail, 1)
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except streams.OutputLost as lost:
        return _output_lost(lost)
    except Exception as error:
        # A server's operator cannot make a crash come again to see where it was.
        return _unforeseen(error, traced=given[:1] == ["serve"] or _debug())
    return status if isinstance(status, int) else 0


def _output_lost(lost: streams.OutputLost) -> int:
    """Say why standard output could not be written; nothing if only nobody reads it, as with `| head -1`."""
    streams.give_up_output()
    return streams.NOBODY_READS if lost.unread else _complain(str(lost), 1)


def _debug() -> bool:
    return os.environ.get(_LEVEL, "").lower() == "debug"


def _unforeseen(error: Exception, *, traced: bool) -> int:
    """Say in a line what was raised that no command expects, and where; with its traceback, which has no values."""
    if traced:
        traceback.print_exception(error)
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if isinstance(error.filename, str) else ""
        return _complain(where + error.strerror, 1)
    if (why := limit_reached(error)) is not None:
        return _complain(f"{why}{_place_of(error)}", 1)
    hint = "" if traced else f"; {_LEVEL}=debug shows the traceback"
    return _complain(f"internal error: {type(error).__name__}: {error}{_place_of(error)}{hint}", 1)


def _place_of(error: BaseException) -> str:
    """Return the innermost line of ours that an error came through."""
    package = Path(__file__).parents[1]
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(package):
            return f" (prunepool/{path.relative_to(package)}, line {frame.lineno})"
    return ""


def _complain(message: str, status: int) -> int:
    from prunepool.access.keys import hide_keys
    from prunepool.cli.terminal import shown

    # A key in the wrong place of a command line is not repeated, as in `prunepool keys revoke pp_…`.
    line = shown(hide_keys(" ".join(message.split())))
    if len(line) > _LONGEST_LINE:
        line = line[:_LONGEST_LINE] + "…"
    sys.stderr.write(form.line(line, "error", "prunepool: "))
    sys.stderr.flush()
    return status


def main() -> None:
    """Entry point of the `prunepool` command."""
    if sys.argv[1:2] == ["serve"]:
        prepare_to_serve()
    streams.prepare()
    set_openmp_wait_policy(os.environ)
    tune_malloc()
    status = run()
    if any(thread.daemon for thread in threading.enumerate()):
        # One that is in a library aborts the process if the interpreter ends under it: a server that stopped just
        # when a converted model took over did so. `run` has written out what was buffered.
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
