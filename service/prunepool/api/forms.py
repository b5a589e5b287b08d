"""Parses the body of a classification request into images and options. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass

import orjson
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from prunepool.api.base64_images import decode_image_text
from prunepool.api.options import RawOption
from prunepool.errors import ImageUndecodable, InvalidParameter, PrunepoolError, UnsupportedMediaType

#: Bytes. Options are short, so a longer form field is a mistake.
_MAX_FIELD_BYTES = 1024
#: More than the number of options, so that an option given twice gets an error that says so.
_MAX_FIELDS = 32
#: Brackets and commas that a JSON document may have. Each can become a Python object twenty times its size: without
#: a limit, the largest body would block the process for seconds.
_MAX_JSON_MARKS, _MARKS_PER_IMAGE = 1000, 4
_JSON_MARKS = (b"[", b"{", b",")
_CURL_DEFAULT = "application/x-www-form-urlencoded"
_RAW = "image/*, application/octet-stream"


@dataclass(frozen=True, slots=True)
class ParsedBody:
    """The images and options in a request body.

    Attributes:
        images: encoded images in order; an error in place of an image whose base64 is invalid.
        as_list: whether the response is a list, even of one image.
        options: the options in the body, not read yet.
    """

    images: tuple[bytes | PrunepoolError, ...]
    as_list: bool
    options: tuple[RawOption, ...] = ()


def parse_body(content_type: str | None, body: bytes, max_images: int) -> ParsedBody:
    """Parse a request body.

    Args:
        content_type: the header; without one (None), the body is taken for an image.
        body: the complete body.
        max_images: limit on the number of images.

    Raises:
        UnsupportedMediaType: the Content-Type is not served.
        ImageUndecodable: the body has no image, or the base64 of the only one is invalid.
        InvalidParameter: the body does not match its Content-Type, or exceeds a limit.
    """
    media_type, parameters = parse_options_header(content_type)
    kind = media_type.decode("latin-1").strip()
    if not body:
        raise ImageUndecodable("the request body is empty: it must hold an image")
    if _is_image(kind):
        return ParsedBody((body,), as_list=False)
    if kind == "multipart/form-data":
        return _parse_multipart(parameters.get(b"boundary", b""), body, max_images)
    if kind == "application/json":
        return _parse_json(body, max_images)
    # The Content-Type that curl --data-binary sends by default.
    hint = " (with curl, add -H 'Content-Type: image/jpeg')" if kind == _CURL_DEFAULT else ""
    raise UnsupportedMediaType(
        f"Content-Type must be {_RAW}, multipart/form-data or application/json; got {kind[:100]!r}{hint}"
    )


def is_image(content_type: str | None) -> bool:
    """Return whether a body of this Content-Type is an image itself, and needs no parsing."""
    media_type, _ = parse_options_header(content_type)
    return _is_image(media_type.decode("latin-1").strip())


def _is_image(kind: str) -> bool:
    return kind in ("", "application/octet-stream") or kind.startswith("image/")


def _parse_multipart(boundary: bytes, body: bytes, max_images: int) -> ParsedBody:
    parts = _Parts(max_images)
    try:
        if not boundary:
            raise FormParserError("no boundary in the Content-Type")
        parser = MultipartParser(boundary, parts.callbacks())  # type: ignore[arg-type]
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise InvalidParameter("body", str(error), "valid multipart/form-data") from error
    if not parts.complete:
        raise InvalidParameter(
            "body", f"{len(body)} bytes without the closing boundary", "complete multipart/form-data"
        )
    if not parts.files:
        raise InvalidParameter("file", None, "in the form: at least one part named 'file' holding an image")
    return ParsedBody(tuple(parts.files), as_list=len(parts.files) > 1, options=tuple(parts.fields))


class _Parts:
    """Collects the parts of a form from the callbacks of the parser, and enforces the limits."""

    def __init__(self, max_images: int) -> None:
        self.max_images = max_images
        self.files: list[bytes] = []
        self.fields: list[RawOption] = []
        self.complete = False
        self._name = ""
        self._header = b""
        self._value = b""
        self._data: list[bytes] = []
        self._size = 0
        self._disposition = b""

    def callbacks(self) -> dict[str, object]:
        return {
            "on_part_begin": self._on_part_begin,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": self._on_part_data,
            "on_part_end": self._on_part_end,
            "on_end": self._on_end,
        }

    def _on_part_begin(self) -> None:
        self._disposition = b""
        self._data = []
        self._size = 0

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        if not self._name:
            shown = self._disposition.decode("utf-8", "replace")
            raise InvalidParameter(
                "body", f"a part with Content-Disposition {shown!r}", "made of parts that each have a name"
            )
        if self._name == "file" and len(self.files) == self.max_images:
            raise InvalidParameter(
                "file", f"more than {self.max_images}", f"given at most {self.max_images} times"
            )
        if self._name != "file" and len(self.fields) == _MAX_FIELDS:
            raise InvalidParameter("body", f"more than {_MAX_FIELDS}", f"at most {_MAX_FIELDS} option fields")

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        if self._name != "file" and self._size > _MAX_FIELD_BYTES:
            raise InvalidParameter(
                self._name, f"more than {_MAX_FIELD_BYTES}", f"at most {_MAX_FIELD_BYTES} bytes long"
            )
        self._data.append(data[start:end])

    def _on_part_end(self) -> None:
        data = b"".join(self._data)
        if self._name == "file":
            self.files.append(data)
        else:
            self.fields.append(RawOption("form", self._name, data.decode("utf-8", "replace")))

    def _on_end(self) -> None:
        self.complete = True


def _parse_json(body: bytes, max_images: int) -> ParsedBody:
    limit = _MAX_JSON_MARKS + _MARKS_PER_IMAGE * max_images
    marks = sum(map(body.count, _JSON_MARKS))
    if marks > limit:
        raise InvalidParameter("body", marks, f"JSON with at most {limit} brackets and commas")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidParameter("body", str(error), "valid JSON") from error
    if not isinstance(document, dict):
        raise InvalidParameter("body", type(document).__name__, "a JSON object")
    # Many clients write null for an option that is not given.
    options = tuple(
        RawOption("JSON body", key, value)
        for key, value in document.items()
        if key not in ("image", "images") and value is not None
    )
    image, images = document.get("image"), document.get("images")
    if (image is None) == (images is None):
        got = "neither" if image is None else "both"
        raise InvalidParameter("body", got, "a JSON object with either image or images")
    if images is None:
        if not isinstance(image, str):
            raise InvalidParameter("image", type(image).__name__, "base64 text or a data URL")
        return ParsedBody((decode_image_text(image),), as_list=False, options=options)
    if not isinstance(images, list) or not 1 <= len(images) <= max_images:
        got = f"{len(images)}" if isinstance(images, list) else type(images).__name__
        raise InvalidParameter("images", got, f"a list of 1 to {max_images} images")
    for index, item in enumerate(images):
        if not isinstance(item, str):
            raise InvalidParameter(f"images[{index}]", type(item).__name__, "base64 text or a data URL")
    return ParsedBody(tuple(map(_unpack_or_error, images)), as_list=True, options=options)


def _unpack_or_error(text: str) -> bytes | PrunepoolError:
    try:
        return decode_image_text(text)
    except PrunepoolError as error:
        return error
