"""Makes command-line options from the fields of `Settings`, which are their single source."""

from __future__ import annotations

import functools
import inspect
import os
import tomllib
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

import typer
from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from prunepool.settings import Settings
from prunepool.settings_file import SettingsFileError

PREFIX = "PRUNEPOOL_"
API_KEY = "PRUNEPOOL_API_KEY"


def _secret(value: str | SecretStr) -> SecretStr:
    return value if isinstance(value, SecretStr) else SecretStr(value)


ApiKeyOption = Annotated[
    SecretStr | None,
    typer.Option(
        parser=_secret,
        help="API key, if the server requires one. The variable keeps it out of the process list.",
        envvar=API_KEY,
        metavar="KEY",
        show_envvar=True,
    ),
]
FILE = "prunepool.toml"


class UsageError(typer.TyperException):
    """The command line, the environment or the settings file holds an invalid value."""

    exit_code = 2


def flag(name: str) -> str:
    """Return the command-line option of a setting."""
    return "--" + name.replace("_", "-")


def with_flags(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add an option for each of some settings to a command; it gets those given as its first argument, a mapping.

    Args:
        names: fields of `Settings`; by default all of them.
    """
    fields = {name: Settings.model_fields[name] for name in names or Settings.model_fields}

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def with_options(**arguments: Any) -> Any:
            values = {name: arguments.pop(name) for name in fields}
            return command({name: value for name, value in values.items() if value is not None}, **arguments)

        own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
        parameters = [*own, *(_option(name, field) for name, field in fields.items())]
        keyword_only = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
        with_options.__signature__ = inspect.Signature(keyword_only)  # type: ignore[attr-defined]
        with_options.__annotations__ = {p.name: p.annotation for p in parameters}
        return with_options

    return decorate


def _option(name: str, field: FieldInfo) -> inspect.Parameter:
    """Make the option of a setting; its value stays text, because `Settings` parses values from every source."""
    default = default_text(field)
    text = f"{field.description} [dim]\\[{PREFIX}{name.upper()}; default: {default}][/dim]"
    option = typer.Option(flag(name), help=text, show_default=False, metavar="VALUE")
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, option]
    )


def default_text(field: FieldInfo) -> str:
    """Return the default of a setting as text."""
    assert field.default is not PydanticUndefined, "every setting has a default"
    return "unset" if field.default is None else str(field.default)


def load_settings(given: Mapping[str, object]) -> Settings:
    """Load settings: flags override the environment, which overrides the file.

    Args:
        given: values of the flags that were given.

    Raises:
        UsageError: a value is invalid; names the setting, its source, the value and the limit.
    """
    try:
        return Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        raise UsageError(_first_error(error, given)) from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{FILE} is not TOML: {error}") from error
    except SettingsFileError as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        raise UsageError(f"{FILE} cannot be read: {error.strerror}") from error


def _first_error(error: ValidationError, given: Iterable[str]) -> str:
    # A union has an error for each of its members; the last one is about the number, not about "auto".
    details = error.errors()
    name = str(details[0]["loc"][0])
    detail = [d for d in details if d["loc"][0] == name][-1]
    if detail["type"] == "extra_forbidden":
        return f"{FILE}: there is no setting {name!r}"
    if name in given:
        where = flag(name)
    elif PREFIX + name.upper() in (key.upper() for key in os.environ):
        where = PREFIX + name.upper()
    else:
        where = f"{name} in {FILE}"
    return f"{where} is {detail['input']!r}: {_limit(detail['msg'])}"


def _limit(message: str) -> str:
    """Turn a message of pydantic into a clause."""
    clause = message.removeprefix("Value error, ").replace("Input should be ", "it must be ")
    clause = clause.replace("String should match pattern", "it must match")
    return clause[:1].lower() + clause[1:]
