"""Fetching files of a model hub, or of its library's cache on this machine."""

from __future__ import annotations

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
    RevisionNotFoundError,
)

from prunepool.errors import HubUnreachable, WeightsInvalid
from prunepool.store.folders import copy_file
from prunepool.store.model import sha256_of

#: The branch that is taken where none is named.
MAIN = "main"
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


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file that was fetched.

    Attributes:
        commit: of the hub's repository.
        cached: whether they are a copy from this machine's cache, because the hub did not answer.
    """

    commit: str
    cached: bool


def fetch(
    hub_id: str, name: str, folder: Path, hub: Hub, *, advice: str, revision: str = MAIN
) -> Fetched | None:
    """Download a file of a repository into a folder, with a progress bar.

    Args:
        hub_id: `owner/name`.
        name: of the file.
        folder: the folder to download into.
        hub: the hub to fetch from.
        advice: what the user can do without the hub, for the message.
        revision: a branch, a tag or a commit.

    Returns:
        What was fetched; None if the repository has no such file.

    Raises:
        HubUnreachable: no answer within the hub's timeout, or no such repository or revision.
        WeightsInvalid: the file is not the one that the hub announced.
        ModelError: the copy in the cache cannot be read.
        OSError: it cannot be written.
    """
    # First one request without retries: the library would retry for half a minute before it gave up.
    try:
        found = get_hf_file_metadata(
            hf_hub_url(hub_id, name, revision=revision, endpoint=hub.endpoint),
            timeout=hub.timeout_s,
            endpoint=hub.endpoint,
            library_name="prunepool",
        )
    except EntryNotFoundError:
        return None
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise HubUnreachable(_absent(hub_id, name, revision, hub, error)) from error
    # Any exception: the library lets those of its HTTP client through, and which client that is may change.
    except Exception as error:
        commit = from_cache(hub_id, name, folder, revision)
        if commit is not None:
            return Fetched(commit, cached=True)
        raise HubUnreachable(f"{_failure(error, hub)}; {advice}") from error
    if found.commit_hash is None or found.etag is None:
        raise HubUnreachable(f"{hub.endpoint} answers, but not as a model hub does (no commit); {advice}")
    _download(hub_id, name, found.commit_hash, folder, hub, advice)
    # The etag of a large file is its sha256; that of a small one is git's hash, which covers more than its bytes.
    if re.fullmatch(r"[0-9a-f]{64}", found.etag):
        digest = sha256_of(folder / name)
        if digest != found.etag:
            raise WeightsInvalid(
                f"{hub_id}: {name} came with sha256 {digest}, but the hub announced {found.etag}"
            )
    return Fetched(found.commit_hash, cached=False)


def _download(hub_id: str, name: str, commit: str, folder: Path, hub: Hub, advice: str) -> None:
    """Download a file of one commit; the library resumes an interrupted download."""
    part = folder / "download"
    try:
        path = hf_hub_download(
            hub_id,
            name,
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
    Path(path).rename(folder / name)
    shutil.rmtree(part)


def from_cache(hub_id: str, name: str, folder: Path, revision: str) -> str | None:
    """Copy a file from the hub library's cache; return its commit, or None if it is not there.

    Raises:
        ModelError: the copy in the cache cannot be read.
    """
    path = try_to_load_from_cache(hub_id, name, revision=revision)
    if not isinstance(path, str):
        return None
    copy_file(Path(path), folder / name)
    return Path(path).parent.name  # …/snapshots/<commit>/<name>


def absent(hub_id: str, name: str, hub: Hub) -> str:
    """Say that a file is not in a repository, for all that one can see without a token."""
    return f"the model hub at {hub.endpoint} has no {hub_id}/{name}, or shows it to a HF_TOKEN only"


def _absent(hub_id: str, name: str, revision: str, hub: Hub, error: Exception) -> str:
    if isinstance(error, GatedRepoError):
        return f"{hub_id} at {hub.endpoint} asks for consent first: give it there, then set HF_TOKEN"
    if isinstance(error, RevisionNotFoundError):
        return f"{hub_id} at {hub.endpoint} has no branch, tag or commit {revision!r}"
    return absent(hub_id, name, hub)


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
