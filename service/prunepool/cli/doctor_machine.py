"""What `prunepool doctor` looks at in the installation and the machine."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import resource
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata, version
from pathlib import Path

from prunepool import machine, processor
from prunepool.cli.finding import Finding, Level
from prunepool.errors import InvalidParameter
from prunepool.extras import has_torch
from prunepool.server.open_files import connections_within
from prunepool.server.parent_folder import excess_bytes
from prunepool.server.specs import needs_processes
from prunepool.settings import Settings

#: What a server with an embedded model holds after a burst of photos, without request bodies (docs/operations.md).
_BASE_BYTES = 600_000_000
#: Files that a server has open before the first connection comes: libraries, sockets, weights.
_OPEN_AT_START = 40
_LIBRARIES = ("openvino", "torch", "timm", "nvidia-ml-py", "grpcio", "opentelemetry-sdk", "ray")
#: Any folder that `tempfile.mkdtemp` makes for a server has a name as long as this.
_FOLDER_NAME = "prunepool-12345678"


def of_machine(settings: Settings) -> Iterator[Finding]:
    """Look at everything that does not depend on the models."""
    yield _python()
    yield from _libraries(settings)
    yield _processor()
    yield _gpu(settings)
    yield _memory(settings)
    yield _shared_memory(settings)
    yield _open_files(settings)
    yield _tmpdir(settings)


def _python() -> Finding:
    wanted = metadata("prunepool")["Requires-Python"]
    found = f"{platform.python_version()} in {sys.prefix}, {platform.system()} {platform.release()}"
    if sys.platform != "linux":
        return Finding("problem", "Python", found, "prunepool serves on Linux: use a container elsewhere")
    if not _is_within(sys.version_info[:2], wanted):
        return Finding("problem", "Python", found, f"use one that is {wanted}")
    return Finding("ok", "Python", found)


def _is_within(number: tuple[int, int], wanted: str) -> bool:
    """Whether a version of Python is one of those wanted, as in `>=3.11,<3.15`."""
    bounds = re.findall(r"(>=|<)\s*(\d+)\.(\d+)", wanted)
    return all(
        number >= (int(major), int(minor)) if sign == ">=" else number < (int(major), int(minor))
        for sign, major, minor in bounds
    )


def installed() -> dict[str, str]:
    """The version of each library that is installed, of those that decide what can be served."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _libraries(settings: Settings) -> Iterator[Finding]:
    found = installed()
    said = ", ".join(
        f"{name} {number}" for name, number in {"prunepool": version("prunepool"), **found}.items()
    )
    if "openvino" not in found and not has_torch():
        yield Finding("problem", "libraries", said, 'nothing computes: pip install "prunepool[cpu]"')
    elif not has_torch():
        note = 'for models that are not compiled: pip install "prunepool[torch]"'
        yield Finding("ok", "libraries", f"{said}; no PyTorch, so compiled models alone", note)
    else:
        yield Finding("ok", "libraries", said)
    if settings.grpc_port is not None and "grpcio" not in found:
        yield Finding("problem", "gRPC", "grpcio is not installed", 'pip install "prunepool[grpc]"')
    if settings.otel_endpoint is not None and "opentelemetry-sdk" not in found:
        yield Finding(
            "problem", "traces", "opentelemetry-sdk is not installed", 'pip install "prunepool[otel]"'
        )


def _processor() -> Finding:
    flags = processor.instructions()
    quota = machine.cpu_quota()
    allowed = "" if quota is None else f", a quota of {quota:g}"
    cores = f"{len(os.sched_getaffinity(0))} cores{allowed}; threads of a model: {machine.compute_threads()}"
    found = f"{processor.name()}: {processor.summary(flags)}; {cores}"
    if not {"avx2", "avx512f", "asimd"} & set(flags):
        return Finding("warning", "processor", found, "a model is several times slower without AVX2 or NEON")
    if quota is not None and quota != int(quota):
        return Finding(
            "warning", "processor", found, "give whole cores: a quota that throttles a batch delays it"
        )
    return Finding("ok", "processor", found)


def _gpu(settings: Settings) -> Finding:
    from prunepool.backends.devices import resolve_device

    wanted = settings.devices or (settings.device,)
    try:
        devices = [resolve_device(device) for device in wanted]
    except InvalidParameter as error:
        return Finding("problem", "device", error.detail, "see docs/gpu.md")
    found = f"{', '.join(wanted)}: {', '.join(devices)}"
    if driver_is_there() and "cuda" not in found:
        return Finding(
            "warning",
            "device",
            f"{found}, though this machine has an NVIDIA driver",
            'pip install "prunepool[gpu]", or say --device cpu if that is meant',
        )
    return Finding("ok", "device", found)


def driver_is_there() -> bool:
    """Whether NVIDIA's driver can be loaded."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def _memory(settings: Settings) -> Finding:
    limit, free = machine.memory_limit(), machine.available_memory()
    needed = _BASE_BYTES + settings.max_buffered_bytes
    parts = [
        f"{gigabytes(size)} {what}" for size, what in ((free, "free"), (limit, "allowed")) if size is not None
    ]
    found = f"{', '.join(parts) or 'unknown'}; an embedded model takes up to {gigabytes(needed)}"
    room = min((size for size in (free, limit) if size is not None), default=None)
    if room is None or room >= needed:
        return Finding("ok", "memory", found)
    level: Level = "problem" if room < _BASE_BYTES else "warning"
    return Finding(level, "memory", found, "give it more, or lower max_buffered_bytes and max_batch_size")


def _shared_memory(settings: Settings) -> Finding:
    if not needs_processes(settings):
        return Finding("ok", "shared memory", "none is needed: all is in one process")
    if not hasattr(os, "memfd_create"):
        return Finding("warning", "shared memory", "none without a name", "pixels go through files in TMPDIR")
    return Finding(
        "ok",
        "shared memory",
        f"pixels of at most {settings.max_queue_requests} images, without a name in /dev/shm",
    )


def _open_files(settings: Settings) -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # A server raises its soft limit as far as it needs.
    allowed = sys.maxsize if hard == resource.RLIM_INFINITY else hard
    room = connections_within(settings, allowed, _OPEN_AT_START)
    shown = "unlimited" if hard == resource.RLIM_INFINITY else str(hard)
    found = f"at most {shown} ({soft} until raised), for {settings.max_connections} connections"
    if room < settings.max_connections:
        advice = f"raise `ulimit -Hn`, or only {room} connections are served at a time"
        return Finding("warning", "open files", found, advice)
    return Finding("ok", "open files", found)


def _tmpdir(settings: Settings) -> Finding:
    try:
        folder = Path(tempfile.gettempdir())
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return Finding("problem", "TMPDIR", str(error), "set TMPDIR to a folder that can be written to")
    excess = excess_bytes(folder / _FOLDER_NAME)
    if excess > 0:
        level: Level = "problem" if needs_processes(settings) else "warning"
        advice = f"set TMPDIR to a folder whose name is shorter by {excess} bytes"
        return Finding(
            level, "TMPDIR", f"{folder}: its name is too long for sockets of several processes", advice
        )
    return Finding("ok", "TMPDIR", str(folder))


def gigabytes(size: int) -> str:
    """Bytes as people read them."""
    return f"{size / 1e9:.1f} GB"
