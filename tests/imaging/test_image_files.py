"""Which entries of a folder are image files."""

from __future__ import annotations

import os
from pathlib import Path

from prunepool.imaging.image_files import SUFFIXES, find_files


def test_every_suffix_in_any_case_sorted(tmp_path: Path) -> None:
    names = [f"{i}{suffix.upper() if i % 2 else suffix}" for i, suffix in enumerate(sorted(SUFFIXES))]
    (tmp_path / "below").mkdir()
    for name in names:
        (tmp_path / "below" / name).touch()
    found = find_files(tmp_path)
    assert found.files == tuple(sorted(tmp_path / "below" / name for name in names))
    assert found.notice == ""
    assert {".jfif", ".jpe", ".jpg"} <= SUFFIXES


def test_what_is_passed_over_is_counted(tmp_path: Path) -> None:
    for folder in ("cats", ".ipynb_checkpoints", "__MACOSX/cats"):
        (tmp_path / folder).mkdir(parents=True)
    for name in (
        "cats/a.jpg",
        "cats/._a.jpg",
        "__MACOSX/cats/._a.jpg",
        ".ipynb_checkpoints/a.jpg",
        "cats/notes.txt",
    ):
        (tmp_path / name).touch()
    (tmp_path / "link.jpg").symlink_to("cats/a.jpg")
    (tmp_path / "broken.jpg").symlink_to("nowhere")
    (tmp_path / "round").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe.jpg")
    found = find_files(tmp_path)
    assert found.files == (tmp_path / "cats/a.jpg", tmp_path / "link.jpg")
    assert found.notice == "skipped 7: 3 hidden, 1 links to folders, 2 no regular files, 1 of other kinds"


def test_a_hidden_folder_that_is_named_is_searched(tmp_path: Path) -> None:
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "a.jpg").touch()
    assert find_files(tmp_path / ".cache").files == (tmp_path / ".cache" / "a.jpg",)


def test_a_folder_that_cannot_be_read_is_counted(tmp_path: Path) -> None:
    assert find_files(tmp_path / "nowhere").notice == "skipped 1: 1 folders that cannot be read"
