"""Who takes part in the comparison, in which settings, and how each is started."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
from servers import family, tell

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent


@dataclass(frozen=True, slots=True)
class Contender:
    """A server in one setting.

    Attributes:
        name: of the server, and of what runs its model where that is not PyTorch.
        workers: processes, each with a model of its own; 0: this is prunepool, which needs none.
        threads: of torch, in each.
        batch: most images in one run.
        wait_ms: how long a run waits for more images.
        environment: variables besides.
        flags: of prunepool.
    """

    name: str
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
#: Behind the name of who lets OpenVINO run the model: ours, and the peer that does best with PyTorch.
BY_OPENVINO = " + OpenVINO"
_ALSO_BY_OPENVINO = "mosec"


def settings(cores: int) -> list[Contender]:
    """What is tried with each server: one worker on all cores, and one worker a core."""
    a_core = ("--devices", ",".join(["cpu"] * cores))
    openvino = ("--cpu-openvino", "true")
    made = [Contender(OURS), Contender(OURS, flags=a_core)]
    made += [Contender(OURS + BY_OPENVINO, flags=flags) for flags in (openvino, openvino + a_core)]
    for name in (*PEERS, _ALSO_BY_OPENVINO + BY_OPENVINO):
        made.append(Contender(name, 1, cores, 16, environment=_SLEEP))
        made.append(Contender(name, cores, 1, 8, environment=_SLEEP))
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
            "PEER_OPENVINO": str(int(contender.name.endswith(BY_OPENVINO))),
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
        name = self.contender.name.removesuffix(BY_OPENVINO)
        port = str(self.port)
        if self.contender.ours:
            program = str(Path(sys.executable).with_name("prunepool"))
            command = [program, "serve", "--port", port, "--model", str(folder), "--log-level", "warning"]
            command += ["--cpu-openvino-folder", str(self._converted)]
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
