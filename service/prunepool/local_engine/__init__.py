"""The engine in this process: its models run in threads beside the event loop."""

from __future__ import annotations

from prunepool.local_engine.engine import LocalEngine
from prunepool.local_engine.served import EngineConfig, ServedModel

__all__ = ["EngineConfig", "LocalEngine", "ServedModel"]
