"""`prunepool doctor`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import typer

from prunepool.cli.doctor_machine import of_machine
from prunepool.cli.doctor_models import of_models, of_ports
from prunepool.cli.finding import Finding
from prunepool.cli.options import load_settings, with_flags
from prunepool.cli.terminal import say, say_json


@with_flags()
def doctor(
    flags: Mapping[str, str],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Look for what would keep `prunepool serve` with the same options from serving, and say what to do.

    Fails if something would.
    """
    settings = load_settings(flags)
    found: list[Finding] = []
    for look in (of_machine, of_models, of_ports):
        for one in look(settings):
            found.append(one)
            if not as_json:
                _show(one)
    problems, warnings = ([one for one in found if one.level == level] for level in ("problem", "warning"))
    if as_json:
        say_json([one.document() for one in found], indent=2)
    elif problems or warnings:
        say(f"{_count(len(problems), 'problem')}, {_count(len(warnings), 'warning')}")
    else:
        say("nothing is in the way of `prunepool serve`")
    return 1 if problems else 0


def _show(one: Finding) -> None:
    say(f"{one.level:<8} {one.what}: {one.found}")
    if one.advice:
        say(f"{'':<8} → {one.advice}")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
