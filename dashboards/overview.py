"""Is it well, how much does it answer, how fast, and who is refused."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as dash

import panels as p

M = p.OF_MODEL
DURATION = "prunepool_request_duration_seconds"


def _quantile(q: float, stage: str, window: str = "$__rate_interval") -> str:
    return f'histogram_quantile({q}, sum by (le) (rate({DURATION}_bucket{{{M}, stage="{stage}"}}[{window}])))'


def _share(part: str, whole: str) -> str:
    """A counter's rate over another's, over 5 minutes; 0 where the first has no series yet."""
    return f"(sum(rate({part}[5m])) or vector(0)) / (sum(rate({whole}[5m])) > 0)"


def overview() -> dash.Dashboard:
    """The first page to look at."""
    good_low = p.thresholds((None, p.GREEN), (0.001, p.AMBER), (0.01, p.RED))
    plain = p.thresholds((None, p.BLUE))
    share = p.thresholds((None, p.GREEN), (0.8, p.AMBER), (1, p.RED))
    return (
        p.board("prunepool-overview", "Overview", "Health, throughput, latency and rejections.")
        .with_row(dash.Row("Now"))
        .with_panel(
            p.number(
                "Images answered",
                "Images answered per second.",
                "reqps",
                f'sum(rate(prunepool_requests_total{{{M}, outcome="ok"}}[$__rate_interval]))',
                plain,
            )
        )
        .with_panel(
            p.number(
                "p99 latency / target",
                "The 99th percentile of the time from arrival to answer, as a share of target_latency_ms; over "
                "5 minutes, as the alert sees it.",
                "percentunit",
                f"{_quantile(0.99, 'total', '5m')} / max(prunepool_target_latency_seconds{{{M}}})",
                share,
            )
        )
        .with_panel(
            p.number(
                "Images refused",
                "Share of the images refused as overloaded or past their deadline, over 5 minutes.",
                "percentunit",
                _share(
                    f'prunepool_requests_total{{{M}, outcome=~"overloaded|deadline_exceeded"}}',
                    f"prunepool_requests_total{{{M}}}",
                ),
                good_low,
            )
        )
        .with_panel(
            p.number(
                "GMACs saved",
                "Share of the dense model's GMACs that was not spent, over 5 minutes.",
                "percentunit",
                _share(f'prunepool_gmacs_total{{{M}, kind="saved"}}', f"prunepool_gmacs_total{{{M}}}"),
                plain,
            )
        )
        .with_panel(
            p.number(
                "auto ratio / limit",
                "The ratio that auto applies, as a share of its limit: at 100 % the next step is to refuse.",
                "percentunit",
                f"max(prunepool_auto_reduction_ratio{{{M}}}) "
                f"/ (max(prunepool_auto_reduction_ratio_limit{{{M}}}) > 0)",
                share,
            )
        )
        .with_panel(
            p.number(
                "Replicas with an engine up",
                "Share of the replicas whose engine can run a batch.",
                "percentunit",
                f"avg(prunepool_engine_up{{{M}}})",
                p.thresholds((None, p.RED), (0.5, p.AMBER), (1, p.GREEN)),
            )
        )
        .with_panel(
            p.rows(
                "Alerts that fire now",
                "Each has a section in docs/operations.md: what it means, and what to do. Empty is good.",
                "sum by (alertname, severity, model, instance) "
                '(ALERTS{alertstate="firing", alertname=~"Prunepool.*"})',
                hidden=("Value",),
                height=6,
            )
        )
        .with_panel(
            p.rows(
                "What runs: device, number format, backend",
                "Engines by how they compute the model. A model that is not compiled begins in PyTorch and changes "
                "to OpenVINO when it is converted.",
                f"sum by (model, device, dtype, backend) (prunepool_model_runs{{{M}}}) > 0",
                height=6,
            )
        )
        .with_row(dash.Row("Throughput"))
        .with_panel(
            p.lines(
                "Images computed, by band of the reduction ratio",
                "Images computed per second, by the applied reduction ratio: grey is dense, "
                "orange the most reduced.",
                "reqps",
                [
                    (
                        f"sum by (reduction) (rate(prunepool_images_total{{{M}}}[$__rate_interval]))",
                        "{{reduction}}",
                    )
                ],
                stacked=True,
            )
        )
        .with_panel(
            p.lines(
                "Images asked for, by outcome",
                "Images asked for, by how they ended: ok, or the code of the error.",
                "reqps",
                [
                    (
                        f"sum by (outcome) (rate(prunepool_requests_total{{{M}}}[$__rate_interval]))",
                        "{{outcome}}",
                    )
                ],
                stacked=True,
                colors={
                    "ok": p.GREEN,
                    "overloaded": p.RED,
                    "deadline_exceeded": p.AMBER,
                    "draining": p.BLUE,
                    "cancelled": p.GREY,
                },
            )
        )
        .with_row(dash.Row("Latency"))
        .with_panel(
            p.density(
                "Latency from arrival to answer, distribution",
                "Images by the time from arrival to answer.",
                "s",
                f'sum by (le) (increase({DURATION}_bucket{{{M}, stage="total"}}[$__rate_interval]))',
            )
        )
        .with_panel(
            p.lines(
                "Latency from arrival to answer: p50, p95, p99 and target",
                "Percentiles over all replicas, against the target that auto tries to hold.",
                "s",
                [
                    (_quantile(0.5, "total"), "p50"),
                    (_quantile(0.95, "total"), "p95"),
                    (_quantile(0.99, "total"), "p99"),
                    (f"max(prunepool_target_latency_seconds{{{M}}}) < +Inf", "target"),
                ],
                colors={"p50": p.GREEN, "p95": p.AMBER, "p99": p.BLUE},
                dashed=["target"],
            )
        )
        .with_panel(_stage("decode", "From bytes to pixels, including the wait for a decoding thread."))
        .with_panel(_stage("queue", "Waiting for the device."))
        .with_panel(_stage("inference", "The batch that the image was in."))
        .with_row(dash.Row("Load"))
        .with_panel(
            p.lines(
                "Images waiting, by replica",
                "Images accepted and waiting for the device, by replica.",
                "short",
                [(f"sum by (instance) (prunepool_queue_requests{{{M}}})", "{{instance}}")],
                width=8,
            )
        )
        .with_panel(
            p.lines(
                "Predicted time to answer the queue, by replica",
                "Predicted time to answer every queued image: the basis of admission control and auto.",
                "s",
                [
                    (f"sum by (instance) (prunepool_queue_drain_seconds{{{M}}})", "{{instance}}"),
                    (f"max(prunepool_target_latency_seconds{{{M}}}) < +Inf", "target"),
                ],
                width=8,
                dashed=["target"],
            )
        )
        .with_panel(
            p.lines(
                "Images refused before the device, by reason",
                "Images refused before they reached the device. overloaded and deadline_exceeded are "
                "caused by the server, the others by the caller or an operator.",
                "reqps",
                [
                    (
                        f"sum by (reason) (rate(prunepool_rejected_total{{{M}}}[$__rate_interval]))",
                        "{{reason}}",
                    )
                ],
                width=8,
                stacked=True,
                colors={"overloaded": p.RED, "deadline_exceeded": p.AMBER, "draining": p.BLUE},
            )
        )
    )


def _stage(stage: str, description: str) -> object:
    return p.lines(
        f"Time in {stage}: p50, p95, p99",
        description,
        "s",
        [(_quantile(q, stage), f"p{q * 100:.0f}") for q in (0.5, 0.95, 0.99)],
        width=8,
        colors={"p50": p.GREEN, "p95": p.AMBER, "p99": p.BLUE},
    )
