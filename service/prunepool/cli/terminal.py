r"""Writes text for people and JSON for programs; what others named cannot control a terminal.

Names of files and labels come from anywhere: they may hold escape sequences, newlines, or bytes that are no UTF-8.
They are shown as `\x1b`, `\n`, `\xff`.
"""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console, RenderableType

if TYPE_CHECKING:
    from prunepool.imaging.image_files import FoundFiles

#: Columns when standard output is no terminal, so that lines do not wrap for other programs.
PIPE_WIDTH = 200

_SURROGATES = "\ud800-\udfff"
#: Control characters, separators of lines and paragraphs, and what reorders the text around it.
_CONTROLS = "\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069"
_UNSAFE = re.compile(f"[{_CONTROLS}{_SURROGATES}]")
_NO_UNICODE = re.compile(f"[{_SURROGATES}]")
#: JSON itself escapes what is below 0x20, and a newline in it is indentation.
_UNSAFE_IN_JSON = re.compile("[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def shown(text: str) -> str:
    """Return a text as one line that is safe on a terminal."""
    return _UNSAFE.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    # Python decodes a byte of a file name that is no UTF-8 to a lone surrogate.
    if 0xDC80 <= ord(character) <= 0xDCFF:
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def as_json(document: object, stream: TextIO, *, indent: int | None = None) -> str:
    """Return a document as JSON.

    Args:
        document: of dicts, lists, strings, numbers, booleans and None. A string that is no Unicode text, as the
            name of a file may be, is written as :func:`shown` shows it.
        stream: what the text is for; characters that its encoding lacks are escaped.
        indent: spaces for each level; None for one line.
    """
    ascii_only = (stream.encoding or "ascii").lower().replace("-", "") != "utf8"
    separators = (",", ":") if indent is None else None
    text = json.dumps(_unicode(document), ensure_ascii=ascii_only, indent=indent, separators=separators)
    return _UNSAFE_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _unicode(value: Any) -> Any:
    if isinstance(value, str):
        return _NO_UNICODE.sub(_escaped, value)
    if isinstance(value, dict):
        return {_unicode(key): _unicode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_unicode(item) for item in value]
    return value


def say(line: str, *, error: bool = False) -> None:
    """Write a line to standard output, or to standard error."""
    stream = sys.stderr if error else sys.stdout
    stream.write(shown(line) + "\n")
    stream.flush()


def say_skipped(found: FoundFiles, folder: str) -> None:
    """Say in a line on standard error what was passed over in a folder, if anything."""
    if found.skipped:
        say(f"prunepool: {folder}: {found.notice}", error=True)


def say_json(document: object, *, indent: int | None = None) -> None:
    """Write a document as JSON to standard output."""
    sys.stdout.write(as_json(document, sys.stdout, indent=indent) + "\n")
    sys.stdout.flush()


def say_table(*parts: RenderableType, width: int = PIPE_WIDTH) -> None:
    """Write rich's tables, and lines of text, to standard output: wide where that is no terminal."""
    console = Console(width=None if sys.stdout.isatty() else width, highlight=False)
    # Captured, because rich itself ends the process if nobody reads the output.
    with console.capture() as capture:
        for part in parts:
            if isinstance(part, str):
                console.print(shown(part), markup=False, soft_wrap=True)
            else:
                console.print(part)
    sys.stdout.write(capture.get())
    sys.stdout.flush()
