"""Options that the commands of `prunepool models` share, and how they are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import typer

from prunepool.cli.options import UsageError, load_settings
from prunepool.store import ModelStore, open_store

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace a model of that name.")]


def store_of(flags: Mapping[str, str]) -> ModelStore:
    """The store of the option, the environment or the settings file, or the default one.

    Raises:
        UsageError: a setting that cannot be.
    """
    return open_store(load_settings(flags).model_store)


def per_channel(option: str, text: str | None, least: float) -> tuple[float, float, float] | None:
    """Read `0.5` or `0.485,0.456,0.406`.

    Raises:
        UsageError: neither one number nor three, or one out of bounds.
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
    """Let an option pass that is not given or within bounds.

    Raises:
        UsageError: it is neither.
    """
    if value is not None and not least <= value <= most:
        raise UsageError(f"--{option} must be from {least:g} to {most:g}; got {value!r}")
