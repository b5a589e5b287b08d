"""JSON bodies: one value for each key, and nothing that a parser would choose by itself."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunepool.api.json_bodies import MarksLimit, brackets_and_commas, parse_json
from prunepool.errors import InvalidParameter

LIMIT = brackets_and_commas(1000)


def parse(text: str | bytes) -> object:
    return parse_json(text.encode() if isinstance(text, str) else text, LIMIT)


@pytest.mark.parametrize("text", ['{"a": 1}', '\ufeff{"a": 1}', '{"a": 1, "a": 1}', '{"a": 1, "a": 1.0}'])
def test_a_body_is_read_with_a_byte_order_mark_and_with_a_key_that_says_the_same_twice(text: str) -> None:
    assert parse(text) == {"a": 1}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '{"top_k": 1, "top_k": 3}',
            "top_k must be given once, or the same each time; got '1 and 3 (JSON body)'",
        ),
        ('{"top_k" :1, "top_k"\n: 3}', "top_k must be"),
        ('{"top_k": 1, "t\\u006fp_k": 3}', "top_k must be"),
        ('{"parameters": {"k": 1, "x": [], "k": 2}}', "k must be"),
        ('{"inputs": [{"name": "a"}, {"shape": 1, "shape": [1]}]}', "shape must be"),
        ('[[[{"k": 1, "k": 2}]]]', "k must be"),
        ('{"note": "\\":", "k": 1, "k": 2}', "k must be"),
        ('{"a\\\\": "\\\\\\":", "a\\\\": 2}', "a\\ must be"),
        ('{"#1": 1, "#1": 2}', "#1 must be"),
        ('{":": ":", " :": 1, ":": 2}', ": must be"),
        ('{"image": "AAAA", "image": "' + "B" * 9000 + '"}', "image must be"),
        ('{"' + "k" * 9000 + '": 1, "' + "k" * 9000 + '": 2}', "kkk"),
    ],
)
def test_a_key_with_two_values_is_refused_by_name(text: str, said: str) -> None:
    with pytest.raises(InvalidParameter) as refusal:
        parse(text)
    assert str(refusal.value).startswith(said)
    assert len(refusal.value.detail) < 400


def test_one_key_in_several_objects_is_no_repetition() -> None:
    document = {"a": {"a": [{"a": 1}, {"a": 2}], "b": '"a": 1, "a": 2'}}
    assert parse(orjson.dumps(document)) == document


def test_another_encoding_is_named() -> None:
    with pytest.raises(InvalidParameter, match="body must be JSON in UTF-8; got 'UTF-16'"):
        parse("{}".encode("utf-16"))


@pytest.mark.parametrize("text", ["", "\ufeff", "{", '{"a": NaN, "a": 1}', "[" * 999])
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(InvalidParameter, match="body must be valid JSON"):
        parse(text)


def test_a_repetition_below_many_levels_is_found() -> None:
    text = '{"b": 1, "b": 1, "a":' * 300 + '{"c": 1, "c": 2}' + "}" * 300
    with pytest.raises(InvalidParameter, match=r"^c must be given once"):
        parse_json(text.encode(), brackets_and_commas(10_000))


@pytest.mark.parametrize(
    "value", ['{"k": 1}', '[{"k": 1}]', "[1, 2]", '"x"'], ids=["object", "list of objects", "list", "text"]
)
def test_what_is_given_twice_and_equal_is_read_unless_it_holds_objects(value: str) -> None:
    text = f'{{"a": {value}, "a": {value}}}'
    if "{" in value:
        with pytest.raises(InvalidParameter, match=r"^a must be given once.* and (an object|a list) \(JSON"):
            parse(text)
    else:
        assert parse(text) == {"a": orjson.loads(value)}


def test_the_number_of_keys_is_limited() -> None:
    """So that no body is parsed for long, whatever its keys and texts hold."""
    limit = MarksLimit((b"[",), 1, "lists")
    for text in (b"{" + b'"":1,' * 10_000 + b'"b":1}', b'{"a":"' + b'\\":' * 10_000 + b'"}'):
        with pytest.raises(InvalidParameter, match="JSON with at most 10000 keys; got 'more than 10000'"):
            parse_json(text, limit)


def test_the_marks_of_a_document_are_counted_before_it_is_parsed() -> None:
    with pytest.raises(InvalidParameter, match=r"at most 1000 brackets and commas; got 1001$"):
        parse("[" * 1001)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-9, 9) | st.text('a":, \\', max_size=6),
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(st.text('a":\\ #', max_size=3), inner, max_size=4)
        ),
        max_leaves=20,
    ),
    st.booleans(),
)
def test_what_a_program_writes_is_read_back(document: Any, spaced: bool) -> None:
    text = json.dumps(document, separators=(" ,\n", " : ") if spaced else (",", ":"))
    assert parse(text) == document


@given(st.lists(st.tuples(st.text('a":\\ #', max_size=2), st.integers(0, 2)), max_size=5))
def test_an_object_is_refused_exactly_if_a_key_has_two_values(pairs: list[tuple[str, int]]) -> None:
    text = "{" + ",".join(f"{json.dumps(key)}:{value}" for key, value in pairs) + "}"
    contradicts = len(set(pairs)) > len({key for key, _ in pairs})
    try:
        found = parse(text)
    except InvalidParameter:
        assert contradicts
    else:
        assert not contradicts
        assert found == dict(pairs)
