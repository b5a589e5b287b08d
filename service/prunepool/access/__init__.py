"""API keys, stored as hashes, and their rate limits, each a token bucket.

A key is 32 random bytes, so one round of SHA-256 is as safe as a slow password hash: nobody can guess the key. A
slow hash on every request would even help attackers to overload the server. See docs/security.md.
"""

from __future__ import annotations

from prunepool.access.buckets import Bucket, Rate, take
from prunepool.access.keyfile import KeysFile
from prunepool.access.keyring import Caller, Keyring
from prunepool.access.keys import Key, digest_of, new_key

__all__ = ["Bucket", "Caller", "Key", "Keyring", "KeysFile", "Rate", "digest_of", "new_key", "take"]
