"""Pull published weights from a model hub into the store."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path

from huggingface_hub import hf_hub_url

from prunepool.errors import HubUnreachable
from prunepool.models.add import WEIGHTS, AddedModel, add_staged
from prunepool.models.add_folder import description_of, to_timms_names
from prunepool.models.catalogue import CatalogueEntry, description_of_entry, look_up
from prunepool.models.hub import MAIN, Fetched, Hub, absent, fetch, from_cache
from prunepool.models.labels import imagenet_labels
from prunepool.models.model_folder import ADAPTER, CARD, CONFIG, PROCESSORS, read_folder
from prunepool.models.weight_files import FILES_OF_WEIGHTS, files_named_by
from prunepool.store import ModelStore

_CHECK = "check the network and, behind a proxy, HTTPS_PROXY, or name a mirror in HF_ENDPOINT"
#: `owner/name`, with a revision or without, as the hub and its libraries spell it.
_REPOSITORY = re.compile(r"(?:hf[-_]hub:)?([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
#: Names of timm's own repositories, whose weights timm describes itself.
_IS_TIMMS = re.compile(r"(?:hf[-_]hub:)?timm/[^@]*$")


def pull(
    store: ModelStore, reference: str, *, hub: Hub, name: str | None = None, replace: bool = False
) -> AddedModel:
    """Fetch a model from the hub and add it to the store.

    Args:
        store: the store to add to.
        reference: timm's name, with or without a tag; without one, timm's default weights. Or a repository,
            `owner/name` or `owner/name@revision`, that holds a folder as transformers or timm save it.
        hub: the hub to fetch from; if it is unreachable, a copy in its library's cache on this machine is used.
        name: of the model in the store; None for its name on the hub.
        replace: whether to replace a model of that name.

    Raises:
        ArchitectureUnsupported: there is no such model, or its tokens cannot be reduced.
        HubUnreachable: the hub does not answer, or does not have the weights; names what to do.
        WeightsInvalid: the file is not the one that the hub announced, or its weights are of another architecture.
        ModelError: the name is taken, or the store cannot be written.
    """
    if (repository := _REPOSITORY.fullmatch(reference)) and not _IS_TIMMS.match(reference):
        owner_and_name, revision = repository.groups()
        return _pull_repository(store, owner_and_name, revision or MAIN, hub=hub, name=name, replace=replace)
    entry = look_up(reference)
    name = name or re.split("[:/]", reference)[-1]
    if not entry.hub_id:
        raise HubUnreachable(f"{entry.full_name} is not on the hub; fetch its weights and use `models add`")
    if not replace:
        store.check_free(name)
    with store.staging() as staged:
        with store.writing():
            fetched = fetch(entry.hub_id, WEIGHTS, staged, hub, advice=_advice(entry, name, hub))
        if fetched is None:
            raise HubUnreachable(absent(entry.hub_id, WEIGHTS, hub))
        added = add_staged(
            store,
            staged,
            dataclasses.replace(
                description_of_entry(entry, name, f"hf-hub:{entry.hub_id}@{fetched.commit}"),
                licence=entry.licence or "unknown",
                labels=imagenet_labels(entry.classes),
            ),
            replace=replace,
        )
    return AddedModel(added.model, (*added.notices, *_of_cache(fetched, hub)))


def _pull_repository(
    store: ModelStore, hub_id: str, revision: str, *, hub: Hub, name: str | None, replace: bool
) -> AddedModel:
    """Fetch a repository's configuration and weights, and add them as a folder."""
    name = name or hub_id.rpartition("/")[2]
    if not replace:
        store.check_free(name)
    with store.staging() as staged:
        with store.writing():
            folder = staged / "repository"
            folder.mkdir()
            fetched = _fetch_repository(hub_id, revision, folder, hub)
        found = read_folder(folder)
        with store.writing():
            notices = to_timms_names(found, staged / WEIGHTS)
            shutil.rmtree(folder)
        description = description_of(found, name, f"hf-hub:{hub_id}@{fetched.commit}")
        added = add_staged(store, staged, description, replace=replace)
    return AddedModel(added.model, (*found.notices, *notices, *added.notices, *_of_cache(fetched, hub)))


def _fetch_repository(hub_id: str, revision: str, folder: Path, hub: Hub) -> Fetched:
    """Fetch what :func:`read_folder` reads, all of one commit.

    Raises:
        HubUnreachable: the repository has no configuration or no weights.
    """
    at = "" if revision == MAIN else f" at {revision}"
    advice = (
        f"{_CHECK}; or fetch the files of {hub.endpoint}/{hub_id}{at} on another machine into a folder and run: "
        "prunepool models add DIR"
    )
    config = fetch(hub_id, CONFIG, folder, hub, advice=advice, revision=revision)
    if config is None:
        raise HubUnreachable(f"{absent(hub_id, CONFIG, hub)}: it says what the weights are")

    def there(name: str) -> bool:
        if config.cached:
            return from_cache(hub_id, name, folder, config.commit) is not None
        return fetch(hub_id, name, folder, hub, advice=advice, revision=config.commit) is not None

    for name in (*PROCESSORS, ADAPTER, CARD):
        there(name)
    weights = next((name for name in FILES_OF_WEIGHTS if there(name)), None)
    if weights is None and not (folder / ADAPTER).is_file():
        raise HubUnreachable(absent(hub_id, FILES_OF_WEIGHTS[0], hub))
    for name in () if weights is None else files_named_by(folder / weights):
        if not there(name):
            raise HubUnreachable(absent(hub_id, name, hub))
    return config


def _of_cache(fetched: Fetched, hub: Hub) -> tuple[str, ...]:
    if not fetched.cached:
        return ()
    return (f"{hub.endpoint} did not answer; the weights are those in this machine's cache of it",)


def _advice(entry: CatalogueEntry, name: str, hub: Hub) -> str:
    url = hf_hub_url(entry.hub_id or "", WEIGHTS, endpoint=hub.endpoint)
    return (
        f"{_CHECK}; or fetch {url} on another machine and run: prunepool models add {WEIGHTS} --name {name} "
        f"--architecture {entry.full_name} --licence {entry.licence or 'unknown'}"
    )
