"""Requests and answers as httpx has them, from and to typed values. Pure functions."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import quote

import httpx
import orjson
from pydantic import TypeAdapter, ValidationError

from prunepool import errors
from prunepool.client.types import (
    Classification,
    Image,
    Model,
    ModelDetails,
    Readiness,
    UnexpectedAnswer,
)
from prunepool.errors import InvalidParameter, PrunepoolError, RateLimited, Unavailable

T = TypeVar("T")

_CLASSIFICATION: TypeAdapter[Classification] = TypeAdapter(Classification)
_MODEL: TypeAdapter[ModelDetails] = TypeAdapter(ModelDetails)
_READINESS: TypeAdapter[Readiness] = TypeAdapter(Readiness)
_MODELS: TypeAdapter[list[Model]] = TypeAdapter(list[Model])
_STANDARD_MEMBERS = frozenset({"type", "title", "status", "code", "detail"})
#: What a proxy that refuses without naming a time is given.
_DEFAULT_RETRY_S = 1.0


def _classes_by_code() -> dict[str, type[PrunepoolError]]:
    """The class of each code; where several share one, the most general."""
    found: dict[str, type[PrunepoolError]] = {}
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, PrunepoolError):
            found.setdefault(kind.code, kind)
    return found


_CLASSES = _classes_by_code()


def query_of(options: Mapping[str, object]) -> dict[str, str]:
    """Options as query parameters; what is None is left to the service."""
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in options.items()
        if value is not None
    }


def one_image(image: Image) -> dict[str, Any]:
    """The body of a request for one image, as httpx's arguments."""
    return {"content": _bytes(image), "headers": {"Content-Type": "application/octet-stream"}}


def several_images(images: Sequence[Image]) -> dict[str, Any]:
    """The body of a request whose answer is a list, as httpx's arguments."""
    if len(images) == 1:  # a form with one file would be answered as one image
        return {"json": {"images": [base64.b64encode(_bytes(images[0])).decode("ascii")]}}
    parts = [("file", (str(i), _bytes(image), "application/octet-stream")) for i, image in enumerate(images)]
    return {"files": parts}


def _bytes(image: Image) -> bytes:
    if isinstance(image, bytes):
        return image
    return image.read_bytes() if isinstance(image, Path) else image()


def read_answer(response: httpx.Response) -> Any:
    """The JSON of a good answer.

    Raises:
        PrunepoolError: the error that the answer stands for.
    """
    try:
        document = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        document = None
    if response.is_success and document is not None:
        return document
    wait = response.headers.get("Retry-After", "")
    retry_after = float(wait) if wait.isdecimal() else None
    if isinstance(document, dict) and isinstance(document.get("code"), str):
        raise error_of(document, retry_after)
    answered = f"{response.request.url} answered {response.status_code} {response.reason_phrase}"
    detail = f"{answered}, not as prunepool does"
    if response.status_code == Unavailable.status:  # a proxy on the way, or a server that is not up yet
        raise Unavailable(detail, retry_after=_DEFAULT_RETRY_S if retry_after is None else retry_after)
    raise UnexpectedAnswer(detail)


def error_of(problem: Mapping[str, Any], retry_after: float | None = None) -> PrunepoolError:
    """The error that a problem document stands for.

    Args:
        problem: the document.
        retry_after: seconds from the answer's header, where there was one.

    Returns:
        An instance of the class with the document's code; of an unknown code, an `UnexpectedAnswer`.
    """
    extra = {name: value for name, value in problem.items() if name not in _STANDARD_MEMBERS}
    detail = str(problem.get("detail", ""))
    kind = _CLASSES.get(str(problem.get("code")))
    if kind is None:
        return UnexpectedAnswer(f"{problem.get('code')}: {detail}")
    if issubclass(kind, InvalidParameter):
        return kind(str(extra.get("parameter")), extra.get("value"), str(extra.get("limit")))
    if issubclass(kind, Unavailable | RateLimited):
        stated = extra.pop("retry_after", None)
        if retry_after is None:
            retry_after = float(stated) if isinstance(stated, int | float) else _DEFAULT_RETRY_S
        return cast("type[Unavailable]", kind)(detail, retry_after=retry_after, **extra)
    return kind(detail, **extra)


def read_classification(document: object) -> Classification:
    """One image's answer.

    Raises:
        UnexpectedAnswer: it is not one.
    """
    return _validated(_CLASSIFICATION, document)


def read_results(document: Any) -> list[Classification | PrunepoolError]:
    """Several images' answers, errors in the place of those that failed.

    Raises:
        UnexpectedAnswer: they are not that.
    """
    results = document.get("results") if isinstance(document, dict) else None
    if not isinstance(results, list) or not all(isinstance(entry, dict) for entry in results):
        raise UnexpectedAnswer("the answer has no list of results")
    return [error_of(entry) if "code" in entry else read_classification(entry) for entry in results]


def read_models(document: Any) -> list[Model]:
    """The models of a list.

    Raises:
        UnexpectedAnswer: it is not one.
    """
    return _validated(_MODELS, document.get("models") if isinstance(document, dict) else None)


def read_model(document: object) -> ModelDetails:
    """A model in full.

    Raises:
        UnexpectedAnswer: it is not one.
    """
    return _validated(_MODEL, document)


def model_path(name: str) -> str:
    """Where a model is described; its name may hold anything."""
    return f"/models/{quote(name, safe='')}"


def read_readiness(response: httpx.Response) -> Readiness:
    """What the service says of itself, ready or not.

    Raises:
        PrunepoolError: it says something else.
    """
    if response.status_code != Unavailable.status:
        return _validated(_READINESS, read_answer(response))
    try:
        return _validated(_READINESS, orjson.loads(response.content))
    except (orjson.JSONDecodeError, UnexpectedAnswer):
        read_answer(response)  # a proxy's answer, which raises what it stands for
        raise


def _validated(adapter: TypeAdapter[T], document: object) -> T:
    try:
        return adapter.validate_python(document)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UnexpectedAnswer(f"the answer is not as this service's: {place}: {first['msg']}") from error
