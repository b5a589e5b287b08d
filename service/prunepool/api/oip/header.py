"""The JSON of an inference request: its parameters, and the description of its tensors."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, FailFast, Field, ValidationError

from prunepool.api.json_bodies import MarksLimit, parse_json
from prunepool.errors import InvalidParameter

#: Rows of tensors are lists in JSON, so there are many.
_LIMIT = MarksLimit((b"[", b"{"), 1_000_000, "opening brackets")

Parameters = dict[str, Any] | None
# FailFast: describing a million wrong elements would cost more than the request.
Shape = Annotated[list[Annotated[int, Field(ge=0)]], FailFast()]


class _Message(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class InputTensor(_Message):
    """An input tensor."""

    name: str
    datatype: str
    shape: Shape
    parameters: Parameters = None
    data: Any = None


class OutputTensor(_Message):
    """An output tensor that the client requests."""

    name: str
    parameters: Parameters = None


#: null is as left out, as everywhere.
Outputs = Annotated[
    list[OutputTensor], FailFast(), BeforeValidator(lambda value: [] if value is None else value)
]


class Header(_Message):
    """The JSON of a request: its parameters and the description of its tensors."""

    id: str | None = None
    parameters: Parameters = None
    inputs: Annotated[list[InputTensor], FailFast()]
    outputs: Outputs = Field(default_factory=list)


def header_of_json(text: bytes) -> Header:
    """Parse and validate the JSON of a request.

    Raises:
        InvalidParameter: the text is not JSON, has too many brackets, or a value is missing, of the wrong type, or
            given twice.
    """
    return header_of(parse_json(text, _LIMIT))


def header_of(document: object) -> Header:
    """Validate the JSON of a request.

    Raises:
        InvalidParameter: a value is missing or of the wrong type.
    """
    try:
        return Header.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(map(str, first["loc"])) or "body"
        raise InvalidParameter(name, first["input"], f"valid ({first['msg']})") from error
