"""Moving a prepared folder to its place in a store, with or without replacing the model there."""

from __future__ import annotations

import errno
from contextlib import suppress
from pathlib import Path

from prunepool.errors import ModelError
from prunepool.store import hidden
from prunepool.store.exchange import exchange

_OCCUPIED = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)


def move(staged: Path, target: Path) -> bool:
    """Move a folder to a free place.

    Returns:
        False if the place is taken.

    Raises:
        OSError: it cannot be moved for another reason.
    """
    try:
        staged.rename(target)
    except OSError as error:
        if error.errno not in _OCCUPIED:
            raise
        return False
    return True


def replace(staged: Path, target: Path) -> bool:
    """Move a folder to its place. The previous model ends up at the folder's old path, or deleted.

    One step if the file system can exchange two folders, as Linux's own can: readers find the old or the new model
    at any time. Otherwise (NFS, other systems) two steps: between them readers find no model.

    Returns:
        False if another writer took the place between two steps.

    Raises:
        ModelError: it cannot be moved, and the previous model cannot be moved back; names where that is kept.
        OSError: it cannot be moved; the previous model is unchanged.
    """
    try:
        if exchange(staged, target):
            return True
    except FileNotFoundError:  # nothing to replace
        return move(staged, target)
    return replace_in_two_steps(staged, target)


def replace_in_two_steps(staged: Path, target: Path) -> bool:
    """:func:`replace` without an exchange. The previous model is deleted only after the move succeeded."""
    aside = hidden.replaced(target)
    with suppress(FileNotFoundError):
        target.rename(aside)
    try:
        moved = move(staged, target)
    except OSError as error:
        try:
            aside.rename(target)
        except FileNotFoundError:
            pass
        except OSError as second:
            raise ModelError(
                f"cannot move {staged} to {target} ({error.strerror or error}); the previous model is kept as "
                f"{aside}, because it cannot be moved back ({second.strerror or second}); the next change of the "
                "store tries again"
            ) from error
        raise
    hidden.discard(aside)  # superseded: by this folder, or by that of another writer
    return moved
