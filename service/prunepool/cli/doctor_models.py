"""What `prunepool doctor` looks at in the store, and where a server would listen."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from prunepool.access import KeysFile
from prunepool.cli.finding import Finding
from prunepool.errors import ModelNotFound, PrunepoolError
from prunepool.extras import has_torch
from prunepool.settings import Settings
from prunepool.store import ModelStore, open_store
from prunepool.store.folders import exists, what_is_at


def of_models(settings: Settings) -> Iterator[Finding]:
    """Look at the store, at each model in it, and at what is kept of them."""
    store = open_store(settings.model_store)
    try:
        names = store.names()
    except PrunepoolError as error:
        yield Finding(
            "problem", "store", error.detail, "make the folder readable, or name another --model-store"
        )
        return
    if not names:
        why = "it is empty" if exists(store.root, Path.is_dir) else what_is_at(store.root)
        yield Finding(
            "problem", "store", f"{store.root}: {why}", "`prunepool models add`, or another --model-store"
        )
    else:
        yield Finding("ok", "store", f"{store.root}, {len(names)} models with the packaged ones")
    for name in names:
        yield _model(store, name, served=name in settings.model_references)
    for name in settings.model_references:
        if name not in names:
            yield _model(store, name, served=True)
    yield _kept(settings)


def _model(store: ModelStore, name: str, *, served: bool) -> Finding:
    """Read all of a model's files, as `prunepool models verify` does."""
    what = f"model {name}"
    try:
        model = store.verify(name)
    except ModelNotFound as error:
        advice = "`prunepool models add` or `models pull` it, or name another with --model"
        return Finding("problem", what, error.detail, advice)
    except PrunepoolError as error:
        advice = (
            "add or pull it again with --force" if served else "it is not served; remove it, or add it again"
        )
        return Finding("problem" if served else "warning", what, error.detail, advice)
    except OSError as error:
        return Finding("problem" if served else "warning", what, str(error), "make its files readable")
    compiled = model.manifest.compiled
    formats = "not compiled" if compiled is None else f"compiled in {', '.join(compiled.formats)}"
    found = f"its checksums are right, {formats}"
    if compiled is None and not has_torch() and served:
        return Finding(
            "problem", what, found, 'pip install "prunepool[torch]", then `prunepool models compile`'
        )
    return Finding("ok", what, found)


def _kept(settings: Settings) -> Finding:
    """Whether what is converted and measured at start can be kept for the next one."""
    from prunepool.server.factory import openvino_folder

    folder = openvino_folder(settings)
    there = next(one for one in (folder, *folder.parents) if exists(one, Path.exists))
    if os.access(there, os.W_OK | os.X_OK):
        return Finding("ok", "conversions", f"kept in {folder}")
    advice = (
        "each start measures and converts anew: set cpu_openvino_folder to a folder that can be written to"
    )
    return Finding("warning", "conversions", f"{folder} cannot be written to", advice)


def _keys(path: Path) -> Finding:
    """Whether the file of API keys can be read, by this user."""
    try:
        keys = KeysFile(path).read()
    except PrunepoolError as error:
        return Finding(
            "problem", "API keys", error.detail, "let this user read it; `prunepool keys create` makes one"
        )
    return Finding("ok", "API keys", f"{len(keys)} in {path}")


def of_ports(settings: Settings) -> Iterator[Finding]:
    """Take each port that a server would take, and let go of it."""
    from prunepool.api.listening import CannotListen, claim
    from prunepool.server.settings_check import check

    try:
        check(settings)
    except (PrunepoolError, CannotListen) as error:
        said = error.detail if isinstance(error, PrunepoolError) else str(error)
        yield Finding("problem", "settings", said, "see docs/configuration.md")
    if settings.api_keys_file is not None:
        yield _keys(settings.api_keys_file)
    for what, port in (("port", settings.port), ("gRPC port", settings.grpc_port)):
        if port is None:
            continue
        try:
            with claim(settings.host, port) as taken:
                yield Finding("ok", what, f"{settings.host}:{taken.port} is free")
        except CannotListen as error:
            yield Finding("problem", what, str(error), "stop what listens there, or choose another port")
