"""Hidden folders that changes of a store use, and their clean-up if a process dies.

.staging-…         a model being prepared, or one that was just replaced; locked while its process is alive
.replaced-NAME-…   a model between the two steps of a replacement, see :mod:`prunepool.store.replacement`
.trash-…           a removed model that is being deleted
NAME/.model.json.… a manifest that is being written
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TOKEN = "-[0-9a-f]{16}"  # noqa: S105 - no secret
_STAGING = re.compile(r"\.staging" + _TOKEN)
_TRASH = re.compile(r"\.trash" + _TOKEN)
_DRAFT = re.compile(r"\.model\.json\.[0-9a-f]{8}")
_REPLACED = re.compile(r"\.replaced-(?P<name>.+)" + _TOKEN)
#: A manifest is written in much less.
_WRITTEN_S = 3600.0

log = logging.getLogger(__name__)


def trash(root: Path) -> Path:
    """A new path for a model that is being deleted."""
    return root / f".trash-{secrets.token_hex(8)}"


def replaced(target: Path) -> Path:
    """A new path for a model that is being replaced."""
    return target.with_name(f".replaced-{target.name}-{secrets.token_hex(8)}")


@contextmanager
def staging(root: Path) -> Iterator[Path]:
    """A new folder, locked while it is in use; whatever has its path at the end is deleted.

    Raises:
        OSError: it cannot be created.
    """
    while True:
        folder = root / f".staging-{secrets.token_hex(8)}"
        folder.mkdir(parents=True)
        try:
            handle = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            continue  # deleted by another process as a leftover, before it was locked
        if _lock(handle) is not False and folder.exists():
            break
        os.close(handle)
    try:
        yield folder
    finally:
        discard(folder)
        os.close(handle)


def clean(root: Path) -> None:
    """Delete the leftovers of dead processes; a model that was being replaced is restored.

    A leftover that cannot be deleted is logged: it only takes up space.
    """
    try:
        paths = tuple(root.iterdir())
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return  # the store does not exist or cannot be read; the change itself raises the error
    for path in paths:
        if _STAGING.fullmatch(path.name):
            _discard_abandoned(path)
        elif _TRASH.fullmatch(path.name):
            discard(path)
        elif match := _REPLACED.fullmatch(path.name):
            _restore(path, root / match["name"])
        else:
            _discard_drafts(path)


def delete(path: Path) -> None:
    """Delete a folder or a file, or a link but not its target; it may be deleted by others at the same time."""
    while os.path.lexists(path):
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        except FileNotFoundError:
            continue


def _lock(handle: int) -> bool | None:
    """Lock a folder; False if another process has it, None on a file system without locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _discard_abandoned(folder: Path) -> None:
    """Delete a staging folder unless its process is alive, or may be because the file system has no locks."""
    if folder.is_symlink():  # a link that was replaced; if its process is alive, it deletes the link itself
        discard(folder)
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        if _lock(handle):
            discard(folder)
    finally:
        os.close(handle)


def discard(path: Path) -> None:
    """Delete a path; if it cannot be deleted, log why."""
    try:
        delete(path)
    except OSError as error:
        log.warning("%s: a leftover that cannot be deleted (%s)", path, error.strerror or error)


def _discard_drafts(model: Path) -> None:
    """Delete manifests that were never moved into place; one that is being written is younger."""
    try:
        drafts = [path for path in model.glob(".model.json.*") if _DRAFT.fullmatch(path.name)]
        old = [path for path in drafts if time.time() - path.stat().st_mtime > _WRITTEN_S]
    except OSError:  # it is being removed, or cannot be read
        return
    for path in old:
        discard(path)


def _restore(path: Path, target: Path) -> None:
    """Move a model that was being replaced back to its place, or delete it if the place is taken."""
    if os.path.lexists(target):
        discard(path)
        return
    try:
        path.rename(target)
    except OSError as error:
        log.warning("%s: cannot be moved back to %s (%s)", path, target, error.strerror or error)
