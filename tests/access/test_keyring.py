"""Keys are found, charged and reloaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from prunepool.access import Key, Keyring, Rate, digest_of
from prunepool.access.keyring import CHECK_INTERVAL_S
from prunepool.errors import InvalidParameter, RateLimited, Unauthorized


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Source:
    """Keys in memory; counts the checks."""

    keys: dict[str, Key] = field(default_factory=dict)
    version: int = 0
    looks: int = 0
    reads: int = 0
    broken: bool = False

    def put(self, *keys: Key) -> None:
        self.keys = {key.name: key for key in keys}
        self.version += 1

    def read(self) -> Mapping[str, Key]:
        self.reads += 1
        if self.broken:
            raise InvalidParameter("api_keys_file", "keys", "readable")
        return self.keys

    def stamp(self) -> int:
        self.looks += 1
        return self.version


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def source() -> Source:
    made = Source()
    made.put(alice(), Key("bob", digest_of("pp_bob")))
    return made


@pytest.fixture
def keyring(source: Source, clock: Clock) -> Keyring:
    return Keyring(source, clock)


def alice(key: str = "pp_alice", rate: Rate | None = None) -> Key:
    return Key("alice", digest_of(key), rate)


def test_a_key_finds_its_caller(keyring: Keyring) -> None:
    assert keyring.identify(SecretStr("pp_alice")).name == "alice"
    assert keyring.identify(SecretStr("pp_bob")).name == "bob"


@pytest.mark.parametrize("key", ["", "pp_", "pp_alic", "pp_alicee", "PP_ALICE", "alice", "ü" * 1000])
def test_an_unknown_key_is_refused(keyring: Keyring, key: str) -> None:
    with pytest.raises(Unauthorized) as error:
        keyring.identify(SecretStr(key))
    assert key not in error.value.detail or not key


def test_a_hash_is_no_key(keyring: Keyring) -> None:
    with pytest.raises(Unauthorized):
        keyring.identify(SecretStr(digest_of("pp_alice").hex()))


def test_every_hash_is_compared_every_time(keyring: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(one)
        return one == other

    monkeypatch.setattr("prunepool.access.keyring.hmac.compare_digest", compare)
    keyring.identify(SecretStr("pp_alice"))
    with pytest.raises(Unauthorized):
        keyring.identify(SecretStr("nobody's"))
    assert compared == [digest_of("pp_alice"), digest_of("pp_bob")] * 2


def test_a_file_that_cannot_be_read_fails_the_start(clock: Clock) -> None:
    with pytest.raises(InvalidParameter):
        Keyring(Source(broken=True), clock)


def test_a_start_without_keys_logs_a_warning(clock: Clock) -> None:
    with capture_logs() as lines:
        keyring = Keyring(Source(), clock)
    assert [line["log_level"] for line in lines] == ["warning"]
    with pytest.raises(Unauthorized):
        keyring.identify(SecretStr("pp_alice"))


def test_a_change_is_noticed(keyring: Keyring, source: Source, clock: Clock) -> None:
    source.put(alice("pp_new"))
    clock.now = CHECK_INTERVAL_S
    assert keyring.identify(SecretStr("pp_new")).name == "alice"
    for revoked in ("pp_alice", "pp_bob"):
        with pytest.raises(Unauthorized):
            keyring.identify(SecretStr(revoked))


def test_the_file_is_not_checked_with_every_request(keyring: Keyring, source: Source, clock: Clock) -> None:
    source.looks = source.reads = 0
    for _ in range(1000):
        clock.now += CHECK_INTERVAL_S / 100
        keyring.identify(SecretStr("pp_alice"))
    assert 9 <= source.looks <= 11
    assert source.reads == 0


def test_a_reload_does_not_wait(keyring: Keyring, source: Source) -> None:
    source.put(alice("pp_new"))
    keyring.reload()
    assert keyring.identify(SecretStr("pp_new")).name == "alice"


def test_an_unreadable_file_changes_nothing_and_is_logged_once(
    keyring: Keyring, source: Source, clock: Clock
) -> None:
    source.broken, source.version = True, 99
    with capture_logs() as lines:
        for _ in range(5):
            clock.now += 2 * CHECK_INTERVAL_S
            assert keyring.identify(SecretStr("pp_alice")).name == "alice"
    assert [(line["log_level"], line["event"]) for line in lines] == [("error", "API keys not reloaded")]
    source.broken, source.version = False, 100
    source.put(alice("pp_new"))
    clock.now += 2 * CHECK_INTERVAL_S
    assert keyring.identify(SecretStr("pp_new")).name == "alice"


def limited(clock: Clock, rate: Rate) -> tuple[Keyring, Source]:
    source = Source()
    source.put(alice(rate=rate))
    return Keyring(source, clock), source


def test_images_are_counted_not_requests(clock: Clock) -> None:
    keyring, _ = limited(clock, Rate(10, 5))
    caller = keyring.identify(SecretStr("pp_alice"))
    caller.spend(3)
    caller.spend(2)
    with pytest.raises(RateLimited) as error:
        caller.spend(4)
    assert error.value.retry_after == pytest.approx(0.4)
    assert "'alice' may send 10 images a second, 5 at once" in error.value.detail
    clock.now += 0.4
    caller.spend(4)


def test_more_images_than_the_burst_are_refused_for_good(clock: Clock) -> None:
    keyring, _ = limited(clock, Rate(10, 5.5))
    with pytest.raises(InvalidParameter, match="images must be at most 5 at once") as error:
        keyring.identify(SecretStr("pp_alice")).spend(6)
    assert error.value.status == 422


def test_a_check_is_not_charged(clock: Clock) -> None:
    keyring, _ = limited(clock, Rate(10, 1))
    caller = keyring.identify(SecretStr("pp_alice"))
    caller.check()
    caller.check()
    caller.spend(1)
    with pytest.raises(RateLimited):
        caller.check()


def test_without_a_rate_there_is_no_limit(keyring: Keyring) -> None:
    caller = keyring.identify(SecretStr("pp_alice"))
    for _ in range(100):
        caller.spend(1000)


def test_a_reload_gives_no_second_burst(clock: Clock) -> None:
    keyring, _ = limited(clock, Rate(10, 5))
    keyring.identify(SecretStr("pp_alice")).spend(5)
    keyring.reload()
    with pytest.raises(RateLimited):
        keyring.identify(SecretStr("pp_alice")).spend(1)


def test_a_new_rate_applies_from_the_reload(clock: Clock) -> None:
    keyring, source = limited(clock, Rate(10, 5))
    keyring.identify(SecretStr("pp_alice")).spend(5)
    source.put(alice(rate=Rate(10, 7)))
    keyring.reload()
    keyring.identify(SecretStr("pp_alice")).spend(7)


def test_no_key_and_no_hash_is_logged(keyring: Keyring, source: Source) -> None:
    with capture_logs() as lines:
        keyring.reload()
        with pytest.raises(Unauthorized):
            keyring.identify(SecretStr("pp_wrong"))
    assert "pp_" not in str(lines)
    assert digest_of("pp_alice").hex() not in str(lines)
