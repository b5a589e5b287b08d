"""Which fields of KServe's objects its types do not have; objects come in by name as JSON, paths go out."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from typing import Any

import kserve
from kubernetes import client

KINDS = {
    "InferenceService": kserve.V1beta1InferenceService,
    "ServingRuntime": kserve.V1alpha1ServingRuntime,
}


def unknown(value: Any, kind: Any, path: str) -> Iterator[str]:
    """The paths of fields that a type does not have, or whose values are no lists where they must be."""
    names = {theirs: ours for ours, theirs in kind.attribute_map.items()}
    for key, inner in value.items():
        here = f"{path}.{key}".lstrip(".")
        if key not in names:
            yield here
            continue
        of = kind.openapi_types[names[key]]
        listed = re.fullmatch(r"[Ll]ist\[(\w+)\]", of)
        if bool(listed) != isinstance(inner, list):
            yield here
            continue
        name = listed[1] if listed else of
        found = getattr(kserve, name, None) or getattr(client, name, None)
        if hasattr(found, "openapi_types"):
            for item in inner if listed else [inner]:
                yield from unknown(item, found, here)


if __name__ == "__main__":
    objects = json.load(sys.stdin)
    print(json.dumps({name: list(unknown(one, KINDS[one["kind"]], "")) for name, one in objects.items()}))
