"""What a model may be called, for all who read or write names."""

from __future__ import annotations

#: No leading dot or dash and no slash: safe as a folder name, in a URL and in a shell.
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
#: The Open Inference Protocol shows each model a second time, under its name with this suffix, for encoded images.
ENCODED_SUFFIX = "_jpeg"
#: A model `a` and a model of `a`'s name with one of these would both claim the same name in a URL.
RESERVED_SUFFIXES = (ENCODED_SUFFIX,)


def reserved_suffix(name: str) -> str | None:
    """Return the reserved suffix that a name ends in; None if it may be a model's name."""
    return next((suffix for suffix in RESERVED_SUFFIXES if name.endswith(suffix)), None)
