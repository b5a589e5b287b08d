"""Every form of a body is parsed, or refused by name."""

from __future__ import annotations

import base64

import httpx
import orjson
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from prunepool.api import base64_images
from prunepool.api.base64_images import decode_image_text
from prunepool.api.forms import ParsedBody, parse_body
from prunepool.api.options import RawOption
from prunepool.errors import ImageUndecodable, InvalidParameter, RequestError, UnsupportedMediaType

MAX_IMAGES = 4


def parse(content_type: str | None, body: bytes) -> ParsedBody:
    return parse_body(content_type, body, MAX_IMAGES)


def form(files: list[bytes], fields: dict[str, str] | None = None) -> tuple[str, bytes]:
    request = httpx.Request(
        "POST", "http://test", files=[("file", ("a.jpg", data)) for data in files], data=fields or {}
    )
    return request.headers["content-type"], request.read()


def json(document: object) -> tuple[str, bytes]:
    return "application/json", orjson.dumps(document)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "image/jpeg",
        "IMAGE/PNG",
        "image/webp; charset=binary",
        "image/x-unheard-of",
        "application/octet-stream",
    ],
)
def test_raw_bytes_are_one_image(content_type: str | None) -> None:
    assert parse(content_type, b"\xff\xd8photo") == ParsedBody((b"\xff\xd8photo",), as_list=False)


@pytest.mark.parametrize(
    "content_type", [None, "image/jpeg", "multipart/form-data; boundary=x", "application/json"]
)
def test_an_empty_body_holds_no_image(content_type: str | None) -> None:
    with pytest.raises(ImageUndecodable, match="empty"):
        parse(content_type, b"")


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "video/mp4", "nonsense", "multipart/mixed"],
)
def test_another_content_type_is_refused_with_the_allowed_ones(content_type: str) -> None:
    with pytest.raises(UnsupportedMediaType, match=r"image/\*.*multipart/form-data.*application/json"):
        parse(content_type, b"x")


def test_curl_s_own_content_type_gets_a_hint() -> None:
    with pytest.raises(UnsupportedMediaType, match="with curl, add -H 'Content-Type"):
        parse("application/x-www-form-urlencoded", b"x")


def test_one_file_of_a_form_is_one_image() -> None:
    assert parse(*form([b"one"])) == ParsedBody((b"one",), as_list=False)


def test_several_files_of_a_form_keep_their_order() -> None:
    found = parse(*form([b"one", b"two", b"three"]))
    assert found == ParsedBody((b"one", b"two", b"three"), as_list=True)


def test_form_fields_are_options() -> None:
    found = parse(*form([b"one"], {"top_k": "3", "model": "ü"}))
    assert set(found.options) == {RawOption("form", "top_k", "3"), RawOption("form", "model", "ü")}


def test_a_file_part_needs_no_file_name() -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n\xff\xd8\r\n\r\n--x--\r\n'
    assert parse("multipart/form-data; boundary=x", body).images == (b"\xff\xd8\r\n",)


def test_a_form_without_a_file_names_what_is_missing() -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="top_k"\r\n\r\n3\r\n--x--\r\n'
    with pytest.raises(InvalidParameter) as error:
        parse("multipart/form-data; boundary=x", body)
    assert str(error.value) == (
        "file must be in the form: at least one part named 'file' holding an image; got None"
    )


@pytest.mark.parametrize(
    ("content_type", "body", "value"),
    [
        ("multipart/form-data", b"--x\r\n", "no boundary in the Content-Type"),
        ("multipart/form-data; boundary=x", b"no boundary here", "boundary"),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\ncut sho',
            "59 bytes without the closing boundary",
        ),
        (
            "multipart/form-data; boundary=x",
            b"--x\r\nContent-Disposition: form-data\r\n\r\nnameless\r\n--x--\r\n",
            "a part with Content-Disposition 'form-data'",
        ),
        ("multipart/form-data; boundary=" + "x" * 300, b"--x\r\n", "Boundary length 300"),
    ],
    ids=["no boundary", "garbage", "cut short", "nameless part", "long boundary"],
)
def test_a_broken_form_is_refused_with_what_is_broken(content_type: str, body: bytes, value: str) -> None:
    with pytest.raises(InvalidParameter) as error:
        parse(content_type, body)
    assert error.value.parameter == "body"
    assert value in str(error.value.extra["value"])


def test_the_number_of_files_is_limited() -> None:
    assert len(parse(*form([b"x"] * MAX_IMAGES)).images) == MAX_IMAGES
    with pytest.raises(InvalidParameter, match="at most 4 times"):
        parse(*form([b"x"] * (MAX_IMAGES + 1)))


def test_a_form_field_is_limited_in_length() -> None:
    with pytest.raises(InvalidParameter, match="at most 1024 bytes"):
        parse(*form([b"x"], {"model": "m" * 1025}))


def test_the_number_of_form_fields_is_limited() -> None:
    with pytest.raises(InvalidParameter, match="at most 32"):
        parse(*form([b"x"], {f"f{i}": "1" for i in range(33)}))


def test_json_with_one_image() -> None:
    found = parse(*json({"image": b64(b"photo"), "top_k": 3, "model": None}))
    assert found == ParsedBody((b"photo",), as_list=False, options=(RawOption("JSON body", "top_k", 3),))


@pytest.mark.parametrize("count", [1, 3])
def test_json_with_a_list_is_answered_with_a_list(count: int) -> None:
    found = parse(*json({"images": [b64(b"photo")] * count}))
    assert found == ParsedBody((b"photo",) * count, as_list=True)


def test_a_bad_entry_of_a_list_fails_alone() -> None:
    good, bad, other = parse(*json({"images": [b64(b"a"), "%%%", "data:text/html;base64,AAAA"]})).images
    assert good == b"a"
    assert isinstance(bad, ImageUndecodable)
    assert isinstance(other, UnsupportedMediaType)


@pytest.mark.parametrize(
    ("document", "parameter"),
    [
        ([], "body"),
        ("text", "body"),
        (None, "body"),
        ({}, "body"),
        ({"top_k": 3}, "body"),
        ({"image": "AAAA", "images": ["AAAA"]}, "body"),
        ({"image": 3}, "image"),
        ({"image": ["AAAA"]}, "image"),
        ({"images": "AAAA"}, "images"),
        ({"images": []}, "images"),
        ({"images": ["AAAA"] * (MAX_IMAGES + 1)}, "images"),
        ({"images": ["AAAA", 3]}, "images[1]"),
    ],
)
def test_json_of_another_shape_is_refused_by_name(document: object, parameter: str) -> None:
    with pytest.raises(InvalidParameter) as error:
        parse(*json(document))
    assert error.value.parameter == parameter


@pytest.mark.parametrize("body", [b"{", b"\xff", b"NaN", b'{"image": "A', b"[" * 900])
def test_what_is_not_json_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidParameter, match="valid JSON"):
        parse("application/json", body)


@pytest.mark.parametrize(
    "text",
    [
        "/+8=",
        "_-8=",
        " /+\n8=\r\n",
        "data:image/png;base64,/+8=",
        "data:;base64,/+8=",
        "data:application/octet-stream;base64,/+8=",
        "data:image/png;charset=x;base64,/+8=",
    ],
)
def test_base64_in_every_notation(text: str) -> None:
    assert decode_image_text(text) == b"\xff\xef"


@pytest.mark.parametrize(
    "text", ["", "A", "AAA", "%", "data:image/png,AAAA", "data:", "data:image/png;base64,", "é"]
)
def test_text_that_is_no_image(text: str) -> None:
    with pytest.raises(ImageUndecodable):
        decode_image_text(text)


@given(st.binary(min_size=1))
def test_any_bytes_survive_base64(data: bytes) -> None:
    assert decode_image_text(b64(data)) == data
    assert decode_image_text("data:image/jpeg;base64," + base64.encodebytes(data).decode()) == data


@given(st.text("AZaz09+/-_= \n", max_size=40))
def test_the_boundaries_of_pieces_do_not_matter(text: str) -> None:
    """Whatever the pieces, the whole text is taken or refused as the standard library does."""
    text = text.translate(str.maketrans("-_", "+/", " \n"))
    # Python before 3.13 takes padding behind a complete group, later ones do not.
    assume(text == text.rstrip("=") or len(text.rstrip("=")) % 4)
    try:
        plain = base64.b64decode(text, validate=True)
    except ValueError:
        plain = b""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base64_images, "_PIECE", 4)
        if plain:
            assert decode_image_text(text) == plain
        else:
            with pytest.raises(ImageUndecodable):
                decode_image_text(text)


@given(st.lists(st.binary(), min_size=2, max_size=MAX_IMAGES))
def test_any_bytes_survive_a_form(files: list[bytes]) -> None:
    assert parse(*form(files)).images == tuple(files)


TYPES = st.one_of(
    st.sampled_from(
        [
            "multipart/form-data; boundary=x",
            "multipart/form-data",
            "application/json",
            "application/json; charset=utf-16",
            "image/jpeg",
            "application/x-www-form-urlencoded",
        ]
    ),
    st.text(st.characters(max_codepoint=255)),
    st.none(),
)
FORM_PIECES = st.lists(
    st.sampled_from(
        [
            b"--x",
            b"--x--",
            b"\r\n",
            b"\n",
            b'Content-Disposition: form-data; name="file"; filename="a"',
            b'Content-Disposition: form-data; name="top_k"',
            b"Content-Disposition",
            b":",
            b"\xff\xd8\xff",
            b"1",
        ]
    )
).map(b"".join)
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["image", "images", "top_k", "x"]), inner)
    ),
).map(orjson.dumps)


@given(TYPES, st.one_of(st.binary(), FORM_PIECES, JSON_VALUES))
def test_any_body_is_parsed_or_refused(content_type: str | None, body: bytes) -> None:
    found: ParsedBody | None = None
    refusal: dict[str, object] = {}
    try:
        found = parse(content_type, body)
    except RequestError as error:
        refusal = error.problem()
    if found is None:
        assert refusal["status"] in (400, 415, 422)
        assert orjson.dumps(refusal)
        return
    assert 1 <= len(found.images) <= MAX_IMAGES
    assert found.as_list or len(found.images) == 1


@pytest.mark.parametrize("part", ["[]", "{}", "1", '"a"'])
def test_json_with_too_many_elements_is_refused_before_parsing(part: str) -> None:
    body = b'{"images": [' + b",".join([part.encode()] * 2_000) + b"]}"
    with pytest.raises(InvalidParameter, match=r"at most 1016 brackets and commas; got \d+$"):
        parse_body("application/json", body, 4)


def test_json_with_the_largest_number_of_data_urls_is_parsed() -> None:
    body = orjson.dumps({"images": ["data:image/jpeg;base64,AAAA"] * 128, "top_k": 1})
    assert len(parse_body("application/json", body, 128).images) == 128
