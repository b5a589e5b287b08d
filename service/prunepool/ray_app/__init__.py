"""The service as a Ray Serve application, for more than one machine; needs the extra `ray`.

Data flow::

    client ──HTTP──▶ Ray's proxy ──▶ Ingress ──Ask, pixels──▶ Engine ──▶ LocalEngine
                                        │  ▲                    │
                                        ▼  └── figures of all ──┼──── MetricsAggregator
                                     /metrics                   └ what it predicts ──▶ ByDrain ──▶ replicas

An ingress replica decodes, validates and admits, like a front end of one machine; an engine replica owns a
device and our batcher. `serve run` and `serve deploy` are given `prunepool.ray_app.serve:app`, as in
docker/ray/serve.yaml.
"""
