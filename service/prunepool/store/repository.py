"""What can be served: the models of the store, and folders elsewhere that the operator named."""

from __future__ import annotations

from collections.abc import Iterable

from prunepool.errors import ModelNotFound
from prunepool.store.store import ModelStore


class Repository:
    """Models by name; no name becomes a path.

    Args:
        store: the folder of models; read anew whenever it is asked.
    """

    def __init__(self, store: ModelStore) -> None:
        self._store = store
        self._named: dict[str, str] = {}

    def declare(self, references: Iterable[str]) -> tuple[str, ...]:
        """Let models that the operator names be served, wherever they are.

        Args:
            references: names in the store, or folders with a model.json.

        Returns:
            The name of each, once.

        Raises:
            ModelNotFound: no such model.
            ManifestInvalid: its model.json does not say what it must.
        """
        found = {self._store.open(reference).manifest.name: reference for reference in references}
        self._named.update(found)
        return tuple(found)

    def names(self) -> tuple[str, ...]:
        """Every model that can be opened, sorted."""
        return tuple(sorted({*self._store.names(), *self._named}))

    def reference(self, name: str) -> str:
        """What the store opens a model of that name by: its name, or a folder that was declared.

        Raises:
            ModelNotFound: none of that name.
        """
        names = self.names()
        if name not in names:
            raise ModelNotFound(f"no model named {name[:100]!r} can be served; there are: {', '.join(names)}")
        return self._named.get(name, name)
