"""Options of a network from a configuration that somebody else wrote."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError

from prunepool.errors import ManifestInvalid
from prunepool.store import NetworkOptions
from prunepool.store.manifest_file import explain


def checked_options(values: Mapping[str, object], source: str) -> NetworkOptions:
    """The options of these values.

    Raises:
        ManifestInvalid: a value is not allowed; one line with the source, key and value.
    """
    try:
        return NetworkOptions.model_validate(dict(values))
    except ValidationError as error:
        raise ManifestInvalid(f"{source}: {explain(error)}") from error
