"""Only what computes imports torch: the command line, the front ends and the parent start without it."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: What runs without a tensor. `server.preload` imports torch on purpose, where engines are forked from.
WITHOUT_TORCH = (
    "errors",
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
)
EXCEPT = ("prunepool.server.preload",)

#: Imports every module of a package, and says which heavy libraries that has loaded.
PROGRAM = """
import importlib, pkgutil, sys
package = importlib.import_module(sys.argv[1])
if hasattr(package, "__path__"):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if module.name not in sys.argv[2:]:
            importlib.import_module(module.name)
print(*sorted({"torch", "timm", "torchvision"} & sys.modules.keys()))
"""


@pytest.mark.parametrize("package", WITHOUT_TORCH)
def test_it_starts_without_torch(package: str) -> None:
    command = [sys.executable, "-c", PROGRAM, f"prunepool.{package}", *EXCEPT]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.split() == []


def test_what_computes_loads_it() -> None:
    command = [sys.executable, "-c", PROGRAM, "prunepool.reduction"]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.split() == ["torch"]
