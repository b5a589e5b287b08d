"""The engine in this process: its models run in threads beside the event loop."""

from __future__ import annotations

from prunepool.serving.local_engine import LocalEngine
from prunepool.serving.served_model import EngineConfig, ServedModel

__all__ = ["EngineConfig", "LocalEngine", "ServedModel"]
