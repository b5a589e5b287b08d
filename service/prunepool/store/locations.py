"""The default location of the model store, and the packaged models."""

from __future__ import annotations

from pathlib import Path

from platformdirs import user_data_path

from prunepool.store.store import ModelStore

#: The models that a wheel contains. In a checkout these are links into `model_store/`.
PACKAGED = Path(__file__).parents[1] / "packaged_models"

#: The store of a working directory.
LOCAL = Path("model_store")


def open_store(folder: Path | str | None = None) -> ModelStore:
    """The model store.

    Args:
        folder: the setting `model_store`: that folder and no other. None for `model_store` in the working
            directory if it exists, else for a folder in the user's data (`XDG_DATA_HOME`), either with the
            packaged models behind it.
    """
    if folder is not None:
        return ModelStore(folder)
    root = LOCAL if LOCAL.is_dir() else user_data_path("prunepool", appauthor=False) / "models"
    return ModelStore(root, packaged=PACKAGED)
