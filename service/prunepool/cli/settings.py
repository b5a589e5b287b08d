"""`prunepool settings`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import typer

from prunepool.cli.options import FILE, PREFIX, default_text, flag, load_settings, with_flags
from prunepool.cli.terminal import say
from prunepool.settings import Settings


@with_flags()
def settings(
    flags: Mapping[str, str],
    markdown: Annotated[
        bool,
        typer.Option("--markdown", help="Print the table in docs/configuration.md."),
    ] = False,
) -> None:
    """Show every setting and its value after flags, environment and prunepool.toml."""
    if markdown:
        for line in markdown_table().splitlines():
            say(line)
        return
    found = load_settings(flags)
    width = max(map(len, Settings.model_fields))
    for name in Settings.model_fields:
        value = getattr(found, name)
        shown = ", ".join(value) if isinstance(value, tuple) else value
        say(f"{name:<{width}}  {'unset' if value is None else shown}")


def markdown_table() -> str:
    """Return a table of all settings with flag, environment variable, default and meaning."""
    rows = []
    for name, field in Settings.model_fields.items():
        names = f"`{name}` | `{flag(name)}` | `{PREFIX}{name.upper()}`"
        rows.append(f"| {names} | {_code(default_text(field))} | {field.description} |")
    head = [f"| key in `{FILE}` | flag | environment | default | meaning |", "|---|---|---|---|---|"]
    return "\n".join(head + rows)


def _code(default: str) -> str:
    return default if default == "unset" else f"`{default}`"
