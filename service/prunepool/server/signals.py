"""Signals that come before a server can act on them: none is lost, and only SIGTERM and SIGINT end it.

Whoever starts a server may have blocked or ignored signals for itself, and a program inherits that.

The first process of a container gets no signal at all that it has no handler for. What is deferred here waits in
the kernel, also in such a process, until whoever handles it has it delivered.
"""

from __future__ import annotations

import os
import signal
import sys

from prunepool.queued_output import QueuedOutput

#: Only the parent acts on these.
PARENTS_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


def prepare_to_serve() -> None:
    """Before anything is imported: SIGTERM ends the process; SIGHUP and SIGUSR1 wait for their handlers."""
    signal.signal(signal.SIGTERM, _end)
    # Where it is ignored, the system forgets how a process ended, and nobody would learn that one of ours has.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, (signal.SIGHUP, signal.SIGUSR1))


def defer() -> None:
    """Have all signals that a parent acts on wait, each until it is delivered: it starts, or ends and tidies up."""
    signal.pthread_sigmask(signal.SIG_BLOCK, PARENTS_SIGNALS)


def deliver(number: signal.Signals) -> None:
    """Let a signal come, now that it has a handler."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (number,))


def _end(number: int, _: object) -> None:
    """End at once: nothing is being served, so nothing is left to be answered."""
    sys.stderr.write(f"prunepool: {signal.Signals(number).name}: ending now\n")
    sys.stderr.flush()
    if isinstance(sys.stderr, QueuedOutput):
        sys.stderr.drain()
    os._exit(128 + number)
