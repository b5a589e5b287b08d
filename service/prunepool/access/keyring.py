"""The keys that a running server knows: looked up in constant time, read again when their file changes."""

from __future__ import annotations

import hmac
import math
from collections.abc import Callable, Mapping
from typing import Protocol

import structlog

from prunepool.access.buckets import Bucket, Rate, full, take
from prunepool.access.keys import Key, digest_of
from prunepool.errors import InvalidParameter, RateLimited, Unauthorized

#: Seconds between looks at the file: a key that is revoked works that much longer at most.
CHECK_INTERVAL_S = 1.0
_log = structlog.stdlib.get_logger("prunepool.access")


class Source(Protocol):
    """Where keys come from; `KeysFile` is one."""

    def read(self) -> Mapping[str, Key]:
        """All keys, by name.

        Raises:
            InvalidParameter: they cannot be read.
        """

    def stamp(self) -> object:
        """What changes whenever the keys do."""


class Caller:
    """Whoever holds a key: its name, and what is left of its rate. All calls come from the event loop.

    Args:
        key: the key.
        clock: seconds, monotonic.

    Attributes:
        name: of the key.
        admin: whether it may load and unload models.
    """

    def __init__(self, key: Key, clock: Callable[[], float]) -> None:
        self.name = key.name
        self.admin = key.admin
        self._rate = key.rate
        self._clock = clock
        self._bucket = None if key.rate is None else full(key.rate, clock())

    def spend(self, images: int) -> None:
        """Take images from the key's rate, all or none.

        Raises:
            RateLimited: not yet; says when.
            InvalidParameter: more than the key may ever send at once.
        """
        if self._rate is not None and images > self._rate.burst:
            limit = f"at most {math.floor(self._rate.burst)} at once with the key {self.name!r}"
            raise InvalidParameter("images", images, limit)
        self._bucket = self._after(images)

    def check(self) -> None:
        """Refuse a caller that has nothing left before a body is read for it.

        Raises:
            RateLimited: not even one image is left; says when one is.
        """
        self._after(1)

    def adopt(self, other: Caller) -> None:
        """Go on where the same key was before its file was read again."""
        if self._rate == other._rate:
            self._bucket = other._bucket

    def _after(self, images: int) -> Bucket | None:
        if self._rate is None or self._bucket is None:
            return None
        after, wait_s = take(self._rate, self._bucket, images, self._clock())
        if wait_s:
            raise self._refusal(self._rate, wait_s)
        return after

    def _refusal(self, rate: Rate, wait_s: float) -> RateLimited:
        detail = f"the key {self.name!r} may send {rate}; the next fits in {wait_s:.2f} s"
        return RateLimited(detail, retry_after=wait_s)


class Keyring:
    """Finds the caller that a key belongs to.

    Args:
        source: where the keys are; read once here.
        clock: seconds, monotonic.

    Raises:
        InvalidParameter: the keys cannot be read.
    """

    def __init__(self, source: Source, clock: Callable[[], float]) -> None:
        self._source = source
        self._clock = clock
        self._stamp = source.stamp()
        self._checked_at = clock()
        self._callers = self._made(source.read())
        if not self._callers:
            _log.warning("there are no API keys: every request that needs one will be refused")

    def identify(self, key: str) -> Caller:
        """The caller whose key it is.

        Raises:
            Unauthorized: it is nobody's.
        """
        self._reload_if_changed()
        presented = digest_of(key)
        found = None
        # All of them every time: how long it takes says nothing of which came close.
        for digest, caller in self._callers:
            if hmac.compare_digest(digest, presented):
                found = caller
        if found is None:
            raise Unauthorized("the API key is not known here; it may have been revoked")
        return found

    def reload(self) -> None:
        """Read the keys again. If they cannot be read, those that were stay, and the log says why."""
        self._checked_at = self._clock()
        # Before reading: a change while reading is found at the next look.
        self._stamp = self._source.stamp()
        try:
            keys = self._source.read()
        except InvalidParameter as error:
            _log.error("API keys stay as they were", why=error.detail)
            return
        before = {caller.name: caller for _, caller in self._callers}
        self._callers = self._made(keys)
        for _, caller in self._callers:
            if (same := before.get(caller.name)) is not None:
                caller.adopt(same)
        _log.info("API keys read", keys=len(self._callers))

    def _reload_if_changed(self) -> None:
        if self._clock() - self._checked_at < CHECK_INTERVAL_S:
            return
        self._checked_at = self._clock()
        if self._source.stamp() != self._stamp:
            self.reload()

    def _made(self, keys: Mapping[str, Key]) -> list[tuple[bytes, Caller]]:
        return [(key.digest, Caller(key, self._clock)) for key in keys.values()]
