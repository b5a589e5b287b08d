"""The service as a Ray Serve application, for more than one machine; needs the extra `ray`.

Data flow::

    client ──HTTP──▶ Ray's proxy ──▶ IngressReplica ──Submit, pixels──▶ EngineReplica ──▶ Core
                                       │   ▲   ▲                          │   │   │
                                       │   │   └───── Completed, Status ──┘   │   │
                                       │   └───── MetricsAggregator ◀─metrics─┘   │
                                       ▼              ▲                           ▼
                                    /metrics ─────────┘             ByDrain ──▶ number of replicas

An ingress replica decodes, validates and admits, like a front end of one machine; an engine replica owns a
device and our batcher. `serve run` and `serve deploy` are given `prunepool.ray_app.serve:app`, as in
docker/ray/serve.yaml.
"""
