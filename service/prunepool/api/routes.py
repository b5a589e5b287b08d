"""A router whose routes answer HEAD wherever they answer GET."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter
from fastapi.types import DecoratedCallable


class Router(APIRouter):
    """FastAPI's router; HEAD has the headers of GET, and the server leaves the body out."""

    def get(self, path: str, **options: Any) -> Callable[[DecoratedCallable], DecoratedCallable]:
        """Decorate a handler of GET, and of HEAD, which the API's description leaves out."""
        for_get = super().get(path, **options)
        for_head = super().head(path, include_in_schema=False)
        return lambda handler: for_get(for_head(handler))
