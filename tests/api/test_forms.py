"""Every form of a body is parsed, or refused by name."""

from __future__ import annotations

import base64

import httpx
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
        "binary/octet-stream",
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


def part(disposition: str, data: bytes, *headers: str) -> bytes:
    lines = [f"Content-Disposition: form-data; {disposition}", *headers]
    return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + data


def parse_parts(*parts: bytes) -> ParsedBody:
    body = b"".join(b"--x\r\n" + one + b"\r\n" for one in parts) + b"--x--\r\n"
    return parse("multipart/form-data; boundary=x", body)


@pytest.mark.parametrize(
    "name",
    ["file", "image", "images", "files", "file[]", "files[]", "image[]", "images[]", "files[0]", "File"],
)
def test_images_have_the_names_that_clients_of_other_services_use(name: str) -> None:
    assert parse_parts(part(f'name="{name}"; filename="a.jpg"', b"\xff\xd8")).images == (b"\xff\xd8",)


def test_images_of_several_names_keep_their_order() -> None:
    found = parse_parts(part('name="image"', b"1"), part('name="files[]"', b"2"), part('name="file"', b"3"))
    assert found == ParsedBody((b"1", b"2", b"3"), as_list=True)


def test_a_file_of_another_name_is_refused_by_it() -> None:
    said = r"^upload must be named file: images are taken from parts named file; got .*cat\.jpg"
    with pytest.raises(InvalidParameter, match=said):
        parse_parts(part('name="file"', b"1"), part('name="upload"; filename="cat.jpg"', b"2"))


def test_an_empty_file_input_adds_no_image() -> None:
    """A browser sends one for each input without a chosen file."""
    empty = part('name="file"; filename=""', b"", "Content-Type: application/octet-stream")
    photo = part('name="file"; filename="a.jpg"', b"1")
    assert parse_parts(photo, empty) == ParsedBody((b"1",), as_list=False)
    assert len(parse_parts(*[photo] * MAX_IMAGES, empty).images) == MAX_IMAGES
    with pytest.raises(InvalidParameter, match="at least one part named 'file' holding an image"):
        parse_parts(empty)


@pytest.mark.parametrize("name", ["file", "submit"])
def test_the_number_of_parts_that_add_nothing_is_limited(name: str) -> None:
    """Each costs as much time as a part that adds something."""
    empty = part(f'name="{name}"', b"")
    photo = part('name="file"', b"1")
    assert parse_parts(photo, *[empty] * 32).images == (b"1",)
    with pytest.raises(
        InvalidParameter, match=rf"^{name} must be given at most 32 times without a file; got 'more th"
    ):
        parse_parts(photo, *[empty] * 33)


def test_an_empty_file_that_was_chosen_is_an_entry() -> None:
    assert parse_parts(part('name="file"; filename="a.jpg"', b""), part('name="file"', b"1")).images == (
        b"",
        b"1",
    )


def test_the_button_that_sends_a_form_is_no_option() -> None:
    photo = part('name="file"; filename="a.jpg"', b"1")
    found = parse_parts(photo, part('name="submit"', b"Classify"), part('name="top_k"', b""))
    assert found.options == (RawOption("form", "top_k", ""),)


@pytest.mark.parametrize(
    ("coding", "data"),
    [
        ("base64", b"/9g9\r\nAA==\r\n"),
        ("BASE64", b"_9g9AA"),
        ("quoted-printable", b"=FF=D8=3D=\r\n=00"),
        ("binary", b"\xff\xd8=\x00"),
        ("8bit", b"\xff\xd8=\x00"),
    ],
)
def test_the_transfer_coding_of_a_part_is_undone(coding: str, data: bytes) -> None:
    header = f"Content-Transfer-Encoding: {coding}"
    assert parse_parts(part('name="file"; filename="a.jpg"', data, header)).images == (b"\xff\xd8=\x00",)


def test_a_field_may_have_a_transfer_coding_too() -> None:
    coded = part('name="model"', b"=C3=BC", "Content-Transfer-Encoding: quoted-printable")
    assert parse_parts(part('name="file"', b"1"), coded).options == (RawOption("form", "model", "ü"),)


@pytest.mark.parametrize(
    ("coding", "kind"), [("base64", ImageUndecodable), ("x-uuencode", UnsupportedMediaType)]
)
def test_a_bad_transfer_coding_spoils_only_its_own_entry(coding: str, kind: type[RequestError]) -> None:
    bad = part('name="file"; filename="a.jpg"', b"%%", f"Content-Transfer-Encoding: {coding}")
    good, error = parse_parts(part('name="file"', b"1"), bad).images
    assert good == b"1"
    assert isinstance(error, kind)


def test_a_part_or_a_body_may_be_a_data_url() -> None:
    url = b"data:image/jpeg;base64,/9g="
    assert parse_parts(part('name="file"', url)).images == parse(None, url).images == (b"\xff\xd8",)


def test_a_body_that_is_a_url_is_not_fetched() -> None:
    with pytest.raises(ImageUndecodable, match="URLs and paths are not fetched"):
        parse("image/jpeg", b"https://example.org/a.jpg")
    (error,) = parse_parts(part('name="image"', b"https://example.org/a.jpg")).images
    assert isinstance(error, ImageUndecodable)


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
    given = (RawOption("JSON body", "top_k", 3), RawOption("JSON body", "model", None))
    assert found == ParsedBody((b"photo",), as_list=False, options=given)


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


#: Bytes that begin like a URL are one, whatever carries them.
NO_URL = st.binary().filter(lambda data: b":" not in data)


@given(st.lists(NO_URL, min_size=2, max_size=MAX_IMAGES))
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
