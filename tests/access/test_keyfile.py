"""The file of keys: parsing, adding and removing."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunepool.access import Key, KeysFile, Rate, digest_of, new_key
from prunepool.access.keyfile import line_of, parse
from prunepool.access.keys import hide_keys
from prunepool.errors import InvalidParameter

DIGEST = digest_of("pp_alice")
HEX = DIGEST.hex()
OTHER = digest_of("pp_bob").hex()
NOWHERE = Path("keys.toml")


@pytest.fixture
def file(tmp_path: Path) -> KeysFile:
    return KeysFile(tmp_path / "keys.toml")


def test_a_key_is_long_random_and_fits_a_header() -> None:
    keys = {new_key().get_secret_value() for _ in range(100)}
    assert len(keys) == 100
    for key in keys:
        assert key.startswith("pp_")
        assert len(key) == 46
        assert key.isascii()
        assert key.replace("-", "").replace("_", "").isalnum()


def test_a_new_file_is_readable_by_its_owner_only(file: KeysFile) -> None:
    file.add(Key("alice", DIGEST))
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert file.read() == {"alice": Key("alice", DIGEST)}


def test_the_key_itself_is_not_in_the_file(file: KeysFile) -> None:
    key = new_key().get_secret_value()
    file.add(Key("alice", digest_of(key)))
    assert key not in file.path.read_text()
    assert key.removeprefix("pp_") not in file.path.read_text()


names = st.from_regex(r"\A[A-Za-z0-9_-]{1,64}\Z")
keys = st.builds(
    Key,
    names,
    st.binary(min_size=32, max_size=32),
    st.none() | st.builds(Rate, st.floats(1e-6, 1e9), st.floats(1, 1e9)),
    st.none() | st.dates(date(1, 1, 1)),
)


@given(st.lists(keys, unique_by=(lambda key: key.name, lambda key: key.digest)))
def test_what_is_written_is_what_is_read(written: list[Key]) -> None:
    text = "".join(map(line_of, written))
    assert text.count("\n") == len(written)
    assert parse(text, NOWHERE) == {key.name: key for key in written}


def test_other_lines_stay_unchanged(file: KeysFile) -> None:
    text = f'# ours\nbob = {{ sha256 = "{OTHER}" }} # until May'
    file.path.write_text(text)
    file.add(Key("alice", DIGEST, Rate(0.5, 3.0), date(2026, 1, 31)))
    added = f'alice = {{ sha256 = "{HEX}", rate = 0.5, burst = 3.0, created = 2026-01-31 }}\n'
    assert file.path.read_text() == f"{text}\n{added}"
    file.remove("bob")
    assert file.path.read_text() == f"# ours\n{added}"


def test_a_name_with_the_same_prefix_stays(file: KeysFile) -> None:
    file.add(Key("al", digest_of("pp_1")))
    file.add(Key("al-2", digest_of("pp_2")))
    file.remove("al")
    assert set(file.read()) == {"al-2"}


@pytest.mark.parametrize("text", [f'[bob]\nsha256 = "{OTHER}"\n', f'bob.sha256 = "{OTHER}"\n'])
def test_a_key_that_is_not_on_one_line_is_not_removed(file: KeysFile, text: str) -> None:
    file.path.write_text(text)
    assert set(file.read()) == {"bob"}
    with pytest.raises(InvalidParameter, match="by hand"):
        file.remove("bob")
    assert file.path.read_text() == text


def test_a_name_can_be_used_once(file: KeysFile) -> None:
    file.add(Key("alice", DIGEST))
    with pytest.raises(InvalidParameter, match="NAME"):
        file.add(Key("alice", bytes(32)))
    assert file.read()["alice"].digest == DIGEST


def test_an_unknown_key_cannot_be_removed(file: KeysFile) -> None:
    file.add(Key("alice", DIGEST))
    with pytest.raises(InvalidParameter, match="there are: alice"):
        file.remove("bob")


@pytest.mark.parametrize("name", ["", "a b", "ä", "a.b", "a=b", "x" * 65, "a\n"])
def test_invalid_names(file: KeysFile, name: str) -> None:
    with pytest.raises(InvalidParameter, match="1 to 64 letters"):
        file.add(Key(name, DIGEST))
    assert not file.path.exists()


def test_mode_and_link_survive_a_change(file: KeysFile, tmp_path: Path) -> None:
    file.add(Key("alice", DIGEST))
    file.path.chmod(0o640)
    link = tmp_path / "link"
    link.symlink_to(file.path)
    KeysFile(link).add(Key("bob", bytes(32)))
    assert link.is_symlink()
    assert set(file.read()) == {"alice", "bob"}
    assert file.path.stat().st_mode & 0o777 == 0o640


def test_no_temporary_file_is_left(file: KeysFile, tmp_path: Path) -> None:
    file.add(Key("alice", DIGEST))
    with pytest.raises(InvalidParameter):
        file.remove("bob")
    assert [path.name for path in tmp_path.iterdir()] == ["keys.toml"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("alice", "it is not TOML"),
        ("alice = 1", "it must be { sha256"),
        ("alice = {}", "sha256 must be 64 lower-case hexadecimal digits"),
        ('alice = { sha256 = "abc" }', "sha256 must be 64"),
        (f'alice = {{ sha256 = "{HEX.upper()}" }}', "sha256 must be 64"),
        (f'alice = {{ sha256 = "{HEX}", rat = 1 }}', "it has 'rat', and may have"),
        (f'alice = {{ sha256 = "{HEX}", rate = 0 }}', "rate must be above 0"),
        (f'alice = {{ sha256 = "{HEX}", rate = nan }}', "rate must be above 0"),
        (f'alice = {{ sha256 = "{HEX}", rate = inf }}', "rate must be above 0"),
        (f'alice = {{ sha256 = "{HEX}", rate = "1" }}', "rate must be a number"),
        (f'alice = {{ sha256 = "{HEX}", rate = true }}', "rate must be a number"),
        (f'alice = {{ sha256 = "{HEX}", rate = 1, burst = 0.5 }}', "burst must be at least 1"),
        (f'alice = {{ sha256 = "{HEX}", burst = 2 }}', "burst needs a rate"),
        (f'alice = {{ sha256 = "{HEX}", created = "May" }}', "created must be a date"),
        (f'alice = {{ sha256 = "{HEX}", admin = 1 }}', "admin must be true or false"),
        (f'"a b" = {{ sha256 = "{HEX}" }}', "its name must be 1 to 64"),
        (f'alice = {{ sha256 = "{HEX}" }}\nbob = {{ sha256 = "{HEX}" }}', "is the same key as 'alice'"),
    ],
)
def test_invalid_files(file: KeysFile, text: str, said: str) -> None:
    file.path.write_text(text)
    with pytest.raises(InvalidParameter) as error:
        file.read()
    assert said in error.value.detail
    assert str(file.path) in error.value.detail
    assert HEX not in error.value.detail


def test_without_a_burst_one_second_s_worth_and_at_least_one() -> None:
    text = f'a = {{ sha256 = "{HEX}", rate = 20 }}\nb = {{ sha256 = "{OTHER}", rate = 0.1 }}'
    found = parse(text, NOWHERE)
    assert (found["a"].rate, found["b"].rate) == (Rate(20, 20), Rate(0.1, 1))


def test_no_file_is_named(file: KeysFile) -> None:
    with pytest.raises(InvalidParameter, match=r"api_keys_file must be .*No such file"):
        file.read()


def test_bytes_that_are_not_text(file: KeysFile) -> None:
    file.path.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidParameter, match="not UTF-8"):
        file.read()


def test_a_file_of_windows_is_read_and_changed(file: KeysFile) -> None:
    file.path.write_bytes(f'\ufeffbob = {{ sha256 = "{OTHER}" }}\r\n'.encode())
    assert set(file.read()) == {"bob"}
    file.add(Key("alice", DIGEST))
    assert set(file.read()) == {"alice", "bob"}
    file.remove("bob")
    assert set(file.read()) == {"alice"}


def test_a_pipe_is_not_waited_for(file: KeysFile) -> None:
    os.mkfifo(file.path)
    with pytest.raises(InvalidParameter, match="is a named pipe; only regular files are read"):
        file.read()


def test_a_key_s_hash_is_not_shown() -> None:
    assert HEX not in repr(Key("alice", DIGEST))
    assert repr(DIGEST) not in repr(Key("alice", DIGEST))


@given(st.text(), st.text())
def test_no_key_is_left_in_a_text(before: str, after: str) -> None:
    key = new_key().get_secret_value()
    assert key.removeprefix("pp_") not in hide_keys(f"{before}{key}{after}")


def test_a_change_changes_the_stamp(file: KeysFile) -> None:
    stamps = [file.stamp()]
    file.add(Key("alice", DIGEST))
    stamps.append(file.stamp())
    file.add(Key("bob", bytes(32)))
    stamps.append(file.stamp())
    assert stamps[0] is None
    assert len(set(stamps)) == 3
