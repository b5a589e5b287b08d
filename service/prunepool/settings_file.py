"""The file `prunepool.toml`: how it is read, and what is said of one that cannot be."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pydantic_settings import BaseSettings, TomlConfigSettingsSource

from prunepool.files import read_regular

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
        data = read_regular(file_path, _MAX_BYTES)
        found = tomllib.loads(_text_of(data, str(file_path)))
        names: dict[str, str] = {}
        for key in found:
            # The library reads `Port` as `port`, and would take either without a word.
            if (other := names.setdefault(key.lower(), key)) != key:
                raise SettingsFileError(f"{file_path}: {other} and {key} are the same setting")
        return found


def _text_of(data: bytes, name: str) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SettingsFileError(
            f"{name} is not UTF-8: line {line} has the byte 0x{data[error.start]:02x}"
        ) from None
    if (at := text.find("\0")) >= 0:
        line = text.count("\n", 0, at) + 1
        raise SettingsFileError(f"{name} is not UTF-8 text: line {line} has a byte 0, as UTF-16 has")
    return text
