"""The Ray application of docker/ray/serve.yaml scaled down to this machine: one core for each engine."""

from __future__ import annotations

import copy
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

#: Before Ray is imported: no token for a cluster of one machine.
os.environ.setdefault("RAY_AUTH_MODE", "disabled")

import psutil
import ray
import yaml
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema

CONFIG = Path(__file__).resolve().parent.parent / "docker/ray/serve.yaml"
TIMEOUT_S = 60.0


class Cluster:
    """The application on a local Ray.

    Args:
        folder: with the model store, where a second model is a copy of the first.
        port: of the proxy.
    """

    def __init__(self, folder: Path, port: int) -> None:
        config = yaml.safe_load(CONFIG.read_text())
        config["http_options"] = {"host": "127.0.0.1", "port": port}
        self._config = config
        self._application["runtime_env"]["env_vars"] = {"PRUNEPOOL_MODEL_STORE": str(folder)}
        self._application["args"] |= {"dtype": "float32"}
        ingress = self.deployment("Ingress")
        del ingress["autoscaling_config"]
        ingress["num_replicas"] = 1
        for one in self._application["deployments"]:
            one["ray_actor_options"]["num_cpus"] = 0 if one["name"] != "Engine" else 1
        self.address = ("127.0.0.1", port)
        self.url = f"http://127.0.0.1:{port}"

    @property
    def _application(self) -> dict[str, Any]:
        application: dict[str, Any] = self._config["applications"][0]
        return application

    def deployment(self, name: str) -> dict[str, Any]:
        """Return the configuration of a deployment."""
        return next(one for one in self._application["deployments"] if one["name"] == name)

    def engines(
        self, number: int | None = None, *, arguments: dict[str, Any] | None = None, **changed: Any
    ) -> None:
        """Deploy with a number of engines, or autoscaled; optionally with other options or settings."""
        self._application["args"] |= arguments or {}
        engine = self.deployment("Engine")
        if number is not None:
            engine.pop("autoscaling_config", None)
            engine["num_replicas"] = number
        engine |= changed
        if "autoscaling_config" in changed:
            engine.pop("num_replicas", None)
        self.deploy()

    def deploy(self, wait: bool = True) -> None:
        """Deploy, and wait until it is done."""
        schema = ServeDeploySchema.model_validate(copy.deepcopy(self._config))
        _get_global_client().deploy_apps(schema, _blocking=wait)

    def running(self) -> int:
        """Return the number of running engine replicas."""
        states = serve.status().applications["prunepool"].deployments["Engine"].replica_states
        return int(states.get("RUNNING", 0))

    def wait(self, number: int, *, settled: bool = True) -> float:
        """Wait until a number of engines runs and nothing is being deployed; return the seconds."""
        begin = time.monotonic()
        while time.monotonic() - begin < TIMEOUT_S:
            status = serve.status().applications["prunepool"].status
            if self.running() == number and (status == "RUNNING" or not settled):
                return time.monotonic() - begin
            time.sleep(0.1)
        raise TimeoutError(f"not {number} engines after {TIMEOUT_S:g} s: {serve.status()}")

    def pids(self) -> list[int]:
        """Return the pids of the engine replicas."""
        children = psutil.Process().children(recursive=True)
        return [
            child.pid for child in children if "ServeReplica:prunepool:Engine" in " ".join(_command(child))
        ]


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """Start a local Ray with Serve on a free port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=256 * 2**20,
        log_to_driver=False,
        logging_level="warning",
    )
    try:
        serve.start(proxy_location="EveryNode", http_options={"host": "127.0.0.1", "port": port})
        yield Cluster(folder, port)
    finally:
        serve.shutdown()
        ray.shutdown()
