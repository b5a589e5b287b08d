"""`prunepool keys`: create, list and revoke the API keys in a file."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.table import Table

from prunepool.access import Key, KeysFile, digest_of, new_key
from prunepool.access.keyfile import check_name, rate_of
from prunepool.cli.models_input import JsonOption
from prunepool.cli.options import PREFIX, UsageError, flag, load_settings, with_flags
from prunepool.cli.terminal import say, say_json, say_table

Flags = Mapping[str, str]

_SETTING = "api_keys_file"
_RATE = re.compile(r"(?P<images>\d+(\.\d+)?)(/(?P<unit>s|min|h))?", re.ASCII)
_SECONDS = {None: 1, "s": 1, "min": 60, "h": 3600}

keys_app = typer.Typer(
    name="keys",
    help="Create, list and revoke API keys. A running server reloads them by itself.",
    add_completion=False,
    pretty_exceptions_enable=False,
)


@keys_app.command()
@with_flags(_SETTING)
def create(
    flags: Flags,
    name: Annotated[str, typer.Argument(help="The key's owner; shown in the server's log.", metavar="NAME")],
    rate: Annotated[
        str | None, typer.Option(help="Rate limit in images: 50/s, 600/min or 1000/h.", metavar="N/s")
    ] = None,
    burst: Annotated[
        str | None, typer.Option(help="Images allowed at once; by default those of one second.", metavar="N")
    ] = None,
    admin: Annotated[
        bool, typer.Option("--admin", help="Allow the key to load and unload models, see --model-control.")
    ] = False,
) -> None:
    """Create a key, add its hash to the file, and print the key. It cannot be shown again."""
    file = _file(flags)
    check_name(name)
    try:
        limit = rate_of(_per_s(rate), None if burst is None else _number("--burst", burst))
    except ValueError as error:
        raise UsageError(str(error)) from error
    key = new_key()
    digest = digest_of(key.get_secret_value())
    _write(lambda: file.add(Key(name, digest, limit, datetime.now(UTC).date(), admin)), file)
    say(key.get_secret_value())
    say(f"the key of {name}; it cannot be shown again: {file.path} holds only its hash", error=True)


@keys_app.command("list")
@with_flags(_SETTING)
def list_keys(flags: Flags, as_json: JsonOption = False) -> None:
    """List the names and limits of the keys in the file."""
    keys = _file(flags).read().values()
    if as_json:
        rows = [
            {
                "name": key.name,
                "rate": None if key.rate is None else key.rate.per_s,
                "burst": None if key.rate is None else key.rate.burst,
                "created": None if key.created is None else key.created.isoformat(),
                "admin": key.admin,
            }
            for key in keys
        ]
        say_json(rows, indent=2)
        return
    table = Table(box=None, header_style="bold")
    for column in ("NAME", "RATE", "CREATED", "ADMIN"):
        table.add_column(column)
    for key in keys:
        rate = "no limit" if key.rate is None else str(key.rate)
        created = "" if key.created is None else key.created.isoformat()
        table.add_row(key.name, rate, created, "yes" if key.admin else "")
    say_table(table)


@keys_app.command()
@with_flags(_SETTING)
def revoke(
    flags: Flags, name: Annotated[str, typer.Argument(help="Name of the key's owner.", metavar="NAME")]
) -> None:
    """Remove a key from the file. A running server refuses it within two seconds."""
    file = _file(flags)
    _write(lambda: file.remove(name), file)
    say(f"the key of {name} is no longer in {file.path}", error=True)


def _file(flags: Flags) -> KeysFile:
    path = load_settings(flags).api_keys_file
    if path is None:
        raise UsageError(f"no file of keys: set {flag(_SETTING)} or {PREFIX}{_SETTING.upper()}")
    return KeysFile(path)


def _write(change: Callable[[], None], file: KeysFile) -> None:
    try:
        change()
    except OSError as error:
        raise typer.TyperException(f"{file.path} cannot be written: {error.strerror}") from error


def _per_s(text: str | None) -> float | None:
    if text is None:
        return None
    found = _RATE.fullmatch(text)
    if found is None:
        raise UsageError(f"--rate must be like 50/s, 600/min or 1000/h; got {text!r}")
    return float(found["images"]) / _SECONDS[found["unit"]]


def _number(option: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{option} must be a number of images; got {text!r}") from None
