"""Images as text: what is read as base64, and what is refused with what is wrong."""

from __future__ import annotations

import base64
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from prunepool.api import base64_images
from prunepool.api.base64_images import decode_image_text
from prunepool.errors import ImageUndecodable, UnsupportedMediaType


@pytest.mark.parametrize(
    "text",
    [
        "/+8=",
        "_-8=",
        "/+8",
        "_-8",
        " /+\n8=\r\n",
        "  /+8\n",
        "%2F%2B8%3D",
        "data:image/png;base64,/+8=",
        "data:image/png;base64,/+8",
        "data:image/png;base64,%2f%2B8%3D",
        "data:image%2Fpng;base64,/+8=",
        "data:image/png;base64, /+8=\n",
        " data:image/png;base64,/+8=",
        "DATA:image/png;base64,/+8=",
        "data:IMAGE/PNG;BASE64,/+8=",
        "data:;base64,/+8=",
        "data:application/octet-stream;base64,/+8=",
        "data:image/png;charset=x;base64,/+8=",
    ],
)
def test_base64_in_every_notation(text: str) -> None:
    assert decode_image_text(text) == decode_image_text(text.encode()) == b"\xff\xef"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the image is empty"),
        (" \n", "the image is empty"),
        ("data:image/png;base64,", "the image is empty"),
        ("A", "its length is one more than a multiple of four"),
        ("AAAAA", "its length is one more than a multiple of four"),
        ("AAAA=", "more padding than it needs"),
        ("AA==AAAA", "base64"),
        ("AA==A", "characters behind its padding"),
        ("AA=", "padding"),
        ("A=AA", "padding"),
        ("+-AA", r"mixes the standard alphabet \(\+ and /\) with the URL-safe one"),
        ("%", "base64"),
        ("%%", "base64"),
        ("%ff%ff", "base64"),
        ("é", "only ASCII"),
        ("data:", "a data URL must read"),
        ("data:,", "a data URL must read"),
        ("data:image/png,AAAA", "a data URL must read"),
        ("data:image/svg+xml,<svg/>", "a data URL must read"),
        ("data:image/png" + "x" * 2000 + ";base64,AAAA", "a data URL must read"),
        (
            "https://example.org/a.jpg",
            "URLs and paths are not fetched: send the image itself.*example.org/a.jpg",
        ),
        (" HTTP://example.org/ab.jpg", "URLs and paths are not fetched"),
        ("s3://bucket/a.jpg", "URLs and paths are not fetched"),
        ("file:///etc/passwd", "URLs and paths are not fetched"),
        ("C:\\photos\\a.jpg", "URLs and paths are not fetched"),
    ],
)
def test_text_that_is_no_image_is_refused_with_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(ImageUndecodable, match=said):
        decode_image_text(text)


def test_a_data_url_of_something_else_is_refused_by_its_type() -> None:
    with pytest.raises(UnsupportedMediaType, match="'text/html'"):
        decode_image_text("data:text/html;base64,AAAA")


@given(st.binary(min_size=1), st.booleans(), st.booleans(), st.integers(4, 9))
def test_any_bytes_survive_base64(data: bytes, safe: bool, padded: bool, piece: int) -> None:
    """However they are written, and wherever the text is cut into pieces."""
    text = (base64.urlsafe_b64encode if safe else base64.b64encode)(data).decode()
    text = text if padded else text.rstrip("=")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base64_images, "_PIECE", piece)
        assert decode_image_text(text) == data
        assert decode_image_text(quote(text, safe="")) == data
        assert decode_image_text("data:image/jpeg;base64," + "\n".join(text)) == data


@given(st.text("AZaz09+/-_= \n", max_size=40), st.integers(4, 9))
def test_the_boundaries_of_pieces_do_not_matter(text: str, piece: int) -> None:
    """Whatever the pieces, the whole text is taken or refused as the standard library does, once it is padded."""
    assume(not (set(text) & set("+/") and set(text) & set("-_")))
    plain = text.translate(str.maketrans("-_", "+/", " \n"))
    # Python before 3.13 takes padding behind a complete group, later ones do not.
    assume(plain == plain.rstrip("=") or len(plain.rstrip("=")) % 4)
    try:
        expected = base64.b64decode(plain if "=" in plain else plain + "=" * (-len(plain) % 4), validate=True)
    except ValueError:
        expected = b""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base64_images, "_PIECE", piece)
        if expected:
            assert decode_image_text(text) == expected
        else:
            with pytest.raises(ImageUndecodable):
                decode_image_text(text)
