"""Who takes part in the comparison, in which settings, and how each is started."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from servers import family, tell

from prunepool.client import Client

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent


@dataclass(frozen=True, slots=True)
class Contender:
    """A server in one setting.

    Attributes:
        name: of the server.
        runtime: what runs its model: PyTorch or OpenVINO; of prunepool, what it chooses by itself.
        dtype: float32, bfloat16, int8, or of prunepool `auto`.
        workers: processes, each with a model of its own; 0: this is prunepool, which needs none.
        threads: of torch, in each.
        batch: most images in one run.
        wait_ms: how long a run waits for more images.
        environment: variables besides.
        flags: of prunepool.
    """

    name: str
    runtime: str
    dtype: str
    workers: int = 0
    threads: int = 0
    batch: int = 16
    wait_ms: float = 5.0
    environment: tuple[tuple[str, str], ...] = ()
    flags: tuple[str, ...] = ()

    @property
    def setting(self) -> str:
        """In words."""
        if self.ours:
            return " ".join(self.flags) or "as it is"
        words = f"{self.workers} × {self.threads} threads, batch {self.batch}, wait {self.wait_ms:g} ms"
        return ", ".join([words, *(f"{key}={value}" for key, value in self.environment)])

    @property
    def ours(self) -> bool:
        """Whether this is prunepool."""
        return not self.workers

    @property
    def form(self) -> str | None:
        """The form field that takes the photo; None: it is the body."""
        return {"LitServe": "file", "BentoML": "files"}.get(self.name)


#: Threads that sleep while they wait, as prunepool's do; without it some peers are several times slower.
_SLEEP = (("OMP_WAIT_POLICY", "PASSIVE"),)
_FILES = {
    "FastAPI + timm": "serve_fastapi.py",
    "LitServe": "serve_litserve.py",
    "BentoML": "serve_bentoml.py",
    "mosec": "serve_mosec.py",
    "Ray Serve": "serve_ray.py",
}
PEERS = tuple(_FILES)
OURS = "prunepool"
DTYPES = ("float32", "bfloat16", "int8")
#: What can run a peer's model, and in what: PyTorch has no int8 that needs no calibration.
_RUNTIMES = {"PyTorch": ("float32", "bfloat16"), "OpenVINO": DTYPES}


def settings(cores: int, dtypes: Sequence[str] = DTYPES) -> list[Contender]:
    """What is tried with each server, in each dtype: one worker on all cores, and one worker a core.

    Peers are tried with PyTorch and with OpenVINO. Ours chooses by itself, and is tried in `auto` as well.
    """
    a_core = ("--devices", ",".join(["cpu"] * cores))
    made = []
    for dtype in (*dtypes, "auto"):
        made += [Contender(OURS, "its choice", dtype, flags=flags) for flags in ((), a_core)]
    for name in PEERS:
        for runtime, known in _RUNTIMES.items():
            for dtype in (dtype for dtype in dtypes if dtype in known):
                made.append(Contender(name, runtime, dtype, 1, cores, 16, environment=_SLEEP))
                made.append(Contender(name, runtime, dtype, cores, 1, 8, environment=_SLEEP))
    return made


class Running:
    """A started server; it can be paused, with all processes that it started.

    Args:
        contender: which.
        folder: of the model.
        log: file that takes what it prints.
    """

    def __init__(self, contender: Contender, folder: Path, log: Path) -> None:
        self.contender = contender
        self.port = _free_port()
        self._converted = log.with_name("converted")
        self._says = log.with_suffix(".dtype")
        self._says.unlink(missing_ok=True)
        python = ROOT / ".venv-peers" / "bin" / "python"
        environment: Mapping[str, str] = {
            **{key: value for key, value in os.environ.items() if not key.startswith("PRUNEPOOL_")},
            **dict(contender.environment),
            "PEER_FOLDER": str(folder),
            "PEER_PORT": str(self.port),
            "PEER_WORKERS": str(contender.workers),
            "PEER_THREADS": str(contender.threads),
            "PEER_BATCH": str(contender.batch),
            "PEER_WAIT_MS": f"{contender.wait_ms:g}",
            "PEER_OPENVINO": str(int(contender.runtime == "OpenVINO")),
            "PEER_DTYPE": contender.dtype,
            "PEER_SAYS": str(self._says),
            "BENTOML_DO_NOT_TRACK": "true",
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        if not contender.ours:
            environment = {**environment, "OMP_NUM_THREADS": str(contender.threads)}
        self._log = log.open("wb")
        self._process = subprocess.Popen(
            self._command(python, folder),
            cwd=HERE,
            env=environment,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def _command(self, python: Path, folder: Path) -> list[str]:
        name = self.contender.name
        port = str(self.port)
        if self.contender.ours:
            program = str(Path(sys.executable).with_name("prunepool"))
            command = [program, "serve", "--port", port, "--model", str(folder), "--log-level", "warning"]
            command += ["--cpu-openvino-folder", str(self._converted), "--dtype", self.contender.dtype]
            # Batches as large as they come, as the peers'.
            return [
                *command,
                "--target-latency-ms",
                "inf",
                "--default-reduction-ratio",
                "0",
                *self.contender.flags,
            ]
        if name == "BentoML":
            bento = str(python.with_name("bentoml"))
            return [bento, "serve", "serve_bentoml:Model", "--host", "127.0.0.1", "--port", port]
        return [str(python), _FILES[name]]

    def ran(self) -> str:
        """What the model computes in, by its own account; call it once the server has answered."""
        if not self.contender.ours:
            return self._says.read_text()
        with Client(f"http://127.0.0.1:{self.port}") as client:
            return client.models()[0].dtype

    @property
    def ended(self) -> bool:
        """Whether it is over, asked or not."""
        return self._process.poll() is not None

    def pause(self) -> None:
        """Let it take no time at all."""
        tell(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Undo a pause."""
        tell(self._process.pid, signal.SIGCONT)

    def stop(self) -> None:
        """End it and all that it started."""
        self.go_on()
        own = family(self._process.pid)
        if not self.ended:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(15)
        for process in own:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()
        self._log.close()


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
