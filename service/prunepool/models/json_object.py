"""Reading a configuration: a JSON object in a file that somebody else wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prunepool.errors import ManifestInvalid
from prunepool.files import NotUtf8, read_text

_LONGEST_FILE = 64 << 20


def read_object(path: Path) -> Mapping[str, Any]:
    """A JSON object of a file.

    Raises:
        ManifestInvalid: it is none.
    """
    try:
        document = json.loads(read_text(path, _LONGEST_FILE))
    except OSError as error:
        raise ManifestInvalid(f"{path}: cannot be read ({error.strerror or error})") from error
    except NotUtf8 as error:
        raise ManifestInvalid(f"{path}: is not UTF-8 text; {error}") from None
    except (ValueError, RecursionError) as error:
        raise ManifestInvalid(f"{path}: is not JSON ({error})") from error
    if not isinstance(document, Mapping):
        raise ManifestInvalid(f"{path}: is not a JSON object")
    return document
