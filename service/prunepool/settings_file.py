"""The file `prunepool.toml`: how it is read, and what is said of one that cannot be."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pydantic_settings import BaseSettings, TomlConfigSettingsSource

from prunepool.files import NotUtf8, read_text

_MAX_BYTES = 1 << 20


class SettingsFileError(ValueError):
    """The settings file cannot be read, or is no TOML; the message names it."""


class SettingsFile(TomlConfigSettingsSource):
    """`prunepool.toml`: UTF-8, with or without a byte order mark."""

    def __init__(self, settings_cls: type[BaseSettings]) -> None:
        path = Path(str(settings_cls.model_config.get("toml_file")))
        # The library takes what is no file for a file that is missing.
        if (path.is_symlink() or path.exists()) and not path.is_file():
            what = "is a link to nothing" if not path.exists() else "is no regular file"
            raise SettingsFileError(f"{path} {what}")
        super().__init__(settings_cls)

    def _read_file(self, file_path: Any) -> dict[str, Any]:
        found = tomllib.loads(_text_of(file_path))
        names: dict[str, str] = {}
        for key in found:
            # The library reads `Port` as `port`, and would take either without a word.
            if (other := names.setdefault(key.lower(), key)) != key:
                raise SettingsFileError(f"{file_path}: {other} and {key} are the same setting")
        return found


def _text_of(path: Path | str) -> str:
    try:
        text = read_text(path, _MAX_BYTES)
    except NotUtf8 as error:
        raise SettingsFileError(f"{path} is not UTF-8: {error}") from None
    if (at := text.find("\0")) >= 0:
        line = text.count("\n", 0, at) + 1
        raise SettingsFileError(f"{path} is not UTF-8 text: line {line} has a byte 0, as UTF-16 has")
    return text
