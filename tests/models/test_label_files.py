"""Names of classes, from the files that people have them in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunepool.errors import InvalidParameter
from prunepool.models.label_files import read_labels

LABELS = ("cat", "dog", "grand piano")
BY_INDEX = {"1": "dog", "0": "cat", "2": "grand piano"}
BY_NAME = {"dog": 1, "cat": 0, "grand piano": 2}
IDS = ("n01440764", "n02102040", "n02979186")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("l.txt", "cat\ndog\ngrand piano\n"),
        ("l.txt", "cat\r\ndog\r\n  grand piano\n\n\n"),
        ("l.txt", "\ufeffcat\ndog\ngrand piano"),
        ("l.txt", "n01440764 cat\nn02102040 dog\nn02979186\tgrand piano\n"),
        ("labels", "cat\ndog\ngrand piano\n"),
        ("l.json", '["cat", "dog", "grand piano"]'),
        ("L.JSON", '\ufeff["cat", "dog", "grand piano"]\r\n'),
    ],
)
def test_labels_are_read_in_order(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    assert read_labels(tmp_path / name) == LABELS


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("l.csv", "index,name\n1,dog\n0,cat\n2,grand piano\n"),
        ("l.csv", "\ufeffid;label\r\n0;cat\r\n1;dog\r\n2;grand piano\r\n"),
        ("l.csv", ",name\n0,cat\n1,dog\n2,grand piano"),
        ("l.csv", "synset,Class,class_id\nn1,cat,0\nn2,dog,1\nn3,grand piano,2\n"),
        ("l.csv", "label\ncat\ndog\ngrand piano\n"),
        ("l.csv", "cat\ndog\ngrand piano\n\n"),
        ("l.csv", "0,cat\n1,dog\n2,grand piano\n"),
        ("l.csv", 'cat,0\n"dog",1\n"grand piano",2\n'),
        ("l.csv", "n01440764,cat\nn02102040,dog\nn02979186,grand piano\n"),
        ("L.TSV", "0\tcat\n1\tdog\n2\tgrand piano\n"),
    ],
)
def test_tables_are_read_by_their_header_or_their_columns(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    assert read_labels(tmp_path / name) == LABELS


def test_a_name_in_a_table_may_have_commas(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text('id,name\n0,"tench, Tinca tinca"\n1,goldfish\n')
    assert read_labels(tmp_path / "l.csv") == ("tench, Tinca tinca", "goldfish")


@pytest.mark.parametrize(
    "document",
    [
        list(LABELS),
        BY_INDEX,
        BY_NAME,
        {"id2label": BY_INDEX, "label2id": BY_NAME, "architectures": ["ViT"]},
        {"label2id": BY_NAME},
        {"class_to_idx": BY_NAME},
        {"classes": list(LABELS)},
        {"labels": list(LABELS)},
        {"names": BY_INDEX, "nc": 3},
        {str(index): [IDS[index], label] for index, label in enumerate(LABELS)},
        [[IDS[index], label] for index, label in enumerate(LABELS)],
        [{"id": 1, "name": "dog"}, {"id": 0, "name": "cat"}, {"id": 2, "name": "grand piano"}],
        [{"label": label} for label in LABELS],
        dict(zip(reversed(IDS), reversed(LABELS), strict=True)),
        {"architecture": "deit_tiny_patch16_224", "num_classes": 3, "label_names": list(LABELS)},
        {"pretrained_cfg": {"label_names": list(LABELS)}},
        {"label_names": list(IDS), "label_descriptions": dict(zip(IDS, LABELS, strict=True))},
        {
            "pretrained_cfg": {
                "label_names": list(IDS),
                "label_descriptions": dict(zip(IDS, LABELS, strict=True)),
            }
        },
    ],
    ids=lambda document: json.dumps(document)[:40],
)
def test_every_form_of_json_is_read(tmp_path: Path, document: Any) -> None:
    (tmp_path / "l.json").write_text(json.dumps(document))
    assert read_labels(tmp_path / "l.json") == LABELS


def test_a_line_ends_at_a_newline_and_nowhere_else(tmp_path: Path) -> None:
    """Python's splitlines() ends it at U+2028 too, and all labels after it moved by one without a word."""
    lines = ["tench\u2028fish", "b\u2029", "犬", *"defghi"]
    (tmp_path / "l.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert read_labels(tmp_path / "l.txt") == tuple(lines)


@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1).filter(
            lambda text: text == text.strip(" ")
        ),
        min_size=1,
    ),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["", "\ufeff"]),
)
def test_what_is_written_is_read(tmp_path_factory: Any, labels: list[str], end: str, mark: str) -> None:
    path = tmp_path_factory.getbasetemp() / "labels.txt"
    path.write_bytes((mark + end.join(labels) + end).encode())
    if not mark and labels[0].startswith("\ufeff"):
        labels[0] = labels[0][1:]
        if not labels[0].strip(" "):
            return
    assert read_labels(path) == tuple(label.strip(" ") for label in labels)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("l.txt", b"", "one label a line; line 1 is empty"),
        ("l.txt", b"cat\n\ndog", "one label a line; line 2 is empty"),
        ("l.txt", b"\xff\xff", "a readable file of UTF-8 text; line 1 has the byte 0xff"),
        ("l.txt", b"cat\nT\xfcre\n", "UTF-8 text; line 2 has the byte 0xfc"),
        ("l.txt", "cat\x85b\nc\x0bd\n".encode(), r"line 1 has '\x85' in 'cat\x85b'"),
        ("l.txt", b"cat\rdog\rfox", r"line 1 has '\r'"),
        ("l.txt", b"0\tcat\n1\tdog", r"line 1 has '\t' in '0\tcat'"),
        ("l.xlsx", b"PK", "a .txt file with a label a line, .json or .csv; it is a .xlsx"),
        ("l.csv", b"", "a table of indices and names; it is empty"),
        ("l.csv", b"id,name\n", "it has a header and no line after it"),
        ("l.csv", b"id,name\n0,cat\n2,dog\n", "a table with the indices 0 to 1; 1 is missing"),
        ("l.csv", b"id,name\n0,cat\n0,dog\n", "each once; 'cat' and 'dog' have 0"),
        ("l.csv", b"id,name\n0,cat\nx,dog\n", "with the indices 0 to 1; it has 'x'"),
        ("l.csv", b"id,name\n0,cat\n1,\n", "none of them empty; line 3 has no name"),
        ("l.csv", b"id,name\n0,cat\n1\n", "line 3 has 1 columns, separated by ','"),
        (
            "l.csv",
            b"file,label_index\na.jpg,0\n",
            "line 1 has 'file', 'label_index': it names no column name",
        ),
        ("l.csv", b'id,name\n0,"cat\n', "line 3: unexpected end of data"),
        ("l.csv", "0,T\xfcre".encode("latin1"), "UTF-8 text; line 1 has the byte 0xfc"),
        ("l.json", b"{", "a JSON list of names"),
        ("l.json", b"3", "; it is 3"),
        ("l.json", b"null", "; it is null"),
        ("l.json", b'"tench"', '; it is "tench"'),
        ("l.json", b"[]", "; it is empty"),
        ("l.json", b"{}", "; it is empty"),
        ("l.json", b'"cat"\n"dog"\n', "it may have a document a line"),
        ("l.json", b'["cat", 3]', "of text that is not empty; number 1 is 3"),
        ("l.json", b"[0, 1, 2]", "number 0 is 0"),
        ("l.json", b'["cat", ""]', "number 1 is ''"),
        ("l.json", b'["cat", " "]', "number 1 is ' '"),
        ("l.json", b'{"0": "cat", "2": "dog"}', "with the indices 0 to 1; 1 is missing"),
        ("l.json", b'{"1": "cat", "2": "dog"}', "with the indices 0 to 1; 0 is missing"),
        ("l.json", b'{"0": "cat", "x": "dog"}', "with the indices 0 to 1; it has 'x'"),
        ("l.json", b'{"0": "cat", "00": "dog"}', "it has '00'"),
        ("l.json", b'{"' + b"9" * 5000 + b'": "cat"}', "it has '9999"),
        ("l.json", b'{"cat": 0, "dog": 0}', "each once; 'cat' and 'dog' have 0"),
        ("l.json", b'{"0": "cat", "0": "dog"}', "'0' is there 2 times"),
        ("l.json", b'{"cat": true, "dog": false}', "it has 'cat'"),
        (
            "l.json",
            b'[{"id": 0, "name": "a"}, {"id": 0, "name": "b"}]',
            "each once; 'a' and 'b' have 0",
        ),
        ("l.json", b'[{"id": 7, "name": "a"}]', "with the indices 0 to 0; 0 is missing"),
        ("l.json", b'[{"x": 0}]', "number 0 is None"),
        ("l.json", b'[{"id": [], "name": "a"}]', "it has '[]'"),
        ("l.json", b'["a\\u001bb"]', r"number 0 has '\x1b' in 'a\x1bb'"),
        ("l.json", b"[" * 100_000, "nested too deeply"),
    ],
)
def test_other_files_are_one_line_with_place_and_value(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidParameter) as caught:
        read_labels(tmp_path / name)
    assert message in caught.value.detail
    assert caught.value.parameter == "labels"
    assert "\n" not in caught.value.detail


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match="No such file"):
        read_labels(tmp_path / "none.txt")


def test_a_file_without_end_is_not_read_to_it() -> None:
    with pytest.raises(InvalidParameter, match="is a device; only regular files are read"):
        read_labels(Path("/dev/zero"))
