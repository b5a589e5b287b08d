"""Is it well, how much does it answer, how fast, and who is refused."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as dash

import panels as p

M = 'model="$model"'
DURATION = "prunepool_request_duration_seconds"


def _quantile(q: float, stage: str) -> str:
    return (
        f"histogram_quantile({q}, sum by (le) "
        f'(rate({DURATION}_bucket{{{M}, stage="{stage}"}}[$__rate_interval])))'
    )


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
                "Images",
                "Images answered per second.",
                "reqps",
                f'sum(rate(prunepool_requests_total{{{M}, outcome="ok"}}[$__rate_interval]))',
                plain,
            )
        )
        .with_panel(
            p.number(
                "p99 of the target",
                "The 99th percentile of the time from arrival to answer, as a share of target_latency_ms; over "
                "5 minutes, as the alert sees it.",
                "percentunit",
                f'max(model_stage:{DURATION}:p99_5m{{{M}, stage="total"}}) '
                f"/ max(prunepool_target_latency_seconds{{{M}}})",
                share,
            )
        )
        .with_panel(
            p.number(
                "Refused",
                "Share of the images refused as overloaded or past their deadline, over 5 minutes.",
                "percentunit",
                f"max(model:prunepool_shed:ratio_rate5m{{{M}}})",
                good_low,
            )
        )
        .with_panel(
            p.number(
                "Compute saved",
                "Share of the dense model's GMACs that was not spent, over 5 minutes.",
                "percentunit",
                f"max(model:prunepool_gmacs_saved:ratio_rate5m{{{M}}})",
                plain,
            )
        )
        .with_panel(
            p.number(
                "auto",
                "The ratio that auto applies, as a share of its limit: at 100 % the next step is to refuse.",
                "percentunit",
                f"max(model:prunepool_auto_reduction_ratio:share_of_limit{{{M}}})",
                share,
            )
        )
        .with_panel(
            p.number(
                "Engines up",
                "Share of the replicas whose engine can run a batch.",
                "percentunit",
                f"avg(prunepool_engine_up{{{M}}})",
                p.thresholds((None, p.RED), (0.5, p.AMBER), (1, p.GREEN)),
            )
        )
        .with_row(dash.Row("Throughput"))
        .with_panel(
            p.lines(
                "Throughput by reduction band",
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
                "Requests by outcome",
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
                "Latency",
                "Images by the time from arrival to answer.",
                "s",
                f'sum by (le) (increase({DURATION}_bucket{{{M}, stage="total"}}[$__rate_interval]))',
            )
        )
        .with_panel(
            p.lines(
                "Latency: p50, p95, p99",
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
                "Queue",
                "Images accepted and waiting for the device, by replica.",
                "short",
                [(f"sum by (instance) (prunepool_queue_requests{{{M}}})", "{{instance}}")],
                width=8,
            )
        )
        .with_panel(
            p.lines(
                "Time to drain",
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
                "Rejections by reason",
                "Images refused before they reached the device. overloaded and deadline_exceeded are the "
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
        f"{stage.capitalize()}: p50, p95, p99",
        description,
        "s",
        [(_quantile(q, stage), f"p{q * 100:.0f}") for q in (0.5, 0.95, 0.99)],
        width=8,
        colors={"p50": p.GREEN, "p95": p.AMBER, "p99": p.BLUE},
    )
