"""How many connections there may be, from how many files the process may have open (`ulimit -n`)."""

from __future__ import annotations

import resource
from pathlib import Path

import structlog

from prunepool.settings import Settings

#: Files beside connections: weights that are being read, connections that are being refused, a device's own. At
#: most that share of what is allowed.
_SPARE, _SPARE_SHARE = 100, 4
_log = structlog.stdlib.get_logger("prunepool.server")


def within_open_files(settings: Settings) -> Settings:
    """The settings with as many connections as this process can have open, which the log says if they are fewer.

    The soft limit is raised first, as far as it is needed and the hard limit lets it.
    """
    open_now = _open_now()
    wanted = _protocols(settings) * settings.max_connections + open_now + _SPARE
    allowed = _raised_to(wanted)
    lowered = connections_within(settings, allowed, open_now)
    if lowered == settings.max_connections:
        return settings
    _log.warning(
        "max_connections is lowered, fewer files may be open than it needs: raise ulimit -n",
        max_connections=settings.max_connections,
        lowered_to=lowered,
        open_files_allowed=allowed,
        open_files_needed=wanted,
    )
    return settings.model_copy(update={"max_connections": lowered})


def connections_within(settings: Settings, allowed: int, open_now: int) -> int:
    """How many connections of each protocol a process can have, at most as many as are wanted.

    Args:
        settings: what is wanted.
        allowed: files that it may have open.
        open_now: files that it has open already.
    """
    wanted, protocols = settings.max_connections, _protocols(settings)
    if allowed >= protocols * wanted + open_now + _SPARE:
        return wanted
    room = allowed - open_now - min(_SPARE, allowed // _SPARE_SHARE)
    return max(1, min(wanted, room // protocols))


def _protocols(settings: Settings) -> int:
    """How many protocols have connections of their own: HTTP, and gRPC where it is served."""
    return 1 if settings.grpc_port is None else 2


def _raised_to(wanted: int) -> int:
    """Raise the soft limit to what is wanted, if it is lower; what it is then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    raised = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if raised > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
    return max(soft, raised)


def _open_now() -> int:
    """How many files this process has open."""
    for folder in ("/proc/self/fd", "/dev/fd"):
        if Path(folder).is_dir():
            return sum(1 for _ in Path(folder).iterdir())
    return 0
