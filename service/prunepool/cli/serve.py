"""`prunepool serve`."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from functools import partial

import typer

from prunepool.cli.options import load_settings, with_flags


@with_flags()
def serve(flags: Mapping[str, str]) -> None:
    """Serve models over HTTP until SIGTERM or Ctrl-C, then finish the accepted requests."""
    from prunepool.api.listening import CannotListen
    from prunepool.api.server import EngineLost
    from prunepool.server import single
    from prunepool.server.specs import needs_processes

    settings = load_settings(flags)
    reread = partial(load_settings, flags)
    try:
        if needs_processes(settings):
            from prunepool.server import parent

            unanswered = parent.serve(settings, announce=_announce, reread=reread)
        else:
            unanswered = single.serve(settings, announce=_announce, reread=reread)
    except CannotListen as error:
        raise typer.TyperException(str(error)) from error
    except EngineLost as error:
        _exit_now(str(error))  # a broken device may hang the interpreter's own way out
    if unanswered:
        limit = f"drain_timeout_s={settings.drain_timeout_s:g}"
        _exit_now(f"accepted requests left unanswered after {limit}: {unanswered}")


def _announce(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _exit_now(why: str) -> None:
    """Exit without waiting for threads that did not finish in time."""
    sys.stderr.write(f"prunepool: {why}\n")
    sys.stderr.flush()
    os._exit(1)
