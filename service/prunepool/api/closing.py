"""Ways to end a connection so that its client can still read the last response."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

#: How long a client may pause while it sends what nobody reads.
_LINGER_PAUSE_S = 5.0
#: The most bytes that are read and discarded.
_LINGER_BYTES = 256 * 1024 * 1024
#: How long a half-closed connection is trusted before it is first checked, and the time between checks.
_PROBE_S = 0.25
_PROBE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Lingering:
    """Closes a connection once its client has stopped sending, after the last response has been written.

    To close a socket with unread data resets the connection, and a client whose connection is reset may lose what
    it has received and not read yet. Most clients send their whole request before they read anything.

    Args:
        transport: of the connection.
        at_most_s: longest time from now on.
    """

    def __init__(self, transport: asyncio.Transport, at_most_s: float) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._discarded = 0
        self._ends = self._loop.time() + at_most_s
        self._timer = self._loop.call_later(min(_LINGER_PAUSE_S, at_most_s), transport.close)
        transport.write_eof()

    def discard(self, count: int) -> None:
        """Note that bytes have been received."""
        self._discarded += count
        self._timer.cancel()
        left_s = self._ends - self._loop.time()
        if self._discarded > _LINGER_BYTES or left_s <= 0:
            self._transport.close()
        else:
            self._timer = self._loop.call_later(min(_LINGER_PAUSE_S, left_s), self._transport.close)

    def stop(self) -> None:
        """Cancel the timer: the connection is closed."""
        self._timer.cancel()


class HalfClosed:
    """Finds out whether a client that has ended its sending still reads; drops the connection if not.

    The kernel says the same of a client that is gone and of one that has called shutdown() after its request and
    waits for the response. Only a client that is gone answers bytes with a reset. So a response that takes long is
    preceded by an interim one, `100 Continue`, which HTTP/1.1 lets every client expect.

    Args:
        transport: of the connection.
        can_probe: whether an interim response may be written now.
    """

    def __init__(self, transport: asyncio.Transport, can_probe: Callable[[], bool]) -> None:
        self._transport = transport
        self._can_probe = can_probe
        self._loop = asyncio.get_running_loop()
        self._probed = False
        self._timer = self._loop.call_later(_PROBE_S, self._check)

    def stop(self) -> None:
        """Cancel the timer: the connection is closed."""
        self._timer.cancel()

    def _check(self) -> None:
        if self._transport.is_closing():
            return
        # The transport does not read any more, so it would notice the reset only when it writes again.
        if self._transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._transport.abort()
            return
        if not self._probed and self._can_probe():
            self._probed = True
            self._transport.write(_PROBE)
        self._timer = self._loop.call_later(_PROBE_S, self._check)
