"""What an engine's connection raises instead of a result."""

from __future__ import annotations

from prunepool.transport.messages import Failed, error_of


class Disconnected(Exception):
    """The engine has died or does not answer, and the requests that it had are lost.

    Attributes:
        on_device: whether its device had this one; the others only waited.
    """

    on_device = False


class Unsent(Disconnected):
    """There is no connection: nothing was sent."""


class MessageLost(Exception):
    """The engine could not read a message, and which request it belonged to is not known."""


class RequestFailed(Exception):
    """The engine answered a request with an error.

    Attributes:
        error: of the tree in :mod:`prunepool.errors`.
        attempts: how many devices the request was on.
        given_back: whether the request was given back because this front end asked for it.
    """

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed.error.detail)
        self.error = error_of(failed.error)
        self.attempts = failed.attempts
        self.given_back = failed.given_back
