"""`prunepool serve`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial

import typer

from prunepool.cli.last_words import form
from prunepool.cli.options import load_settings, with_flags
from prunepool.queued_output import QueuedOutput


@with_flags()
def serve(flags: Mapping[str, str]) -> None:
    """Serve models over HTTP until SIGTERM or Ctrl-C, then finish the accepted requests."""
    from prunepool.api.listening import CannotListen
    from prunepool.api.server import EngineLost
    from prunepool.server import single
    from prunepool.server.specs import needs_processes

    settings = load_settings(flags)
    form.settle(settings.log_format)
    reread = partial(load_settings, flags)
    serve_by: Callable[..., int] = single.serve
    if needs_processes(settings):
        from prunepool.server import parent

        serve_by = parent.serve
    try:
        # The event loop must not wait for whoever reads the announcement either.
        with closing(QueuedOutput(sys.stdout)) as output:
            unanswered = serve_by(
                settings, announce=lambda line: output.write(form.line(line, "info")), reread=reread
            )
    except CannotListen as error:
        raise typer.TyperException(str(error)) from error
    except EngineLost as error:
        _exit_now(str(error))  # a broken device may hang the interpreter's own way out
    if unanswered:
        limit = f"drain_timeout_s={settings.drain_timeout_s:g}"
        _exit_now(f"accepted requests left unanswered after {limit}: {unanswered}")


def _exit_now(why: str) -> None:
    """Exit without waiting for threads that did not finish in time, or for whoever reads this."""
    with closing(QueuedOutput(sys.stderr)) as output:
        output.write(form.line(why, "error", "prunepool: "))
    os._exit(1)
