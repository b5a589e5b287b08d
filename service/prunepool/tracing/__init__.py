"""Traces by OpenTelemetry: what became of a request, stage by stage, and the batch it was computed in.

FastAPI makes the span of a request and honours its W3C context. Here the spans of its images are added, and
the way to a collector, which needs the extra `prunepool[otel]`. Nothing of it is imported unless it is asked
for.
"""
