"""`prunepool serve`: settings from three places, and real processes that start, drain and end."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from prunepool.api.listening import claim
from prunepool.server import single
from prunepool.settings import Settings

TIMEOUT_S = 30.0
Run = Callable[..., Any]


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The settings of every server that would have been started."""
    seen: list[Settings] = []

    def serve(settings: Settings, announce: object, reread: object) -> int:
        seen.append(settings)
        return 0

    monkeypatch.setattr(single, "serve", serve)
    return seen


def test_every_setting_is_a_flag(run: Run) -> None:
    out = run("serve", "--help").out
    for name in Settings.model_fields:
        assert f"--{name.replace('_', '-')} " in out
        assert f"PRUNEPOOL_{name.upper()}" in out


def test_a_flag_wins_over_the_environment_and_that_over_the_file(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, served: list[Settings]
) -> None:
    (folder / "prunepool.toml").write_text('max_batch_size = 1\nport = 1001\nhost = "::1"\n')
    monkeypatch.setenv("PRUNEPOOL_MAX_BATCH_SIZE", "2")
    monkeypatch.setenv("PRUNEPOOL_PORT", "1002")
    assert run("serve", "--max-batch-size", "3").status == 0
    (settings,) = served
    assert (settings.max_batch_size, settings.port, settings.host) == (3, 1002, "::1")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--port", "99999"), "--port is '99999': it must be less than or equal to 65535"),
        (("--max-batch-size", "0"), "--max-batch-size is '0': it must be greater than 0"),
        (
            ("--max-batch-size", "1000000"),
            "--max-batch-size is '1000000': it must be less than or equal to 4096",
        ),
        (("--max-wait-ms", "inf"), "--max-wait-ms is 'inf': it must be less than or equal to 60000"),
        (
            ("--request-timeout-s", "inf"),
            "--request-timeout-s is 'inf': it must be less than or equal to 86400",
        ),
        (("--frontends", "1000000"), "--frontends is '1000000': it must be less than or equal to 256"),
        (("--compute-threads", "1000000"), "it must be less than or equal to 1024"),
        (("--decode-threads", "1000000"), "it must be less than or equal to 1024"),
        (
            ("--dtype", "int4"),
            "--dtype is 'int4': it must be 'auto', 'float32', 'bfloat16', 'float16' or 'int8'",
        ),
        (("--default-reduction-ratio", "1"), "--default-reduction-ratio is 1.0: it must be less than 1"),
        (("--default-reduction-ratio", "most"), "it must be auto or a number"),
        (("--device", "tpu"), "--device is 'tpu'"),
        (
            ("--cors-origins", "a.example"),
            "it must be * or comma-separated origins like https://photos.example",
        ),
        (
            ("--trusted-proxies", "everybody"),
            "it must be comma-separated addresses or networks like 10.0.0.0/8",
        ),
        (
            ("--otel-endpoint", "localhost"),
            "--otel-endpoint is 'localhost': it must be http://… or https://…",
        ),
        (
            ("--model-control", "explicit", "--host", "0.0.0.0"),
            "model_control must be none where 0.0.0.0 can be reached by others and api_keys_file is unset",
        ),
        (
            ("--port", "8500", "--grpc-port", "8500"),
            "grpc_port must be another port than `port`, which is HTTP's; got 8500",
        ),
        (("--devices", "cpu,tpu"), "--devices is"),
    ],
)
def test_a_wrong_flag_is_named_with_its_value_and_limit(
    run: Run, refused: Any, arguments: tuple[str, ...], said: str
) -> None:
    assert said in refused(run("serve", *arguments))


def test_a_wrong_variable_is_named(run: Run, refused: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNEPOOL_PORT", "tcp://10.0.0.1:80")
    assert "PRUNEPOOL_PORT is 'tcp://10.0.0.1:80'" in refused(run("serve"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"port = 99999", "port in prunepool.toml is 99999: it must be less than or equal to 65535"),
        (b"prot = 8000", "prunepool.toml: there is no setting 'prot'"),
        (b"port =", "prunepool.toml is not TOML"),
        (b"port = 8011\r", "prunepool.toml is not TOML"),
        ("port = ٨".encode(), "prunepool.toml is not TOML"),
        ("port = 8011\n".encode("utf-16"), "prunepool.toml is not UTF-8: line 1 has the byte 0xff"),
        (b"# one\nport = 8011 # gr\xfcn\n", "prunepool.toml is not UTF-8: line 2 has the byte 0xfc"),
        (b"port = 8011\n\0", "prunepool.toml is not UTF-8 text: line 2 has a byte 0"),
        (b"port = true", "port in prunepool.toml is True: it must not be true or false"),
        (b"default_reduction_ratio = false", "is False: it must not be true or false"),
        (b"Port = 1\nport = 2", "prunepool.toml: Port and port are the same setting"),
        (b"[port]\na = 1", "port in prunepool.toml is {'a': 1}"),
        (
            b"max_wait_ms = inf",
            "max_wait_ms in prunepool.toml is inf: it must be less than or equal to 60000",
        ),
    ],
)
def test_a_wrong_file_is_named(run: Run, refused: Any, folder: Path, text: bytes, said: str) -> None:
    (folder / "prunepool.toml").write_bytes(text)
    assert said in refused(run("serve"))


@pytest.mark.parametrize("text", [b"\xef\xbb\xbfport = 8011\r\n", b"port = 8011\n", b"Port = 8011"])
def test_a_file_of_windows_is_read(run: Run, folder: Path, text: bytes) -> None:
    (folder / "prunepool.toml").write_bytes(text)
    assert "port                     8011" in run("settings").out


def test_a_settings_file_that_is_none_is_not_passed_over(run: Run, refused: Any, folder: Path) -> None:
    (folder / "prunepool.toml").symlink_to("nowhere")
    assert "prunepool.toml is a link to nothing" in refused(run("serve"))
    (folder / "prunepool.toml").unlink()
    os.mkfifo(folder / "prunepool.toml")
    assert "prunepool.toml is no regular file" in refused(run("serve"))


def test_a_port_in_use_is_one_line(run: Run, engine: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("serve", "--port", str(port))
    assert (result.status, result.out) == (1, "")
    (line,) = result.err.splitlines()
    assert f"127.0.0.1:{port}" in line
    assert "in use" in line


def test_a_grpc_port_in_use_is_one_line_that_names_its_setting(run: Run, engine: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("serve", "--port", "0", "--grpc-port", str(port))
    assert (result.status, result.out) == (1, "")
    (line,) = result.err.splitlines()
    assert f"cannot listen on 127.0.0.1:{port} for gRPC: Address already in use" in line
    assert "choose another with --grpc-port" in line


def test_a_host_that_is_none_is_one_line_before_anything_is_loaded(run: Run) -> None:
    result = run("serve", "--host", "no.such.host.invalid", "--model", "no-such-model")
    assert (result.status, result.out) == (1, "")
    (line,) = result.err.splitlines()
    assert "cannot listen on 'no.such.host.invalid': " in line
    assert line.endswith("choose another with --host")


@dataclass
class Process:
    """A server process that has announced itself."""

    popen: subprocess.Popen[str]
    line: str

    @property
    def url(self) -> str:
        found = re.search(r"http://\S+", self.line)
        assert found, self.line
        return found.group()

    def wait_held(self) -> None:
        assert self.popen.stdout is not None
        assert self.popen.stdout.readline() == "held\n"

    def end(self) -> tuple[int, str]:
        """Its exit status and what it wrote on standard error."""
        _, err = self.popen.communicate(timeout=TIMEOUT_S)
        return self.popen.returncode, err


Start = Callable[..., Process]


def wait(condition: Callable[[], bool]) -> None:
    """Wait until something is so; what a server that is full does to a connection is no answer yet."""
    end = time.monotonic() + TIMEOUT_S
    while True:
        with suppress(httpx.TransportError):
            if condition():
                return
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Start `prunepool serve` as a process, over an engine that holds its answers."""
    script = Path(__file__).with_name("held_server.py")
    with ExitStack() as stack:

        def start(*flags: str, fails: bool = False, open_files: int | None = None) -> Process:
            limit = [] if open_files is None else ["sh", "-c", f'ulimit -n {open_files}; exec "$@"', "sh"]
            popen = stack.enter_context(
                subprocess.Popen(
                    [*limit, sys.executable, str(script), "serve", "--port", "0", *flags],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    env={**os.environ, **({"HELD_SERVER_FAILS": "1"} if fails else {})},
                )
            )
            stack.callback(popen.kill)
            assert popen.stdout is not None
            return Process(popen, popen.stdout.readline())

        yield start


@pytest.mark.e2e
def test_it_announces_model_and_address(start: Start) -> None:
    process = start()
    assert re.fullmatch(
        r"prunepool \S+ serves fake on cpu in float32 at http://127\.0\.0\.1:\d+ \(ready in \d+\.\d s\)\n",
        process.line,
    )
    assert httpx.get(f"{process.url}/readyz").json() == {"ready": True, "missing": []}
    assert 'prunepool_build_info{device="cpu",dtype="float32"' in httpx.get(f"{process.url}/metrics").text


@pytest.mark.e2e
def test_in_json_every_line_is_json_and_the_published_address_is_named(start: Start) -> None:
    process = start("--log-format", "json", "--public-url", "http://photos.example:9000")
    said = json.loads(process.line)
    assert re.match(
        r"prunepool \S+ serves fake on cpu in float32 at http://photos\.example:9000 \(", said["event"]
    )
    assert (said["level"], said["logger"]) == ("info", "prunepool.cli")
    process.popen.terminate()
    status, err = process.end()
    assert status == 0
    assert all(json.loads(line)["event"] for line in err.splitlines())


@pytest.mark.parametrize("by", ["flag", "environment"])
def test_in_json_the_reason_why_it_does_not_start_is_json(
    run: Run, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    form = ("--log-format", "json") if by == "flag" else ()
    if by == "environment":
        monkeypatch.setenv("PRUNEPOOL_LOG_FORMAT", "json")
        first = json.loads(run("serve", "--port", "none").err)
        assert first["event"].startswith("--port is 'none': ")
    result = run("serve", "--port", "0", "--model", "none", *form)
    (*_, last) = result.err.splitlines()
    said = json.loads(last)
    assert result.status == 1
    assert (said["level"], said["event"][:15]) == ("error", "no model 'none'")
    assert run("models", "show", "none").err.startswith("prunepool: no model 'none'")


@pytest.mark.e2e
def test_of_two_servers_that_start_at_once_one_serves_and_the_other_says_why_not(folder: Path) -> None:
    with claim("127.0.0.1", 0) as free:
        port = str(free.port)
    script = Path(__file__).with_name("held_server.py")
    flags = ("--host", "127.0.0.1", "--port", port, "--grpc-port", "0")
    with ExitStack() as stack:
        both = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, str(script), "serve", *flags],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    cwd=folder,
                )
            )
            for _ in range(2)
        ]
        for one in both:
            stack.callback(one.kill)
        lines = [one.stdout.readline() for one in both if one.stdout is not None]
        serving = next(one for one, line in zip(both, lines, strict=True) if line)
        (other,) = (one for one in both if one is not serving)
        assert re.search(
            rf" at http://127\.0\.0\.1:{port} and gRPC at 127\.0\.0\.1:\d+ \(ready in", "".join(lines)
        )
        out, err = other.communicate(timeout=TIMEOUT_S)
        assert (out, other.returncode) == ("", 1)
        assert re.search(
            rf"cannot listen on 127\.0\.0\.1:{port}: .* choose another with --host or --port", err
        )
        assert httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200


@pytest.mark.e2e
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_loses_no_accepted_request(start: Start, sent: signal.Signals) -> None:
    process = start("--log-format", "json")
    with ThreadPoolExecutor(1) as pool, httpx.Client(base_url=process.url) as client:
        accepted = pool.submit(httpx.post, f"{process.url}/classify", content=b"photo", timeout=TIMEOUT_S)
        process.wait_held()
        process.popen.send_signal(sent)
        # The signal is handled when the process comes to it.
        while client.get("/readyz").status_code == 200:
            pass
        refused = client.post("/classify", content=b"photo")
        assert (refused.status_code, refused.json()["code"]) == (503, "draining")
        process.popen.send_signal(signal.SIGUSR1)
        assert accepted.result().status_code == 200
    status, err = process.end()
    assert status == 0
    lines = [json.loads(line) for line in err.splitlines()]
    assert [line["in_flight"] for line in lines if line["event"] == "draining"] == [1]
    assert sorted(line["status"] for line in lines if line["event"] == "request") == [200, 503]


@pytest.mark.e2e
def test_a_drain_that_times_out_fails_with_the_number_of_requests(start: Start) -> None:
    process = start("--drain-timeout-s", "0.3")
    with ThreadPoolExecutor(1) as pool:
        accepted = pool.submit(httpx.post, f"{process.url}/classify", content=b"photo", timeout=TIMEOUT_S)
        process.wait_held()
        process.popen.terminate()
        assert accepted.result().json()["code"] == "draining"
    status, err = process.end()
    assert status == 1
    assert err.splitlines()[-1] == "prunepool: accepted requests left unanswered after drain_timeout_s=0.3: 1"


@pytest.mark.e2e
def test_a_second_signal_ends_it_at_once(start: Start) -> None:
    process = start()
    with (
        httpx.Client(base_url=process.url) as client,
        socket.create_connection((httpx.URL(process.url).host, httpx.URL(process.url).port)) as waiting,
    ):
        waiting.sendall(b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nphoto")
        process.wait_held()
        process.popen.terminate()
        while client.get("/readyz").status_code == 200:
            pass
        process.popen.terminate()
        status, err = process.end()
    assert status == 128 + signal.SIGTERM
    assert err.splitlines()[-1] == "prunepool: SIGTERM again: ending now"


@pytest.mark.e2e
def test_a_log_that_nobody_reads_stops_neither_requests_nor_the_end(start: Start) -> None:
    """A pipe takes a page or sixteen of them; whoever writes more waits until it is read."""
    process = start("--log-format", "json")
    assert process.popen.stderr is not None
    fcntl.fcntl(process.popen.stderr, fcntl.F_SETPIPE_SZ, 4096)
    with httpx.Client(base_url=process.url, timeout=TIMEOUT_S) as client:
        for _ in range(100):
            assert client.get("/models").status_code == 200
        assert client.get("/healthz").status_code == 200
        assert "prunepool_log_lines_dropped_total 0.0" in client.get("/metrics").text
    process.popen.terminate()
    assert process.popen.wait(TIMEOUT_S) == 0
    written = process.popen.stderr.readlines()
    assert json.loads(written[0])["event"] == "request"
    assert len(written) < 100


@pytest.mark.e2e
def test_with_fewer_files_than_connections_it_says_so_refuses_those_past_it_and_recovers(
    start: Start,
) -> None:
    process = start("--log-format", "json", open_files=128)
    assert process.popen.stderr is not None
    lowered = json.loads(process.popen.stderr.readline())
    assert lowered["event"].startswith("max_connections is lowered")
    address = (httpx.URL(process.url).host, httpx.URL(process.url).port)
    with ExitStack() as stack:

        def busy() -> socket.socket:
            """A connection with half a request."""
            one = stack.enter_context(socket.create_connection(address, timeout=TIMEOUT_S))
            one.sendall(b"POST /classify HTTP/1.1\r\nHost: x\r\n")
            return one

        kept = [busy() for _ in range(lowered["lowered_to"])]
        for _ in range(3):
            refused = [busy() for _ in range(16)]  # each has a second to send the rest
            for one in refused:
                assert one.recv(100).startswith(b"HTTP/1.1 503 ")
                one.close()
        kept[0].close()
        wait(lambda: httpx.get(f"{process.url}/readyz").status_code == 200)
        for _ in range(300):  # more at once than files may be open: some are closed without an answer
            busy()
    wait(lambda: httpx.get(f"{process.url}/readyz").status_code == 200)
    process.popen.terminate()
    assert process.end()[0] == 0


@pytest.mark.e2e
def test_a_model_that_cannot_be_served_is_one_line(start: Start) -> None:
    process = start(fails=True)
    assert process.line == ""
    assert process.end() == (1, "prunepool: the weights of 'fake' have changed\n")
