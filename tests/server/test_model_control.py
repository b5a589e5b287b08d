"""What callers and the settings make of the models that are served."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from prunepool.errors import ModelNotFound, PrunepoolError, RequestError, WeightsInvalid
from prunepool.server.model_control import Control
from prunepool.store import ModelStore, Repository


class Models:
    """Remembers what became of it."""

    def __init__(self, *names: str) -> None:
        self.names = list(names)
        self.loaded: list[str] = []
        self.default = names[0] if names else ""
        self.error: PrunepoolError | None = None
        self.broken = ""

    def served(self) -> tuple[str, ...]:
        return tuple(self.names)

    async def load(self, reference: str) -> bool:
        await asyncio.sleep(0)
        if reference == self.broken:
            raise WeightsInvalid(f"the weights of {reference} have changed")
        self.loaded.append(reference)
        name = Path(reference).name
        if name not in self.names:
            self.names.append(name)
        return True

    async def unload(self, name: str) -> None:
        await asyncio.sleep(0)
        if name not in self.names:
            raise ModelNotFound(f"no model named {name}")
        if name == self.default:
            raise RequestError("the default")
        self.names.remove(name)

    async def prefer(self, name: str) -> None:
        self.default = name


@pytest.fixture
def folder(root: Path, tmp_path: Path) -> Path:
    """A store of the models a, b and c, and one outside of it."""
    manifest = json.loads((root / "model_store/deit_tiny_imagenette/model.json").read_text())
    for place in ("store/a", "store/b", "store/c", "outside"):
        path = tmp_path / place
        path.mkdir(parents=True)
        (path / "model.json").write_text(json.dumps({**manifest, "name": path.name}))
    return tmp_path


@pytest.fixture
def repository(folder: Path) -> Repository:
    return Repository(ModelStore(folder / "store"))


async def test_a_model_of_the_store_is_loaded_by_name(repository: Repository) -> None:
    models = Models("a")
    control = Control(models, repository, ["a"])
    assert control.loadable() == ("a", "b", "c")
    await control.load("b")
    assert models.served() == ("a", "b")
    await control.unload("b")
    assert models.served() == ("a",)


@pytest.mark.parametrize("name", ["nope", "../outside", "/etc", "", "."])
async def test_no_name_becomes_a_path(repository: Repository, name: str) -> None:
    models = Models("a")
    with pytest.raises(ModelNotFound, match="there are: a, b, c"):
        await Control(models, repository, ["a"]).load(name)
    assert not models.loaded


async def test_a_folder_that_the_settings_name_is_known_by_its_name(
    repository: Repository, folder: Path
) -> None:
    models = Models("outside")
    outside = str(folder / "outside")
    control = Control(models, repository, [outside])
    await control.load("outside")
    assert models.loaded == [outside]


async def test_settings_that_name_other_models_are_followed(repository: Repository) -> None:
    models = Models("a", "b")
    control = Control(models, repository, ["a", "b"])
    await control.follow(["c", "a"])
    assert (sorted(models.served()), models.default) == (["a", "c"], "c")


async def test_what_callers_loaded_stays_and_is_looked_at_anew(repository: Repository) -> None:
    models = Models("a")
    control = Control(models, repository, ["a"])
    await control.load("b")
    models.loaded.clear()
    await control.follow(["a"])
    assert models.loaded == ["a", "b"]
    assert models.served() == ("a", "b")


async def test_one_that_cannot_be_served_does_not_keep_others_from_it(repository: Repository) -> None:
    models = Models("a")
    models.broken = "b"
    control = Control(models, repository, ["a"])
    await control.follow(["a", "b", "c"])
    assert models.served() == ("a", "c")


async def test_settings_that_name_nothing_that_is_there_change_nothing(repository: Repository) -> None:
    models = Models("a", "b")
    control = Control(models, repository, ["a", "b"])
    await control.follow(["nope"])
    assert (models.served(), models.default, models.loaded) == (("a", "b"), "a", [])


async def test_changes_wait_for_each_other(repository: Repository) -> None:
    models = Models("a")
    order: list[Any] = []
    load, unload = models.load, models.unload

    async def slow(reference: str) -> bool:
        order.append("load")
        done = await load(reference)
        order.append("loaded")
        return done

    async def noted(name: str) -> None:
        order.append("unload")
        await unload(name)

    models.load, models.unload = slow, noted  # type: ignore[method-assign]
    control = Control(models, repository, ["a"])
    await asyncio.gather(control.load("b"), control.unload("b"))
    assert order == ["load", "loaded", "unload"]
