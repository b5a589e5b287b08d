"""OpenVINO in a process that handles signals: SIGTERM drains a server, Ctrl-C ends a command."""

from __future__ import annotations

import subprocess
import sys

#: Opens passes and lets go of them, here and in another thread, in any order, and is signalled after each.
PROGRAM = """
import signal, threading
import numpy as np, openvino as ov
from openvino import opset13
from prunepool.backends.openvino_files import pack
from prunepool.backends.openvino_runtime import has_bfloat16, open_pass

given = opset13.parameter([-1, 8], np.float32)
weights = opset13.constant(np.eye(8, dtype=np.float32))
graphs, constants = pack({"pass": ov.Model([opset13.matmul(given, weights, False, False)], [given])}, halved=False)
handled = []
signal.signal(signal.SIGUSR1, lambda number, _: handled.append(number))
passes = {}

def opened(name):
    passes[name] = open_pass(graphs["pass"], constants, "float32", 1)
    assert passes[name]([np.ones((3, 8), np.float32)], lambda: None).outputs()[0].sum() == 24

def elsewhere(do, *arguments):
    thread = threading.Thread(target=do, args=arguments)
    thread.start()
    thread.join()

for step in (
    (opened, "first"), (opened, "second"), (passes.pop, "first"), (passes.pop, "second"),
    (opened, "first"), (elsewhere, passes.pop, "first"),
    (elsewhere, opened, "second"), (has_bfloat16,), (passes.pop, "second"),
):
    step[0](*step[1:])
    signal.raise_signal(signal.SIGUSR1)
    print(len(handled), flush=True)
"""


def test_signals_are_handled_whichever_pass_is_let_go_of_and_by_whichever_thread() -> None:
    """Each plugin that went took the stack along that the main thread's handlers were to run on."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == [str(number) for number in range(1, 10)]
