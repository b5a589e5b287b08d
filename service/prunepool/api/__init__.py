"""The HTTP layer: bytes and JSON outside, the engine's types inside."""
