"""Pull published weights from a model hub into the store."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import (
    constants,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from prunepool.errors import HubUnreachable, WeightsInvalid
from prunepool.models.add import WEIGHTS, AddedModel, add_staged
from prunepool.models.catalogue import CatalogueEntry, description_of_entry, look_up
from prunepool.models.labels import imagenet_labels
from prunepool.store import ModelStore
from prunepool.store.folders import copy_file
from prunepool.store.model import sha256_of

#: Seconds to wait for the first response of the hub, unless HF_HUB_ETAG_TIMEOUT is set.
TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Hub:
    """A hub where weights are published.

    Attributes:
        endpoint: its address; HF_ENDPOINT, or the default of the hub library.
        timeout_s: seconds to wait for its first response.
    """

    endpoint: str
    timeout_s: float = TIMEOUT_S

    @classmethod
    def from_environment(cls) -> Hub:
        """The hub that the environment names now, not when the library was imported."""
        endpoint = os.environ.get("HF_ENDPOINT") or constants.ENDPOINT
        timeout = os.environ.get("HF_HUB_ETAG_TIMEOUT")
        return cls(endpoint.rstrip("/"), float(timeout) if timeout else TIMEOUT_S)


def pull(
    store: ModelStore, timm_name: str, *, hub: Hub, name: str | None = None, replace: bool = False
) -> AddedModel:
    """Fetch a model's weights from the hub and add them to the store.

    Args:
        store: the store to add to.
        timm_name: timm's name, with or without a tag; without one, timm's default weights.
        hub: the hub to fetch from; if it is unreachable, a copy in its library's cache on this machine is used.
        name: of the model in the store; None for `timm_name`.
        replace: whether to replace a model of that name.

    Raises:
        ArchitectureUnsupported: timm has no such model, or its tokens cannot be reduced.
        HubUnreachable: the hub does not answer, or does not have the weights; names what to do.
        WeightsInvalid: the file is not the one that the hub announced, or its weights are of another architecture.
        ModelError: the name is taken, or the store cannot be written.
    """
    entry = look_up(timm_name)
    name = name or re.split("[:/]", timm_name)[-1]
    if not entry.hub_id:
        raise HubUnreachable(f"{entry.full_name} is not on the hub; fetch its weights and use `models add`")
    if not replace:
        store.check_free(name)
    with store.staging() as staged:
        with store.writing():
            fetched = fetch(entry.hub_id, staged, hub, advice=_advice(entry, name, hub))
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
    notices = list(added.notices)
    if fetched.cached:
        notices.append(f"{hub.endpoint} did not answer; the weights are those in this machine's cache of it")
    return AddedModel(added.model, tuple(notices))


@dataclass(frozen=True, slots=True)
class Fetched:
    """Weights that were fetched.

    Attributes:
        commit: of the hub's repository.
        cached: whether they are a copy from this machine's cache, because the hub did not answer.
    """

    commit: str
    cached: bool


def fetch(hub_id: str, folder: Path, hub: Hub, *, advice: str) -> Fetched:
    """Download a repository's `model.safetensors` into a folder, with a progress bar.

    Args:
        hub_id: `owner/name`.
        folder: the folder to download into.
        hub: the hub to fetch from.
        advice: what the user can do without the hub, for the message.

    Raises:
        HubUnreachable: no answer within the hub's timeout, or no such file.
        WeightsInvalid: the file is not the one that the hub announced.
        ModelError: the copy in the cache cannot be read.
        OSError: it cannot be written.
    """
    # First one request without retries: the library would retry for half a minute before it gave up.
    try:
        found = get_hf_file_metadata(
            hf_hub_url(hub_id, WEIGHTS, endpoint=hub.endpoint),
            timeout=hub.timeout_s,
            endpoint=hub.endpoint,
            library_name="prunepool",
        )
    except (RepositoryNotFoundError, EntryNotFoundError) as error:
        raise HubUnreachable(_absent(hub_id, hub, error)) from error
    # Any exception: the library lets those of its HTTP client through, and which client that is may change.
    except Exception as error:
        commit = _from_cache(hub_id, folder)
        if commit is not None:
            return Fetched(commit, cached=True)
        raise HubUnreachable(f"{_failure(error, hub)}; {advice}") from error
    if found.commit_hash is None or found.etag is None:
        raise HubUnreachable(f"{hub.endpoint} answers, but not as a model hub does (no commit); {advice}")
    _download(hub_id, found.commit_hash, folder, hub, advice)
    # The etag of a large file is its sha256; that of a small one is git's hash, which covers more than its bytes.
    if re.fullmatch(r"[0-9a-f]{64}", found.etag):
        digest = sha256_of(folder / WEIGHTS)
        if digest != found.etag:
            raise WeightsInvalid(
                f"{hub_id}: {WEIGHTS} came with sha256 {digest}, but the hub announced {found.etag}"
            )
    return Fetched(found.commit_hash, cached=False)


def _download(hub_id: str, commit: str, folder: Path, hub: Hub, advice: str) -> None:
    """Download the weights of one commit; the library resumes an interrupted download."""
    part = folder / "download"
    try:
        path = hf_hub_download(
            hub_id,
            WEIGHTS,
            revision=commit,
            local_dir=part,
            endpoint=hub.endpoint,
            etag_timeout=hub.timeout_s,
            library_name="prunepool",
        )
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk, not the hub
        raise HubUnreachable(
            f"the download from {hub.endpoint} broke off ({_cause(error)}); {advice}"
        ) from error
    Path(path).rename(folder / WEIGHTS)
    shutil.rmtree(part)


def _from_cache(hub_id: str, folder: Path) -> str | None:
    """Copy the weights from the hub library's cache; return their commit, or None if they are not there."""
    path = try_to_load_from_cache(hub_id, WEIGHTS)
    if not isinstance(path, str):
        return None
    copy_file(Path(path), folder / WEIGHTS)
    return Path(path).parent.name  # …/snapshots/<commit>/model.safetensors


def _advice(entry: CatalogueEntry, name: str, hub: Hub) -> str:
    url = hf_hub_url(entry.hub_id or "", WEIGHTS, endpoint=hub.endpoint)
    return (
        "check the network and, behind a proxy, HTTPS_PROXY, or name a mirror in HF_ENDPOINT; or fetch "
        f"{url} on another machine and run: prunepool models add {WEIGHTS} --name {name} "
        f"--architecture {entry.full_name} --licence {entry.licence or 'unknown'}"
    )


def _absent(hub_id: str, hub: Hub, error: Exception) -> str:
    if isinstance(error, GatedRepoError):
        return f"{hub_id} at {hub.endpoint} asks for consent first: give it there, then set HF_TOKEN"
    return f"the model hub at {hub.endpoint} has no {hub_id}/{WEIGHTS}, or shows it to a HF_TOKEN only"


def _failure(error: Exception, hub: Hub) -> str:
    """Describe how the first request to the hub failed."""
    if isinstance(error, HfHubHTTPError):
        return f"the model hub at {hub.endpoint} answers with status {error.response.status_code}"
    return f"no answer from the model hub at {hub.endpoint} ({_cause(error)})"


def _cause(error: Exception) -> str:
    """Describe an exception of the hub's library in one line."""
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set"
    words = " ".join(str(error).split())
    shown = words if len(words) <= 200 else words[:200] + "…"
    return f"{type(error).__name__}: {shown}" if shown else type(error).__name__
