"""What the sections of a manifest have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

#: No section changes, has keys that are not known, or numbers that JSON does not have.
STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())
#: Of a file, in hexadecimal digits.
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
