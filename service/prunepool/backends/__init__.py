"""What a worker owns: each backend runs a model on one kind of device."""

from __future__ import annotations

import sys

# OpenVINO tells Google Analytics of every import of its own, with a number of the user that it keeps in ~/intel. It
# does without where this package of its makers is not installed.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
