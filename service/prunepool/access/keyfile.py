"""The file of API keys: TOML with one key per line, stored as its hash.

    alice = { sha256 = "…64 hexadecimal digits…", rate = 50.0, burst = 100.0, created = 2026-01-31 }

Optional: `rate` (images per second), `burst` (images at once, by default those of one second), `created`, and
`admin` (true for a key that may load and unload models). Keys are added and removed as whole lines, so that
comments and other lines stay unchanged.
"""

from __future__ import annotations

import fcntl
import math
import os
import re
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from pathlib import Path

from prunepool.access.buckets import Rate
from prunepool.access.keys import NAME, Key
from prunepool.errors import InvalidParameter
from prunepool.files import NotUtf8, read_text

_HEAD = "# API keys of prunepool, one a line, each as the hash of it: made by `prunepool keys`.\n"
_MEMBERS = frozenset({"sha256", "rate", "burst", "created", "admin"})
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
#: A hundred thousand keys.
_MAX_BYTES = 16 << 20
_PARAMETER = "api_keys_file"


class KeysFile:
    """A file of keys on disk.

    Args:
        path: path of the file; symbolic links are followed, so that it can be a mounted secret.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, Key]:
        """Read all keys, by name.

        Raises:
            InvalidParameter: the file is missing or invalid.
        """
        return parse(self._text(), self.path)

    def stamp(self) -> tuple[int, int, int] | None:
        """Return a value that changes whenever the file does; None if there is no file."""
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def add(self, key: Key) -> None:
        """Add a key. A new file is readable by its owner only.

        Raises:
            InvalidParameter: the name is in use or not allowed, or the file cannot be read.
            OSError: the file cannot be written.
        """
        check_name(key.name)

        def added(text: str) -> str:
            if key.name in parse(text, self.path):
                raise InvalidParameter("NAME", key.name, f"one that {self.path} does not have yet")
            return text + ("" if text.endswith("\n") or not text else "\n") + line_of(key)

        self._rewrite(added, new=_HEAD)

    def remove(self, name: str) -> None:
        """Remove a key.

        Raises:
            InvalidParameter: there is no key of that name, it shares its line with others, or the file cannot be
                read.
            OSError: the file cannot be written.
        """

        def removed(text: str) -> str:
            keys = parse(text, self.path)
            if name not in keys:
                there = ", ".join(keys) or "none"
                raise InvalidParameter("NAME", name, f"a key of {self.path}; there are: {there}")
            own = re.compile(rf"""\s*["']?{re.escape(name)}["']?\s*=""")
            left = "".join(line for line in text.splitlines(keepends=True) if not own.match(line))
            del keys[name]
            try:
                if parse(left, self.path) == keys:
                    return left
            except InvalidParameter:
                pass
            raise InvalidParameter(
                "NAME", name, f"on one line of its own in {self.path}; remove it there by hand"
            )

        self._rewrite(removed)

    def _text(self) -> str:
        try:
            text = read_text(self.path, _MAX_BYTES)
        except OSError as error:
            raise _wrong(self.path, error.strerror or str(error)) from error
        except NotUtf8 as error:
            raise _wrong(self.path, "it is not UTF-8 text") from error
        return text.replace("\r\n", "\n").replace("\r", "\n")

    def _rewrite(self, change: Callable[[str], str], new: str | None = None) -> None:
        """Replace the file atomically, so that a server never reads half of it."""
        target = self.path.resolve()
        with _locked(target.parent):
            exists = target.exists()
            text = new if new is not None and not exists else self._text()
            changed = change(text)
            with tempfile.NamedTemporaryFile(
                "w", encoding="utf-8", dir=target.parent, prefix=f".{target.name}.", delete=False
            ) as draft:
                try:
                    draft.write(changed)
                    draft.flush()
                    os.fsync(draft.fileno())
                    if exists:
                        _copy_owner_and_mode(target, Path(draft.name))
                    Path(draft.name).replace(target)
                except BaseException:
                    Path(draft.name).unlink(missing_ok=True)
                    raise


def _copy_owner_and_mode(source: Path, target: Path) -> None:
    """Copy owner and mode, so that a server of another user can still read the file."""
    found = source.stat()
    if (found.st_uid, found.st_gid) != (os.geteuid(), os.getegid()):
        os.chown(target, found.st_uid, found.st_gid)
    target.chmod(found.st_mode & 0o777)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Allow one writer at a time. The lock is on the folder, because the file itself is replaced."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def parse(text: str, path: Path) -> dict[str, Key]:
    """Parse the keys of a file, by name.

    Args:
        text: content of the file.
        path: path of the file, for errors.

    Raises:
        InvalidParameter: the content is invalid; the message never quotes a hash.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _wrong(path, f"it is not TOML: {error}") from error
    keys: dict[str, Key] = {}
    owners: dict[bytes, str] = {}
    for name, entry in document.items():
        try:
            key = _key(name, entry)
        except ValueError as error:
            raise _wrong(path, f"{name[:64]!r}: {error}") from error
        if (other := owners.setdefault(key.digest, name)) != name:
            raise _wrong(path, f"{name!r} is the same key as {other!r}")
        keys[name] = key
    return keys


def _key(name: str, entry: object) -> Key:
    check_name(name, error=ValueError)
    if not isinstance(entry, Mapping):
        raise ValueError('it must be { sha256 = "…" }')
    if unknown := sorted(set(entry) - _MEMBERS):
        raise ValueError(f"it has {unknown[0]!r}, and may have {', '.join(sorted(_MEMBERS))}")
    digest, created = entry.get("sha256"), entry.get("created")
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise ValueError("sha256 must be 64 lower-case hexadecimal digits")
    if created is not None and not isinstance(created, date):
        raise ValueError("created must be a date")
    admin = entry.get("admin", False)
    if not isinstance(admin, bool):
        raise ValueError("admin must be true or false")
    rate = rate_of(entry.get("rate"), entry.get("burst"))
    return Key(name, bytes.fromhex(digest), rate, created, admin)


def rate_of(per_s: object, burst: object) -> Rate | None:
    """Make the rate limit of a key; None without a rate.

    Raises:
        ValueError: a number is out of range, or there is a burst without a rate.
    """
    if per_s is None:
        if burst is not None:
            raise ValueError("burst needs a rate")
        return None
    steady = _number("rate", per_s)
    if not 0 < steady < math.inf:
        raise ValueError(f"rate must be above 0 images a second; got {steady:g}")
    at_once = max(1.0, steady) if burst is None else _number("burst", burst)
    if not 1 <= at_once < math.inf:
        raise ValueError(f"burst must be at least 1 image; got {at_once:g}")
    return Rate(steady, at_once)


def _number(name: str, value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError(f"{name} must be a number")
    return float(value)


def check_name(name: str, error: type[Exception] | None = None) -> None:
    """Check that a name is safe in the file and in log lines.

    Raises:
        InvalidParameter: the name is not; `error` instead if it is given.
    """
    if NAME.fullmatch(name):
        return
    limit = "1 to 64 letters, digits, - and _"
    raise error(f"its name must be {limit}") if error else InvalidParameter("NAME", name, limit)


def line_of(key: Key) -> str:
    """Format a key as a line of the file."""
    parts = [f'sha256 = "{key.digest.hex()}"']
    if key.rate is not None:
        parts += [f"rate = {key.rate.per_s!r}", f"burst = {key.rate.burst!r}"]
    if key.admin:
        parts.append("admin = true")
    if key.created is not None:
        parts.append(f"created = {key.created.isoformat()}")
    return f"{key.name} = {{ {', '.join(parts)} }}\n"


def _wrong(path: Path, why: str) -> InvalidParameter:
    return InvalidParameter(_PARAMETER, str(path), f"a file of keys that can be read ({why})")
