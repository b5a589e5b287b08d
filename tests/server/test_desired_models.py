"""What callers and the settings make of the models that are served."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from prunepool.errors import EngineUnavailable, ModelNotFound, RequestError, WeightsInvalid
from prunepool.server.desired_models import DesiredModels
from prunepool.server.pinned_models import PinnedModels, open_pinned
from prunepool.store import Manifest, ModelStore, Repository


class Engine:
    """An engine that remembers what became of it.

    Attributes:
        up: whether it serves.
        broken: a reference that it cannot load.
        dies: whether it ends at the next call.
        uncommittable: raised by the next commit.
        unloadable: raised by every unload.
        log: every call.
        failures: what it was told of models that it could not load.
        current: whether it serves these very generations already.
    """

    def __init__(self, *names: str) -> None:
        self.up = True
        self.names = list(names)
        self.default = names[0] if names else ""
        self.prepared: list[str] = []
        self.broken = ""
        self.dies = False
        self.uncommittable: Exception | None = None
        self.unloadable: Exception | None = None
        self.log: list[tuple[str, str]] = []
        self.failures: dict[str, str] = {}
        self.current = False

    async def served(self) -> list[str]:
        return list(self.names)

    async def prepare(self, reference: str) -> bool:
        await self._called("prepare", reference)
        if self.broken in (reference, Path(reference).name):
            raise WeightsInvalid(f"the weights of {reference} have changed")
        if self.current:
            return False
        self.prepared.append(Path(reference).name)
        return True

    async def commit(self, name: str) -> None:
        await self._called("commit", name)
        if self.uncommittable is not None:
            error, self.uncommittable = self.uncommittable, None
            self.prepared.clear()
            raise error
        self.prepared.remove(name)
        if name not in self.names:
            self.names.append(name)

    async def abort(self, name: str) -> None:
        await self._called("abort", name)
        if name in self.prepared:
            self.prepared.remove(name)

    async def unload(self, name: str) -> None:
        await self._called("unload", name)
        if self.unloadable is not None:
            raise self.unloadable
        self.names.remove(name)

    async def set_default(self, name: str) -> None:
        await self._called("set_default", name)
        if name not in self.names and name not in self.failures:
            raise ModelNotFound(f"no model named {name}")
        self.default = name

    async def note_failure(self, name: str, why: str) -> None:
        self.failures[name] = why

    async def _called(self, method: str, name: str) -> None:
        await asyncio.sleep(0)
        self.log.append((method, name))
        if self.dies:
            self.up, self.dies = False, False
            raise EngineUnavailable("the process that was asked has ended", retry_after=1.0)


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
    engine = Engine("a")
    models = DesiredModels([engine], repository, ["a"])
    assert models.loadable() == ("a", "b", "c")
    await models.load("b")
    assert (engine.names, models.names()) == (["a", "b"], ("a", "b"))
    await models.unload("b")
    assert (engine.names, models.names()) == (["a"], ("a",))


@pytest.mark.parametrize("name", ["nope", "../outside", "/etc", "", "."])
async def test_no_name_becomes_a_path(repository: Repository, name: str) -> None:
    engine = Engine("a")
    with pytest.raises(ModelNotFound, match="there are: a, b, c"):
        await DesiredModels([engine], repository, ["a"]).load(name)
    assert not engine.log


async def test_a_folder_that_the_settings_name_is_known_by_its_name(
    repository: Repository, folder: Path
) -> None:
    engine = Engine("outside")
    outside = str(folder / "outside")
    models = DesiredModels([engine], repository, [outside])
    await models.load("outside")
    assert engine.log == [("prepare", outside), ("commit", "outside")]
    assert models.references == (outside,)


async def test_settings_that_name_other_models_are_followed(repository: Repository) -> None:
    engine = Engine("a", "b")
    models = DesiredModels([engine], repository, ["a", "b"])
    await models.follow(["c", "a"])
    assert (sorted(engine.names), engine.default) == (["a", "c"], "c")
    assert models.references == ("c", "a")


async def test_what_callers_loaded_stays_and_is_looked_at_anew(repository: Repository) -> None:
    engine = Engine("a")
    models = DesiredModels([engine], repository, ["a"])
    await models.load("b")
    engine.log.clear()
    await models.follow(["a"])
    assert [name for method, name in engine.log if method == "prepare"] == ["a", "b"]
    assert models.names() == ("a", "b")


async def test_one_that_cannot_be_served_does_not_keep_others_from_it(repository: Repository) -> None:
    engine = Engine("a")
    engine.broken = "b"
    models = DesiredModels([engine], repository, ["a"])
    await models.follow(["a", "b", "c"])
    assert (models.names(), engine.names) == (("a", "c"), ["a", "c"])


async def test_settings_that_name_nothing_that_is_there_change_nothing(repository: Repository) -> None:
    engine = Engine("a", "b")
    models = DesiredModels([engine], repository, ["a", "b"])
    await models.follow(["nope"])
    assert (models.names(), engine.default, engine.log) == (("a", "b"), "a", [])


async def test_changes_wait_for_each_other(repository: Repository) -> None:
    engine = Engine("a")
    models = DesiredModels([engine], repository, ["a"])
    await asyncio.gather(models.load("b"), models.unload("b"))
    assert engine.log == [("prepare", "b"), ("commit", "b"), ("unload", "b")]


async def test_a_load_that_fails_on_one_engine_changes_none(repository: Repository) -> None:
    engines = [Engine("a"), Engine("a"), Engine("a")]
    engines[1].broken = "b"
    models = DesiredModels(engines, repository, ["a"])
    with pytest.raises(WeightsInvalid):
        await models.load("b")
    assert [engine.names for engine in engines] == [["a"]] * 3
    assert not any(engine.prepared for engine in engines)
    assert models.names() == ("a",)


async def test_an_engine_that_dies_meanwhile_keeps_no_other_from_the_change(repository: Repository) -> None:
    engines = [Engine("a"), Engine("a")]
    engines[0].dies = True
    models = DesiredModels(engines, repository, ["a"])
    await models.load("b")
    assert engines[1].names == ["a", "b"]
    assert models.references == ("a", "b")


async def test_an_engine_that_is_not_there_converges_when_it_is_back(repository: Repository) -> None:
    there, away = Engine("a", "b"), Engine("a", "b")
    models = DesiredModels([there, away], repository, ["a", "b"])
    away.up = False
    await models.load("c")
    await models.unload("b")
    await models.follow(["c", "a"])
    assert not away.log
    away.up = True
    await models.converge(away)
    assert (sorted(away.names), away.default) == (sorted(there.names), there.default)


async def test_one_that_an_engine_cannot_load_keeps_it_from_no_other(repository: Repository) -> None:
    engine = Engine("a")
    models = DesiredModels([engine], repository, ["a", "b", "c"])
    engine.broken = "b"
    await models.converge(engine)
    assert (engine.names, engine.failures) == (["a", "c"], {"b": "the weights of b have changed"})


async def test_without_an_engine_nothing_is_changed(repository: Repository) -> None:
    engine = Engine("a", "b")
    engine.up = False
    models = DesiredModels([engine], repository, ["a", "b"])
    for change in (models.load("c"), models.unload("b")):
        with pytest.raises(EngineUnavailable):
            await change
    assert models.names() == ("a", "b")


async def test_the_default_cannot_be_unloaded_nor_what_is_not_served(repository: Repository) -> None:
    models = DesiredModels([Engine("a")], repository, ["a"])
    with pytest.raises(RequestError, match="a answers requests that name no model"):
        await models.unload("a")
    with pytest.raises(ModelNotFound, match="there are: a"):
        await models.unload("b")


async def test_every_change_is_told_before_it_counts_as_done(repository: Repository) -> None:
    told: list[tuple[str, ...]] = []

    async def note() -> None:
        told.append(models.names())

    models = DesiredModels([Engine("a")], repository, ["a"], note)
    await models.load("b")
    await models.unload("b")
    assert told == [("a", "b"), ("a",)]


async def test_what_an_engine_does_not_serve_can_be_unloaded(repository: Repository) -> None:
    """It could not load it when it started."""
    there, lacking = Engine("a", "b"), Engine("a")
    lacking.unloadable = ModelNotFound("no model named b")
    models = DesiredModels([lacking, there], repository, ["a", "b"])
    await models.unload("b")
    assert (there.names, models.names()) == (["a"], ("a",))


async def test_an_engine_that_cannot_commit_converges_and_the_others_commit(repository: Repository) -> None:
    """It restarted between the two steps, and its successor has prepared nothing."""
    engines = [Engine("a"), Engine("a"), Engine("a")]
    engines[1].uncommittable = ModelNotFound("no model named b is prepared")
    models = DesiredModels(engines, repository, ["a"])
    await models.load("b")
    assert [engine.names for engine in engines] == [["a", "b"]] * 3


async def test_what_could_not_be_unloaded_is_tried_again(repository: Repository) -> None:
    engine = Engine("a", "b")
    engine.broken = "c"
    models = DesiredModels([engine], repository, ["a", "b"])
    await models.follow(["c"])  # c cannot be loaded, so a stays the default, and cannot be unloaded
    assert engine.names == ["a"]
    engine.broken = ""
    await models.follow(["c"])
    assert (engine.names, engine.default) == (["c"], "c")


async def test_the_default_is_one_for_all_engines(repository: Repository) -> None:
    engines = [Engine("a", "b"), Engine("a")]  # the second could not load b
    models = DesiredModels(engines, repository, ["a", "b"])
    await models.follow(["b", "a"])
    assert [engine.default for engine in engines] == ["b", "b"]
    assert models.references[0] == "b"


async def test_settings_are_followed_also_where_no_engine_can_start(repository: Repository) -> None:
    """The default model is broken, so no engine comes up with it: the next one gets another."""
    engine = Engine("a")
    models = DesiredModels([engine], repository, ["a", "b"])
    engine.up = False
    await models.follow(["c", "b"])
    assert (models.references, models.names()) == (("c", "b"), ("b", "c"))
    assert not engine.log


async def test_an_engine_that_is_being_started_is_asked_nothing(repository: Repository) -> None:
    failing, starting = Engine("a"), Engine("a")
    failing.broken, starting.up = "b", False
    models = DesiredModels([failing, starting], repository, ["a"])
    with pytest.raises(WeightsInvalid):
        await models.load("b")
    assert failing.log == [("prepare", "b"), ("abort", "b")]
    assert not starting.log


def renamed(folder: Path, labels: str) -> None:
    """Replace a model in the store by another of its name."""
    manifest = json.loads((folder / "model.json").read_text())
    manifest["labels"] = [f"{labels} {i}" for i in range(len(manifest["labels"]))]
    (folder / "draft").write_text(json.dumps(manifest))
    (folder / "draft").rename(folder / "model.json")


async def test_an_engine_that_starts_later_gets_the_version_that_is_wanted(
    repository: Repository, folder: Path
) -> None:
    """A model whose files are replaced or removed is another one only after a reload, and then for all engines."""
    store = ModelStore(folder / "store")
    pins = PinnedModels(folder / "models", store)
    models = DesiredModels([Engine("a", "b")], repository, ["a", "b"], pins=pins)

    def wanted(name: str) -> Manifest:
        (reference,) = (one for one in models.references if Path(one).name == name)
        return open_pinned(folder / "models", store, reference).manifest

    before = wanted("a")
    renamed(folder / "store/a", "new")
    (folder / "store/b/model.json").unlink()
    assert (wanted("a"), wanted("b").name) == (before, "b")
    await models.load("a")
    assert wanted("a").labels[0] == "new 0"
    with pytest.raises(ModelNotFound):
        await models.load("b")
    assert wanted("b").name == "b"
    assert len(list((folder / "models").iterdir())) == 2


async def test_a_reload_of_what_is_served_keeps_the_files_that_were_right(
    repository: Repository, folder: Path
) -> None:
    """Its weights are being replaced: an engine that starts now would have none, or others."""
    pins = PinnedModels(folder / "models", ModelStore(folder / "store"))
    weights = folder / "store/a/model.safetensors"
    weights.write_bytes(b"weights")
    engine = Engine("a")
    models = DesiredModels([engine], repository, ["a"], pins=pins)
    before = models.references
    weights.unlink()
    engine.current = True
    await models.follow(["a"])
    assert models.references == before
    assert (Path(before[0]) / weights.name).read_bytes() == b"weights"
    engine.current = False
    weights.write_bytes(b"the same, mended")
    await models.load("a")
    assert models.references != before


async def test_files_of_a_version_that_failed_are_let_go_of(repository: Repository, folder: Path) -> None:
    """They are open: removed from the store, they would still take their room on the disk."""
    pins = PinnedModels(folder / "models", ModelStore(folder / "store"))
    engine = Engine("a")
    models = DesiredModels([engine], repository, ["a"], pins=pins)
    engine.broken = "b"
    with pytest.raises(WeightsInvalid):
        await models.load("b")
    assert [path.name for path in (folder / "models").glob("*/*")] == ["a"]


async def test_files_of_what_is_not_wanted_are_let_go_of_once_all_engines_are_back(
    repository: Repository, folder: Path
) -> None:
    pins = PinnedModels(folder / "models", ModelStore(folder / "store"))
    running, starting = Engine("a", "b"), Engine("a", "b")
    models = DesiredModels([running, starting], repository, ["a", "b"], pins=pins)
    starting.up = False
    await models.unload("b")
    assert {path.name for path in (folder / "models").glob("*/*")} == {"a", "b"}  # it may open them yet
    running.up = False
    await models.converge(starting)
    assert {path.name for path in (folder / "models").glob("*/*")} == {"a", "b"}  # so may another
    starting.up = True
    await models.converge(running)
    assert [path.name for path in (folder / "models").glob("*/*")] == ["a"]
