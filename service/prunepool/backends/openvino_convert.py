"""A process that converts one model and ends.

`python -m prunepool.backends.openvino_convert MODEL TARGET`, and `--linked` if a server has made MODEL's links.
It gives way to everything else: it runs when nothing else wants the cores, and is the first to be killed if memory
runs out. It ends with the process that started it, whose end of its standard input is then closed.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from pathlib import Path

from prunepool.backends.converted import COMPILED
from prunepool.errors import PrunepoolError, why_of
from prunepool.store import StoredModel, hidden, manifest_file
from prunepool.store.manifest_file import FILE_NAME


def convert(stored: StoredModel, target: Path) -> None:
    """Compile a model into another folder, which appears when it is complete."""
    from prunepool.backends.openvino_compile import compile_model
    from prunepool.models.loader import load_model

    model = load_model(stored, device="cpu", dtype="float32")
    hidden.clean(target.parent)  # what was left by processes that were killed
    with hidden.staging(target.parent) as draft:
        compiled = compile_model(model, ("float32", "int8"), draft)
        (draft / COMPILED).write_text(compiled.model_dump_json(), encoding="utf-8")
        draft.rename(target)


def _give_way() -> None:
    os.nice(19)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _end_with_parent() -> None:
    while os.read(0, 1):  # not of `sys.stdin`: the interpreter could not end while this holds its lock
        pass
    os._exit(1)


def main() -> None:
    """Convert what the command line names; the last line on standard error says why not."""
    _give_way()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    source, target, *flags = sys.argv[1:]
    try:
        manifest = manifest_file.read(Path(source) / FILE_NAME)
        convert(StoredModel(manifest, Path(source), linked="--linked" in flags), Path(target))
    except (PrunepoolError, OSError, MemoryError) as error:
        sys.exit(why_of(error))


if __name__ == "__main__":
    main()
