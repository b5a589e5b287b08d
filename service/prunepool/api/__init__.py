"""The HTTP and gRPC layer: bytes and JSON outside, the types of `serving` inside."""
