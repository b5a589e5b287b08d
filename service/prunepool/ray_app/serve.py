"""The Ray Serve application: `serve run prunepool.ray_app.serve:app`."""

from __future__ import annotations

from typing import Any

from ray import serve

from prunepool.errors import InvalidParameter
from prunepool.ray_app.engine import EngineReplica
from prunepool.ray_app.ingress import IngressReplica
from prunepool.ray_app.metrics_aggregator import MetricsAggregator
from prunepool.server.specs import needs_processes
from prunepool.settings import Settings


def app(arguments: dict[str, Any]) -> serve.Application:
    """The application, for `serve run` and `serve deploy`.

    Args:
        arguments: settings, as flags would give them; they win over variables and `prunepool.toml`.

    Raises:
        InvalidParameter: a setting that cannot be honoured here.
    """
    settings = Settings(**arguments)
    check(settings)
    # The names of deployments are the users': Ray refuses a configuration that names one which is not there.
    aggregator = _deployment(MetricsAggregator, "Figures", ray_actor_options={"num_cpus": 0}).bind()
    engines = _deployment(EngineReplica, "Engine", max_ongoing_requests=settings.max_queue_requests)
    ingress = _deployment(serve.ingress()(IngressReplica), "Ingress", max_ongoing_requests=1000)
    return ingress.bind(settings, engines.bind(settings, aggregator), aggregator)


def _deployment(of: type, name: str, **options: Any) -> serve.Deployment:
    made: serve.Deployment = serve.deployment(name=name, **options)(of)
    return made


def check(settings: Settings) -> None:
    """Refuse settings that Ray decides.

    Raises:
        InvalidParameter: names the setting.
    """
    if needs_processes(settings):
        limit = "left alone with Ray, as are devices and engine: replicas are processes already"
        raise InvalidParameter("frontends", settings.frontends, limit)
    if settings.grpc_port is not None:
        raise InvalidParameter(
            "grpc_port", settings.grpc_port, "left alone with Ray, whose proxy speaks HTTP"
        )
    if settings.model_control != "none":
        limit = "none with Ray: models change by user_config, for all replicas"
        raise InvalidParameter("model_control", settings.model_control, limit)
