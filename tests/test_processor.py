"""What a processor can do, in words that figures are labelled with."""

from __future__ import annotations

from pathlib import Path

import pytest

from prunepool import processor

AVX2 = {"avx2"}
ZEN4 = {"avx2", "avx512f", "avx512_vnni", "avx512_bf16"}
SAPPHIRE_RAPIDS = {*ZEN4, "avx_vnni", "avx512_fp16", "amx_bf16", "amx_int8"}
GRAVITON3 = {"asimd", "asimddp", "i8mm", "bf16", "sve"}


@pytest.mark.parametrize(
    ("flags", "words", "kind"),
    [
        (set(), "no vector instructions", "no-vector-instructions"),
        (AVX2, "AVX2", "avx2"),
        ({"avx2", "avx_vnni"}, "AVX2, VNNI", "avx2-vnni"),
        (ZEN4, "AVX-512, VNNI, bfloat16", "avx512-vnni-bfloat16"),
        (SAPPHIRE_RAPIDS, "AVX-512, VNNI, bfloat16, float16, AMX", "avx512-vnni-amx"),
        (GRAVITON3, "SVE, int8 products, bfloat16", "sve-int8-products-bfloat16"),
    ],
)
def test_processors_are_told_apart(
    flags: set[str], words: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert processor.summary(flags) == words
    monkeypatch.setattr(processor, "instructions", lambda: tuple(flags))
    assert processor.kind() == kind


@pytest.mark.parametrize("key", ["flags\t\t", "Features\t"])
def test_the_kernel_says_what_there_is(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(f"processor\t: 0\nmodel name\t: A Processor\n{key}: fpu asimd avx2 amx_int8\n")
    monkeypatch.setattr(processor, "_CPUINFO", file)
    processor.instructions.cache_clear()
    try:
        assert processor.name() == "A Processor"
        assert processor.instructions() == ("avx2", "amx_int8", "asimd")
        file.unlink()
        processor.instructions.cache_clear()
        assert processor.instructions() == ()
    finally:
        processor.instructions.cache_clear()
