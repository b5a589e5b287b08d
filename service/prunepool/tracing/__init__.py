"""OpenTelemetry traces: the stages of each image of a request, and the batch it ran in.

FastAPI makes the span of a request and continues the caller's W3C trace context. This package adds the spans of
images and the export to a collector. It needs the extra `prunepool[otel]`, and is imported only if tracing is
enabled.
"""
