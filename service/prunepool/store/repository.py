"""The models that a server can load: those of the store, and folders that the operator named."""

from __future__ import annotations

from collections.abc import Iterable

from prunepool.errors import ModelNotFound
from prunepool.store.store import ModelStore


class Repository:
    """Models by name. A name from a request is never used as a path.

    Args:
        store: the model store; read again at every call.
    """

    def __init__(self, store: ModelStore) -> None:
        self._store = store
        self._named: dict[str, str] = {}

    def declare(self, references: Iterable[str]) -> tuple[str, ...]:
        """Allow models that the operator names, wherever they are.

        Args:
            references: names in the store, or folders with a model.json.

        Returns:
            Their names, each once.

        Raises:
            ModelNotFound: there is no such model.
            ManifestInvalid: its model.json is invalid.
        """
        found = {self._store.open(reference).manifest.name: reference for reference in references}
        self._named.update(found)
        return tuple(found)

    def names(self) -> tuple[str, ...]:
        """Every model that can be opened, sorted."""
        return tuple(sorted({*self._store.names(), *self._named}))

    def reference(self, name: str) -> str:
        """What to pass to :meth:`ModelStore.open` for a model: its name, or a folder that was declared.

        Raises:
            ModelNotFound: there is no model of that name.
        """
        names = self.names()
        if name not in names:
            raise ModelNotFound(f"no model named {name[:100]!r} can be served; there are: {', '.join(names)}")
        return self._named.get(name, name)
