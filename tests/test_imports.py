"""Only what computes imports torch: the command line, the front ends and the parent start without it."""

from __future__ import annotations

import subprocess
import sys

#: What runs without a tensor.
WITHOUT_TORCH = (
    "errors",
    "extras",
    "settings",
    "metrics",
    "imaging",
    "store",
    "core",
    "serving",
    "transport",
    "tracing",
    "access",
    "api",
    "client",
    "cli",
    "server",
    "backends.devices",
    "backends.registry",
    "models.dial",
    "models.geometry",
    "lab.http_benchmark",
    "lab.served",
)

#: Imports every module of some packages, and says of each module that loads a heavy library which.
PROGRAM = """
import importlib, pkgutil, sys
HEAVY = ("torch", "timm", "torchvision", "matplotlib", "huggingface_hub")
def load(name):
    before = set(sys.modules)
    module = importlib.import_module(name)
    print(*(f"{name}:{heavy}" for heavy in HEAVY if heavy in set(sys.modules) - before))
    return module
for name in sys.argv[1].split(","):
    package = load(f"prunepool.{name}")
    if hasattr(package, "__path__"):
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            load(module.name)
"""


def loaded_by(*packages: str) -> list[str]:
    """The modules that load a heavy library, and which, in a fresh interpreter."""
    command = [sys.executable, "-c", PROGRAM, ",".join(packages)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


def test_what_does_not_compute_starts_without_torch() -> None:
    assert loaded_by(*WITHOUT_TORCH) == []


def test_what_computes_loads_it() -> None:
    assert [one.split(":")[1] for one in loaded_by("reduction")] == ["torch"]
