"""Parses the body of a classification request into images and options. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass

from python_multipart.multipart import parse_options_header

from prunepool.api.base64_images import decode_image_text, image_of_bytes, image_or_error, is_url
from prunepool.api.json_bodies import brackets_and_commas, parse_json
from prunepool.api.multipart import parse_multipart
from prunepool.api.options import RawOption
from prunepool.errors import ImageUndecodable, InvalidParameter, PrunepoolError, UnsupportedMediaType

#: Brackets and commas that a JSON document may have.
_MAX_JSON_MARKS, _MARKS_PER_IMAGE = 1000, 4
_CURL_DEFAULT = "application/x-www-form-urlencoded"
_RAW = "image/*, application/octet-stream"
#: What says nothing of the body; `binary/octet-stream` is what S3 gives objects stored without a type.
_BYTES = frozenset({"", "application/octet-stream", "binary/octet-stream"})


@dataclass(frozen=True, slots=True)
class ParsedBody:
    """The images and options in a request body.

    Attributes:
        images: encoded images in order; an error in place of an image whose text or coding is invalid.
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
        return ParsedBody((image_of_bytes(body),), as_list=False)
    if kind == "multipart/form-data":
        files, fields = parse_multipart(parameters.get(b"boundary", b""), body, max_images)
        return ParsedBody(files, as_list=len(files) > 1, options=fields)
    if kind == "application/json":
        return _parse_json(body, max_images)
    # The Content-Type that curl --data-binary sends by default.
    hint = " (with curl, add -H 'Content-Type: image/jpeg')" if kind == _CURL_DEFAULT else ""
    raise UnsupportedMediaType(
        f"Content-Type must be {_RAW}, multipart/form-data or application/json; got {kind[:100]!r}{hint}"
    )


def needs_parsing(content_type: str | None, body: bytes) -> bool:
    """Return whether a body is something else than the image itself."""
    media_type, _ = parse_options_header(content_type)
    return not _is_image(media_type.decode("latin-1").strip()) or is_url(body)


def _is_image(kind: str) -> bool:
    return kind in _BYTES or kind.startswith("image/")


def _parse_json(body: bytes, max_images: int) -> ParsedBody:
    document = parse_json(body, brackets_and_commas(_MAX_JSON_MARKS + _MARKS_PER_IMAGE * max_images))
    if not isinstance(document, dict):
        raise InvalidParameter("body", type(document).__name__, "a JSON object")
    options = tuple(
        RawOption("JSON body", key, value)
        for key, value in document.items()
        if key not in ("image", "images")
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
    return ParsedBody(
        tuple(image_or_error(decode_image_text, item) for item in images), as_list=True, options=options
    )
