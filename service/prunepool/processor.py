"""What this processor is called, and which instructions it has for the arithmetic of a model.

A figure of speed says little without them: whether int8 or bfloat16 is faster than float32, VNNI and AMX decide.
"""

from __future__ import annotations

import platform
from collections.abc import Collection
from functools import cache
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")

#: The kernel's names, in the order in which they are shown: x86, then ARM.
_FLAGS = (
    *("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_bf16", "amx_int8", "amx_fp16"),
    *("asimd", "asimddp", "i8mm", "bf16", "sve"),
)

#: What people call them; the first of each group that the processor has.
_CALLED = (
    {"avx512f": "AVX-512", "avx2": "AVX2", "sve": "SVE", "asimd": "NEON"},
    {"avx512_vnni": "VNNI", "avx_vnni": "VNNI", "i8mm": "int8 products", "asimddp": "int8 dot products"},
    {"avx512_bf16": "bfloat16", "bf16": "bfloat16"},
    {"avx512_fp16": "float16"},
    {"amx_int8": "AMX", "amx_bf16": "AMX"},
)


def name() -> str:
    """What the processor is called."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


@cache
def instructions() -> tuple[str, ...]:
    """The vector and matrix instructions that the processor has, by the kernel's names; none if it does not say."""
    found = {*_cpuinfo("flags").split(), *_cpuinfo("Features").split()}
    return tuple(flag for flag in _FLAGS if flag in found)


def summary(flags: Collection[str]) -> str:
    """Instructions in the words of a table, such as `AVX-512, VNNI, bfloat16, AMX`.

    Args:
        flags: as from :func:`instructions`.
    """
    groups = ((called for flag, called in group.items() if flag in flags) for group in _CALLED)
    return ", ".join(called for group in groups if (called := next(group, None))) or "no vector instructions"


def kind() -> str:
    """The summary as part of a file's name, such as `avx512-vnni-amx`: figures of one kind can be compared.

    What is left out says nothing of speed: float16 is not served on a CPU, and AMX implies bfloat16.
    """
    said = summary(instructions()).lower().replace("avx-512", "avx512").split(", ")
    kept = [word for word in said if word != "float16" and not (word == "bfloat16" and "amx" in said)]
    return "-".join(word.replace(" ", "-") for word in kept)


def _cpuinfo(key: str) -> str:
    """The first value of a key in /proc/cpuinfo; empty if there is none."""
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "")
