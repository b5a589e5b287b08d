"""Bodies in gzip and deflate: what goes in comes out, within a limit."""

from __future__ import annotations

import contextlib
import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunepool.api.oip.compression import accepted, compress, decompress
from prunepool.errors import BodyTooLarge, InvalidParameter, RequestError, UnsupportedMediaType

LIMIT = 1000
codings = st.sampled_from(["gzip", "deflate"])


@given(st.binary(max_size=LIMIT), codings)
def test_what_goes_in_comes_out(data: bytes, coding: str) -> None:
    assert decompress(compress(data, coding), coding, LIMIT) == data


def test_gzip_is_that_of_the_standard_library() -> None:
    assert gzip.decompress(compress(b"photo", "gzip")) == b"photo"
    assert decompress(gzip.compress(b"photo"), "gzip", LIMIT) == b"photo"


def test_deflate_is_that_of_zlib() -> None:
    assert zlib.decompress(compress(b"photo", "deflate")) == b"photo"
    assert decompress(zlib.compress(b"photo"), "deflate", LIMIT) == b"photo"


@pytest.mark.parametrize("coding", ["identity", " GZIP "])
def test_codings_have_no_case(coding: str) -> None:
    data = b"photo" if coding == "identity" else gzip.compress(b"photo")
    assert decompress(data, coding, LIMIT) == b"photo"


@pytest.mark.parametrize("coding", ["br", "gzip, gzip", "", "x" * 1000])
def test_another_coding_is_refused_by_name(coding: str) -> None:
    with pytest.raises(UnsupportedMediaType, match="must be gzip, deflate or identity") as refusal:
        decompress(b"", coding, LIMIT)
    assert len(str(refusal.value)) < 200


@given(codings)
def test_a_body_of_the_limit_is_accepted(coding: str) -> None:
    assert len(decompress(compress(bytes(LIMIT), coding), coding, LIMIT)) == LIMIT


@pytest.mark.parametrize("size", [LIMIT + 1, 50_000_000])
@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_bomb_is_refused_with_the_limit(coding: str, size: int) -> None:
    with pytest.raises(BodyTooLarge, match=f"more than the limit of {LIMIT} bytes"):
        decompress(compress(bytes(size), coding), coding, LIMIT)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda packed: packed[:-1], "a truncated one"),
        (lambda packed: b"", "a truncated one"),
        (lambda packed: packed + b"x", "bytes after its end"),
        (lambda packed: packed + packed, "bytes after its end"),
        (lambda packed: b"x" + packed, "body must be valid"),
    ],
    ids=["cut", "empty", "followed", "doubled", "other"],
)
def test_an_invalid_stream_is_refused(coding: str, change: object, said: str) -> None:
    assert callable(change)
    with pytest.raises(InvalidParameter, match=said):
        decompress(change(compress(b"photo", coding)), coding, LIMIT)


@given(st.binary(), st.sampled_from(["gzip", "deflate", "identity", "br"]))
def test_any_bytes_are_taken_or_refused(data: bytes, coding: str) -> None:
    with contextlib.suppress(RequestError):
        assert len(decompress(data, coding, LIMIT)) <= max(LIMIT, len(data))


@pytest.mark.parametrize(
    ("header", "coding"),
    [
        (None, "identity"),
        ("", "identity"),
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("gzip, deflate, br, zstd", "gzip"),
        ("deflate, gzip", "gzip"),
        ("br", "identity"),
        ("*", "identity"),
        ("GZIP", "gzip"),
        ("gzip;q=0", "identity"),
        ("gzip;q=0.5, deflate;q=0.8", "deflate"),
        ("gzip ; q=0.000, deflate", "deflate"),
        ("gzip;q=high", "identity"),
        (",,;q=1,", "identity"),
    ],
)
def test_the_response_has_the_coding_that_the_client_prefers(header: str | None, coding: str) -> None:
    assert accepted(header) == coding


@given(st.text())
def test_any_header_is_read(header: str) -> None:
    assert accepted(header) in ("gzip", "deflate", "identity")
