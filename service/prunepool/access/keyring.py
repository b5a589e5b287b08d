"""The keys of a running server: found in constant time, reloaded when their file changes."""

from __future__ import annotations

import hmac
import math
from collections.abc import Callable, Mapping
from typing import Protocol

import structlog
from pydantic import SecretStr

from prunepool.access.buckets import Bucket, Rate, full, take
from prunepool.access.keys import Key, digest_of
from prunepool.errors import InvalidParameter, RateLimited, Unauthorized

#: Seconds between checks of the file, and so the longest time for which a revoked key still works.
CHECK_INTERVAL_S = 1.0
_log = structlog.stdlib.get_logger("prunepool.access")


class Source(Protocol):
    """A source of keys, such as `KeysFile`."""

    def read(self) -> Mapping[str, Key]:
        """Read all keys, by name.

        Raises:
            InvalidParameter: the keys cannot be read.
        """

    def stamp(self) -> object:
        """Return a value that changes whenever the keys do."""


class Caller:
    """The owner of a key, and the state of its rate limit. Call it from the event loop only.

    Args:
        key: the key.
        clock: monotonic clock, in seconds.

    Attributes:
        name: name of the key.
        admin: whether the key may load and unload models.
    """

    def __init__(self, key: Key, clock: Callable[[], float]) -> None:
        self.name = key.name
        self.admin = key.admin
        self._rate = key.rate
        self._clock = clock
        self._bucket = None if key.rate is None else full(key.rate, clock())

    def spend(self, images: int) -> None:
        """Charge images to the rate limit, all or none.

        Raises:
            RateLimited: the key has too few images left now; `retry_after` says when it has enough.
            InvalidParameter: the number exceeds the burst, so waiting would not help.
        """
        if self._rate is not None and images > self._rate.burst:
            limit = f"at most {math.floor(self._rate.burst)} at once with the key {self.name!r}"
            raise InvalidParameter("images", images, limit)
        self._bucket = self._after(images)

    def check(self) -> None:
        """Check that at least one image is left, before a body is read.

        Raises:
            RateLimited: no image is left; `retry_after` says when one is.
        """
        self._after(1)

    def adopt(self, other: Caller) -> None:
        """Take over the state of the same key from before a reload."""
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
        source: source of the keys, read once here.
        clock: monotonic clock, in seconds.

    Raises:
        InvalidParameter: the keys cannot be read.
    """

    def __init__(self, source: Source, clock: Callable[[], float]) -> None:
        self._source = source
        self._clock = clock
        self._stamp = source.stamp()
        self._checked_at = clock()
        self._callers = self._callers_of(source.read())
        if not self._callers:
            _log.warning("no API keys: every request that needs one is refused")

    def identify(self, key: SecretStr) -> Caller:
        """Return the caller that a key belongs to.

        Raises:
            Unauthorized: the key is unknown.
        """
        self._reload_if_changed()
        presented = digest_of(key.get_secret_value())
        found = None
        # Compare with all keys every time, so that the duration says nothing about them.
        for digest, caller in self._callers:
            if hmac.compare_digest(digest, presented):
                found = caller
        if found is None:
            raise Unauthorized("the API key is unknown; it may have been revoked")
        return found

    def reload(self) -> None:
        """Reload the keys. If they cannot be read, keep the current ones and log why."""
        self._checked_at = self._clock()
        # Taken before reading, so that a change during the read is found at the next check.
        self._stamp = self._source.stamp()
        try:
            keys = self._source.read()
        except InvalidParameter as error:
            _log.error("API keys not reloaded", why=error.detail)
            return
        before = {caller.name: caller for _, caller in self._callers}
        self._callers = self._callers_of(keys)
        for _, caller in self._callers:
            if (same := before.get(caller.name)) is not None:
                caller.adopt(same)
        _log.info("API keys reloaded", keys=len(self._callers))

    def _reload_if_changed(self) -> None:
        if self._clock() - self._checked_at < CHECK_INTERVAL_S:
            return
        self._checked_at = self._clock()
        if self._source.stamp() != self._stamp:
            self.reload()

    def _callers_of(self, keys: Mapping[str, Key]) -> list[tuple[bytes, Caller]]:
        return [(key.digest, Caller(key, self._clock)) for key in keys.values()]
