"""`prunepool classify`: files, folders and standard input; in process and by a server."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from prunepool.api.listening import claim
from prunepool.errors import EngineUnavailable
from prunepool.imaging import ImageLimits
from prunepool.serving.options import InferenceOptions
from prunepool.settings import Settings
from prunepool.testing import FakeService

Run = Callable[..., Any]


@pytest.fixture
def photos(folder: Path) -> Path:
    """A folder with two images, one in a folder below, and something else."""
    (folder / "photos" / "below").mkdir(parents=True)
    (folder / "photos" / "one.jpg").write_bytes(b"one")
    (folder / "photos" / "below" / "two.PNG").write_bytes(b"two")
    (folder / "photos" / "notes.txt").write_text("not an image")
    return folder / "photos"


@pytest.fixture
def server(folder: Path, serving: Any) -> Iterator[tuple[str, FakeService]]:
    """A real server, and its engine."""
    engine = FakeService()
    with serving(Settings(), engine) as url:
        yield url, engine


def test_a_file_gets_a_line(run: Run, engine: FakeService, photos: Path) -> None:
    result = run("classify", str(photos / "one.jpg"), "--reduction-ratio", "0.5", "--top-k", "2")
    assert (result.status, result.err) == (0, "")
    (line,) = result.out.splitlines()
    assert line.startswith(f"{photos / 'one.jpg'}: class ")
    assert line.count("%") == 2
    assert "[ratio 0.5, 0.75 GMACs, 3.5 ms]" in line
    assert engine.calls == [(b"one", InferenceOptions(reduction_ratio=0.5, top_k=2))]
    assert engine.closed


@pytest.mark.parametrize("by_server", [False, True])
def test_without_a_profile_max_accuracy_drop_is_refused(
    run: Run, engine: FakeService, server: tuple[str, FakeService], photos: Path, by_server: bool
) -> None:
    where = ("--url", server[0]) if by_server else ()
    result = run("classify", "photos/one.jpg", "--max-accuracy-drop", "0.5", *where)
    assert (result.status, result.out) == (2, "")
    assert result.err.startswith("prunepool: max_accuracy_drop must be left out for fake: its profile was")


def test_a_folder_stands_for_the_images_in_and_below_it(run: Run, engine: FakeService, photos: Path) -> None:
    result = run("classify", "photos", "--json")
    assert [json.loads(line)["file"] for line in result.out.splitlines()] == [
        "photos/below/two.PNG",
        "photos/one.jpg",
    ]


def test_results_keep_the_order_of_the_files(run: Run, engine: FakeService, folder: Path) -> None:
    names = [f"{i}.jpg" for i in range(50)]
    for name in names:
        (folder / name).write_bytes(name.encode())
    result = run("classify", "--json", *reversed(names))
    assert [json.loads(line)["file"] for line in result.out.splitlines()] == names[::-1]


def test_json_has_the_members_of_the_api(run: Run, engine: FakeService, photos: Path) -> None:
    answer = json.loads(run("classify", "--json", "photos/one.jpg").out)
    assert set(answer) == {"file", "model", "predictions", "reduction", "timing_ms", "batch_size"}


def test_standard_input(run: Run, engine: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"piped")))
    result = run("classify", "-")
    assert (result.status, result.out[:3]) == (0, "-: ")
    assert engine.calls[0][0] == b"piped"


@pytest.mark.parametrize("by_server", [False, True])
def test_what_cannot_be_classified_has_its_own_line_and_fails_the_call(
    run: Run, engine: FakeService, server: tuple[str, FakeService], photos: Path, by_server: bool
) -> None:
    (photos / "bad.jpg").write_bytes(b"bad")
    where = ("--url", server[0]) if by_server else ()
    names = ("photos/bad.jpg", "photos/missing.jpg", "photos/one.jpg", "photos/below")
    result = run("classify", *names, *where)
    assert result.status == 1
    assert [line.split(": ")[0] for line in result.out.splitlines()] == [
        "photos/one.jpg",
        "photos/below/two.PNG",
    ]
    assert result.err.splitlines() == [
        "prunepool: photos/bad.jpg: 3 bytes are not an image that can be decoded",
        "prunepool: photos/missing.jpg: No such file or directory",
    ]


@pytest.mark.parametrize("by_server", [False, True])
def test_what_is_no_regular_file_is_refused_without_being_read(
    run: Run, engine: FakeService, server: tuple[str, FakeService], photos: Path, by_server: bool
) -> None:
    os.mkfifo(photos / "pipe.jpg")
    (photos / "zeros.jpg").symlink_to("/dev/zero")
    where = ("--url", server[0]) if by_server else ()
    result = run("classify", "photos/pipe.jpg", "photos/zeros.jpg", "photos/one.jpg", *where)
    assert result.status == 1
    assert [line.split(": ")[0] for line in result.out.splitlines()] == ["photos/one.jpg"]
    assert result.err.splitlines() == [
        "prunepool: photos/pipe.jpg: is a named pipe; only regular files are read",
        "prunepool: photos/zeros.jpg: is a device; only regular files are read",
    ]


def test_an_empty_name_is_not_the_working_folder(run: Run, engine: FakeService, photos: Path) -> None:
    result = run("classify", "")
    assert (result.status, result.out, engine.calls) == (2, "", [])
    assert "the name of a file or folder is empty" in result.err


def test_standard_input_without_end_is_refused(
    run: Run, engine: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageLimits, "max_bytes", 1000)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(bytes(1001))))
    result = run("classify", "-")
    assert (result.status, result.err) == (
        1,
        "prunepool: -: has more than 1,000 bytes, the most that are read\n",
    )


def test_an_empty_folder_is_an_error(run: Run, engine: FakeService, folder: Path) -> None:
    (folder / "empty").mkdir()
    result = run("classify", "empty")
    assert (result.status, result.err) == (1, "prunepool: empty: the folder holds no images\n")


def test_what_is_no_image_file_is_passed_over_and_counted(
    run: Run, engine: FakeService, folder: Path
) -> None:
    (folder / "photos" / ".ipynb_checkpoints").mkdir(parents=True)
    for name in (
        "a.jfif",
        "b.JPE",
        "c.mpo",
        "._a.jfif",
        ".hidden.jpg",
        ".ipynb_checkpoints/d.jpg",
        "notes.txt",
    ):
        (folder / "photos" / name).write_bytes(b"one")
    os.mkfifo(folder / "photos" / "pipe.jpg")
    (folder / "photos" / "endless.jpg").symlink_to("/dev/zero")
    (folder / "photos" / "nothing.jpg").symlink_to("nowhere")
    (folder / "photos" / "again").symlink_to(folder / "photos")
    result = run("classify", "photos", "--json")
    assert result.status == 0
    assert [json.loads(line)["file"] for line in result.out.splitlines()] == [
        f"photos/{name}" for name in ("a.jfif", "b.JPE", "c.mpo")
    ]
    assert result.err == (
        "prunepool: photos: skipped 8: 3 hidden, 1 links to folders, 3 no regular files, 1 of other kinds\n"
    )


def test_errors_in_json_are_objects_too(run: Run, engine: FakeService, photos: Path) -> None:
    (photos / "bad.jpg").write_bytes(b"bad")
    result = run("classify", "--json", "photos/bad.jpg", "nope.jpg")
    codes = [json.loads(line)["error"]["code"] for line in result.out.splitlines()]
    assert (result.status, codes) == (1, ["image_undecodable", "unreadable"])


def test_a_server_answers_as_the_process_does(
    run: Run, engine: FakeService, server: tuple[str, FakeService], photos: Path
) -> None:
    here = run("classify", "--json", "photos", "--reduction-ratio", "0.25")
    there = run("classify", "--json", "photos", "--reduction-ratio", "0.25", "--url", server[0])
    assert there.out == here.out
    assert sorted(image for image, _ in server[1].calls) == [b"one", b"two"]


def test_a_server_is_asked_for_the_ratio_that_the_process_takes(
    run: Run, engine: FakeService, server: tuple[str, FakeService], photos: Path
) -> None:
    here, there = (run("classify", "--json", "photos", *where) for where in ((), ("--url", server[0])))
    applied = [
        [json.loads(line)["reduction"]["applied"] for line in result.out.splitlines()]
        for result in (here, there)
    ]
    assert applied[0] == applied[1] == [0.5, 0.5]
    assert [options.reduction_ratio for _, options in server[1].calls] == [0.5, 0.5]


@pytest.mark.parametrize("by_server", [False, True])
def test_every_option_reaches_the_engine(
    run: Run, engine: FakeService, server: tuple[str, FakeService], photos: Path, by_server: bool
) -> None:
    where = ("--url", server[0]) if by_server else ()
    given = ("--reduction-ratio", "auto", "--max-reduction-ratio", "0.25", "--deadline-ms", "900")
    result = run("classify", "photos/one.jpg", "--json", "--explain", *given, *where)
    asked = (server[1] if by_server else engine).calls[0][1]
    assert asked == InferenceOptions(
        reduction_ratio="auto", max_reduction_ratio=0.25, deadline_ms=900.0, explain=True
    )
    assert json.loads(result.out)["token_map"]["grid"] == [14, 14]


def test_the_map_of_a_server_is_that_of_the_process(
    run: Run, engine: FakeService, server: tuple[str, FakeService], photos: Path
) -> None:
    here, there = (
        run("classify", "photos", "--json", "--explain", "--reduction-ratio", "0.5", *where)
        for where in ((), ("--url", server[0]))
    )
    assert there.out == here.out


def test_a_model_is_named_to_the_server(run: Run, server: tuple[str, FakeService], photos: Path) -> None:
    assert run("classify", "photos/one.jpg", "--url", server[0], "--model", "fake").status == 0
    assert server[1].calls[0][1].model == "fake"
    assert run("classify", "photos/one.jpg", "--url", server[0], "--model", "nope").status == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("--reduction-ratio", "0.9"),
            "reduction_ratio must be auto or a number between 0 and 0.8724; got 0.9",
        ),
        (("--reduction-ratio", "most"), "reduction_ratio must be a number or auto; got 'most'"),
        (("--top-k", "0"), "top_k must be an integer between 1 and 10; got 0"),
        (("--url", "localhost:8000"), "--url must be http://… or https://…; got 'localhost:8000'"),
        (("--url", "http://localhost:1", "--device", "cpu"), "--device is a setting of the server"),
        (("--dtype", "int4"), "--dtype is 'int4'"),
    ],
)
def test_a_wrong_call_is_one_line(
    run: Run, refused: Any, engine: FakeService, photos: Path, arguments: tuple[str, ...], said: str
) -> None:
    assert said in refused(run("classify", "photos", *arguments))
    assert engine.calls == []


def test_a_ratio_that_the_server_refuses_is_a_wrong_call(
    run: Run, refused: Any, server: tuple[str, FakeService], photos: Path
) -> None:
    line = refused(run("classify", "photos", "--url", server[0], "--reduction-ratio", "0.9"))
    assert "between 0 and 0.8724; got 0.9" in line


def test_a_missing_server_is_reported_once(run: Run, photos: Path) -> None:
    with claim("127.0.0.1", 0) as nobody:
        result = run("classify", "photos", "--url", nobody.url)
    (line,) = result.err.splitlines()
    assert (result.status, result.out) == (1, "")
    assert line.startswith("prunepool: no answer from http://127.0.0.1:")


def test_the_engine_is_closed_when_it_cannot_start(run: Run, engine: FakeService, photos: Path) -> None:
    async def fail() -> None:
        raise EngineUnavailable("no memory left", retry_after=1)

    engine.start = fail  # type: ignore[method-assign]
    result = run("classify", "photos")
    assert (result.status, result.err) == (1, "prunepool: no memory left\n")
    assert engine.closed
