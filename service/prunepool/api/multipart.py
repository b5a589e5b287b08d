"""Parses multipart forms into images and options. Pure functions."""

from __future__ import annotations

import re

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from prunepool.api.base64_images import image_of_bytes, image_or_error
from prunepool.api.options import RawOption
from prunepool.api.transfer_encoding import decode_transfer
from prunepool.errors import InvalidParameter, PrunepoolError

#: Bytes. Options are short, so a longer form field is a mistake.
_MAX_FIELD_BYTES = 1024
#: More than the number of options, so that an option given twice gets an error that says so.
_MAX_FIELDS = 32
#: Parts that add nothing: file inputs without a file, and buttons.
_MAX_EMPTY_PARTS = 32
#: `file`, and what clients of other services call it.
_IMAGE_NAME = re.compile(r"(files?|images?)(\[\d*\])?", re.ASCII | re.IGNORECASE)
#: What a browser adds for the button that sends the form.
_BUTTON = "submit"


def parse_multipart(
    boundary: bytes, body: bytes, max_images: int
) -> tuple[tuple[bytes | PrunepoolError, ...], tuple[RawOption, ...]]:
    """Parse a form.

    Args:
        boundary: from the Content-Type.
        body: the complete body.
        max_images: limit on the number of images.

    Returns:
        The images in order, an error in place of each whose text or coding is invalid; and the options.

    Raises:
        InvalidParameter: the form is not complete, has no image or a file with another name, or exceeds a limit.
        UnsupportedMediaType: a part has an unknown Content-Transfer-Encoding.
    """
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
    if not parts.images:
        raise InvalidParameter("file", None, "in the form: at least one part named 'file' holding an image")
    return tuple(parts.images), tuple(parts.fields)


class _Parts:
    """Collects the parts of a form from the callbacks of the parser, and enforces the limits."""

    def __init__(self, max_images: int) -> None:
        self.max_images = max_images
        self.images: list[bytes | PrunepoolError] = []
        self.fields: list[RawOption] = []
        self.complete = False
        self._empty = 0
        self._name = ""
        self._file_name = ""
        self._is_image = False
        self._header = b""
        self._value = b""
        self._headers: dict[bytes, bytes] = {}
        self._data: list[bytes] = []
        self._size = 0

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
        self._headers = {}
        self._data = []
        self._size = 0

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[self._header.lower()] = self._value
        self._header = self._value = b""

    def _on_headers_finished(self) -> None:
        disposition = self._headers.get(b"content-disposition", b"")
        _, options = parse_options_header(disposition)
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        self._file_name = options.get(b"filename", b"").decode("utf-8", "replace")
        if not self._name:
            shown = disposition.decode("utf-8", "replace")
            raise InvalidParameter(
                "body", f"a part with Content-Disposition {shown!r}", "made of parts that each have a name"
            )
        self._is_image = _IMAGE_NAME.fullmatch(self._name) is not None
        if self._file_name and not self._is_image:
            limit = "named file: images are taken from parts named file"
            raise InvalidParameter(self._name[:100], f"a part with the file {self._file_name!r}", limit)
        if not self._is_image and len(self.fields) == _MAX_FIELDS:
            raise InvalidParameter("body", f"more than {_MAX_FIELDS}", f"at most {_MAX_FIELDS} option fields")

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        if not self._is_image and self._size > _MAX_FIELD_BYTES:
            raise InvalidParameter(
                self._name, f"more than {_MAX_FIELD_BYTES}", f"at most {_MAX_FIELD_BYTES} bytes long"
            )
        self._data.append(data[start:end])

    def _on_part_end(self) -> None:
        data = b"".join(self._data)
        coding = self._headers.get(b"content-transfer-encoding", b"").decode("latin-1")
        if self._is_image:
            # A browser sends an empty part without a file name where its user chose no file.
            if data or self._file_name:
                self._add_image(data, coding)
            else:
                self._add_nothing()
        elif self._name == _BUTTON:
            self._add_nothing()
        else:
            text = decode_transfer(coding, data).decode("utf-8", "replace")
            self.fields.append(RawOption("form", self._name, text))

    def _add_image(self, data: bytes, coding: str) -> None:
        if len(self.images) == self.max_images:
            limit = f"given at most {self.max_images} times"
            raise InvalidParameter(self._name, f"more than {self.max_images}", limit)
        self.images.append(image_or_error(lambda: image_of_bytes(decode_transfer(coding, data))))

    def _add_nothing(self) -> None:
        self._empty += 1
        if self._empty > _MAX_EMPTY_PARTS:
            limit = f"given at most {_MAX_EMPTY_PARTS} times without a file"
            raise InvalidParameter(self._name, f"more than {_MAX_EMPTY_PARTS}", limit)

    def _on_end(self) -> None:
        self.complete = True
