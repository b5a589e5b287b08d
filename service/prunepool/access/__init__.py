"""Who may ask, and how much: API keys that are kept as hashes, and a token bucket for each.

A key is 32 random bytes, so one round of SHA-256 is as good as a slow password hash: there is nothing to
guess, and a slow hash on every request would be a way to keep the server busy. See docs/security.md.
"""

from __future__ import annotations

from prunepool.access.buckets import Bucket, Rate, take
from prunepool.access.keyfile import KeysFile
from prunepool.access.keyring import Caller, Keyring
from prunepool.access.keys import Key, digest_of, new_key

__all__ = ["Bucket", "Caller", "Key", "Keyring", "KeysFile", "Rate", "digest_of", "new_key", "take"]
