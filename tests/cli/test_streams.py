"""Standard streams that are closed, full, unread or of another encoding: a line, and never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("fake_command.py")


def command(
    *arguments: str | bytes, shell: str = "", stdout: int = subprocess.PIPE, **variables: str
) -> tuple[int, str, str]:
    """Run `prunepool` over a fake engine, with redirections of a shell."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PRUNEPOOL_")}
    words = [os.fsencode(word) for word in (sys.executable, SCRIPT, *arguments)]
    if shell:
        words = [b"sh", b"-c", os.fsencode(f'exec "$@" {shell}'), b"sh", *words]
    done = subprocess.run(
        words,
        stdout=stdout,
        stderr=subprocess.PIPE,
        env={**environment, **variables},
        timeout=60,
        check=False,
    )
    return done.returncode, (done.stdout or b"").decode(), done.stderr.decode()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for index in range(3):
        (tmp_path / "photos" / f"{index}.jpg").write_bytes(str(index).encode())
    return tmp_path / "photos"


@pytest.mark.parametrize("arguments", [("--help",), ("classify", "PHOTOS")])
def test_output_that_nobody_reads_ends_a_command_without_a_word(
    arguments: tuple[str, ...], photos: Path
) -> None:
    """As `| head -1` does."""
    reader, writer = os.pipe()
    os.close(reader)
    status, _, err = command(
        *(str(photos) if word == "PHOTOS" else word for word in arguments), stdout=writer
    )
    os.close(writer)
    assert (status, err) == (141, "")


@pytest.mark.parametrize(
    ("arguments", "shell", "why"),
    [
        (("models", "list"), ">/dev/full", "No space left on device"),
        (("classify", "PHOTOS"), ">&-", "Bad file descriptor"),
    ],
)
def test_output_that_cannot_be_written_is_one_line(
    arguments: tuple[str, ...], shell: str, why: str, photos: Path
) -> None:
    given = (str(photos) if word == "PHOTOS" else word for word in arguments)
    status, out, err = command(*given, shell=shell)
    assert (status, out) == (1, "")
    assert err == f"prunepool: standard output cannot be written: {why}\n"


def test_without_standard_error_and_input_the_status_says_it(photos: Path) -> None:
    assert command("classify", shell="2>&-") == (2, "", "")
    assert command("classify", "-", shell="<&-") == (1, "", "prunepool: -: Bad file descriptor\n")


def test_an_encoding_that_lacks_a_character_gets_its_escape(photos: Path) -> None:
    image, label = str(photos / "0.jpg"), r"T\xfcre"
    status, out, err = command("classify", image, FAKE_LABEL=label, PYTHONIOENCODING="ascii")
    assert (status, err) == (0, "")
    assert r"0.jpg: T\xfcre " in out
    status, out, err = command("classify", "--json", image, FAKE_LABEL=label, LC_ALL="C", PYTHONUTF8="0")
    assert (status, err) == (0, "")
    assert out.isascii()
    assert json.loads(out)["predictions"][0]["label"] == "Türe"


def test_file_names_and_labels_are_shown_whatever_they_are(photos: Path) -> None:
    for path in photos.iterdir():
        path.unlink()
    name = os.fsencode(photos) + b"/caf\xe9\x1b[31m\n.jpg"
    Path(os.fsdecode(name)).write_bytes(b"one")
    status, out, err = command("classify", str(photos), FAKE_LABEL=r"\x1b]0;title\x07")
    assert (status, err) == (0, "")
    (line,) = out.splitlines()
    assert r"/caf\xe9\x1b[31m\n.jpg: \x1b]0;title\x07" in line
    status, out, err = command("classify", "--json", name, name + b".png")
    assert status == 1
    found, missing = map(json.loads, out.splitlines())
    assert found["file"].endswith("/caf\\xe9\x1b[31m\n.jpg")
    assert missing["error"]["code"] == "unreadable"
    status, out, err = command("classify", name + b".png")
    assert (status, out) == (1, "")
    assert err == rf"prunepool: {photos}/caf\xe9\x1b[31m\n.jpg.png: No such file or directory" + "\n"
