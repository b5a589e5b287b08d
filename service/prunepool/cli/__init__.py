"""The command line: `prunepool serve`, `classify`, `models`, `settings`.

Exit status: 0 success, 1 failure, 2 wrong usage. An error is one line on standard error.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from prunepool.errors import InvalidParameter, PrunepoolError
from prunepool.machine import set_openmp_wait_policy, tune_malloc

USAGE_ERROR = 2

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
    try:
        given = None if arguments is None else list(arguments)
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
    return status if isinstance(status, int) else 0


def _complain(message: str, status: int) -> int:
    sys.stderr.write(f"prunepool: {' '.join(message.split())}\n")
    return status


def main() -> None:
    """Entry point of the `prunepool` command."""
    set_openmp_wait_policy(os.environ)
    tune_malloc()
    sys.exit(run())
