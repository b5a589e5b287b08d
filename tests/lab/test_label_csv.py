"""Which CSVs of labels are read, and what is said of the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from prunepool.errors import InvalidParameter
from prunepool.lab.label_csv import read_label_csv

HEAD = b"file,label_index\n"


@pytest.mark.parametrize(
    "content",
    [
        HEAD + b"1.jpg,8\n2.jpg,0\n",
        b"\xef\xbb\xbf" + HEAD + b"1.jpg,8\n2.jpg,0",
        b"file,label_index\r\n1.jpg,8\r\n2.jpg,0\r\n",
        b"file;label_index\n1.jpg;8\n2.jpg;0\n",
        b"file\tlabel_index\n1.jpg\t8\n2.jpg\t0\n",
        b"File,Label_Index\n1.jpg,8\n2.jpg,0\n",
        b"file, label_index\n1.jpg, 8\n2.jpg, 0\n",
        HEAD + b'"1.jpg","8"\n2.jpg,0\n',
        b'author,label_index,file\n"a, b",8,1.jpg\n,0,2.jpg\n',
        HEAD + b"1.jpg,8\n\n2.jpg,0\n\n\n",
    ],
)
def test_what_people_and_spreadsheets_write_is_read(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "l.csv").write_bytes(content)
    rows = read_label_csv(tmp_path / "l.csv", 10)
    assert [(row.name, row.label) for row in rows] == [("1.jpg", 8), ("2.jpg", 0)]
    lines = content.split(b"\n")
    assert all(row.name.encode() in lines[row.line - 1] for row in rows)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "a CSV with the columns file and label_index; line 1 has none"),
        (b"name,label_index\n1.jpg,8\n", "line 1 has 'name', 'label_index', separated by ','"),
        (b"file|label_index\n1.jpg|8\n", "line 1 has 'file|label_index'"),
        (b"file,file,label_index\n1.jpg,1.jpg,8\n", "line 1 has 'file', 'file', 'label_index'"),
        (HEAD + b"1.jpg,10\n", "an integer from 0 to 9 ({path}, line 2, column label_index); got '10'"),
        (HEAD + b"1.jpg,-1\n", "line 2, column label_index); got '-1'"),
        (HEAD + b"1.jpg,8\n2.jpg,golf ball\n", "line 3, column label_index); got 'golf ball'"),
        (HEAD + "1.jpg,٨\n".encode(), "line 2, column label_index); got '٨'"),
        (HEAD + b"1.jpg,8\0\n", r"line 2, column label_index); got '8\x00'"),
        (HEAD + b"1.jpg\n", "line 2, column label_index); got None"),
        (HEAD + b"1.jpg," + b"8" * 5000 + b"\n", "line 2, column label_index)"),
        (HEAD + b",8\n", "the name of an image ({path}, line 2, column file)"),
        (HEAD + b"1.jpg,8\n2.jpg,8\n1.jpg,7\n", "line 4, column file; line 2 has it too); got '1.jpg'"),
        (HEAD + b"caf\xe9.jpg,8\n", "a CSV of UTF-8 text; line 2 has the byte 0xe9"),
        ("file,label_index\n".encode("utf-16"), "a CSV of UTF-8 text; line 1 has the byte 0xff"),
        (HEAD + b'"1.jpg,8\n', "a CSV that can be read (line "),
        (b"file,label_index\r1.jpg,8\r", "a CSV that can be read (line "),
    ],
)
def test_what_cannot_be_is_one_line_with_row_and_column(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "l.csv"
    path.write_bytes(content)
    with pytest.raises(InvalidParameter) as caught:
        read_label_csv(path, 10)
    assert message.format(path=path) in caught.value.detail
    assert "\n" not in caught.value.detail
