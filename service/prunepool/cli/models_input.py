"""Options that the commands of `prunepool models` share, and their parsers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import typer

from prunepool.cli.options import UsageError, load_settings
from prunepool.store import ModelStore, open_store

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace a model of that name.")]


def store_of(flags: Mapping[str, str]) -> ModelStore:
    """The store of the option, the environment or the settings file, or the default one.

    Raises:
        UsageError: a setting is invalid.
    """
    return open_store(load_settings(flags).model_store)


def per_channel(option: str, text: str | None, least: float) -> tuple[float, float, float] | None:
    """Parse `0.5` or `0.485,0.456,0.406`.

    Raises:
        UsageError: the text is not one number or three, or a number is out of range.
    """
    if text is None:
        return None
    try:
        values = [float(part) for part in text.replace(",", " ").split()]
    except ValueError:
        values = []
    if len(values) == 1:
        values *= 3
    if len(values) != 3 or not all(least <= value <= 1 for value in values):
        raise UsageError(f"--{option} must be one number or three, from {least:g} to 1; got {text!r}")
    red, green, blue = values
    return red, green, blue


def check_within(option: str, value: float | None, least: float, most: float) -> None:
    """Check that an option is within its bounds, if it is given.

    Raises:
        UsageError: it is not.
    """
    if value is not None and not least <= value <= most:
        raise UsageError(f"--{option} must be from {least:g} to {most:g}; got {value!r}")
