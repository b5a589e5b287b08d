"""The engine and the machine under it: batches, predictions, restarts, processor, memory, GPU."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as dash

import panels as p

M = p.OF_MODEL
JOB = p.OF_PLACE


def engine() -> dash.Dashboard:
    """Where to look when the overview is not as it should be."""
    return (
        p.board("prunepool-engine", "Engine", "Batches, predictions, restarts, and the machine under them.")
        .with_row(dash.Row("Health"))
        .with_panel(
            p.states(
                "Engine up or down, by replica",
                "Whether each replica's engine can run a batch.",
                f"min by (instance) (prunepool_engine_up{{{M}}})",
                "{{instance}}",
                width=8,
            )
        )
        .with_panel(
            p.lines(
                "Engine restarts in 15 minutes, by replica",
                "Restarts of the engine after it died, in 15 minutes.",
                "short",
                [
                    (
                        f"sum by (instance) (increase(prunepool_engine_restarts_total{{{M}}}[15m]))",
                        "{{instance}}",
                    )
                ],
                width=8,
            )
        )
        .with_panel(
            p.lines(
                "Share of time the device ran batches, by replica",
                "Share of the time in which the device ran batches.",
                "percentunit",
                [
                    (
                        (
                            "sum by (instance) "
                            f"(rate(prunepool_inference_seconds_total{{{M}}}[$__rate_interval]))"
                        ),
                        "{{instance}}",
                    )
                ],
                width=8,
            )
        )
        .with_row(dash.Row("Batches"))
        .with_panel(
            p.density(
                "Images per batch, distribution",
                "Batches by the number of images in them.",
                "short",
                f"sum by (le) (increase(prunepool_batch_size_bucket{{{M}}}[$__rate_interval]))",
                width=8,
            )
        )
        .with_panel(
            p.density(
                "Tokens per batch, distribution",
                "Batches by their tokens after the last reduction, summed over the images.",
                "short",
                f"sum by (le) (increase(prunepool_batch_tokens_bucket{{{M}}}[$__rate_interval]))",
                width=8,
            )
        )
        .with_panel(
            p.lines(
                "Images and tokens per batch, mean",
                "Images and tokens per batch.",
                "short",
                [
                    (
                        (
                            f"sum(rate(prunepool_batch_size_sum{{{M}}}[$__rate_interval])) "
                            f"/ sum(rate(prunepool_batch_size_count{{{M}}}[$__rate_interval]))"
                        ),
                        "images",
                    ),
                    (
                        (
                            f"sum(rate(prunepool_batch_tokens_sum{{{M}}}[$__rate_interval])) "
                            f"/ sum(rate(prunepool_batch_tokens_count{{{M}}}[$__rate_interval])) / 100"
                        ),
                        "tokens, hundreds",
                    ),
                ],
                width=8,
                colors={"images": p.BLUE, "tokens, hundreds": p.GREEN},
            )
        )
        .with_row(dash.Row("Prediction"))
        .with_panel(
            p.density(
                "Error of the predicted batch time, distribution",
                "Batches by the error of their predicted time.",
                "percentunit",
                f"sum by (le) (increase(prunepool_prediction_error_ratio_bucket{{{M}}}[$__rate_interval]))",
            )
        )
        .with_panel(
            p.lines(
                "Predicted time of each part of a batch",
                "Predicted time of each part of a batch, as learned so far.",
                "s",
                [(f"max by (part) (prunepool_cost_model_seconds{{{M}}})", "{{part}}")],
            )
        )
        .with_row(dash.Row("Machine"))
        .with_panel(
            p.lines(
                "CPU cores in use",
                "Cores in use by the server.",
                "short",
                [(f"rate(process_cpu_seconds_total{{{JOB}}}[$__rate_interval])", "{{instance}}")],
                width=8,
            )
        )
        .with_panel(
            p.lines(
                "Resident memory",
                "Resident memory of the server.",
                "bytes",
                [(f"process_resident_memory_bytes{{{JOB}}}", "{{instance}}")],
                width=8,
            )
        )
        .with_panel(
            p.lines(
                "Open files",
                "Connections and files of the server.",
                "short",
                [(f"process_open_fds{{{JOB}}}", "{{instance}}")],
                width=8,
            )
        )
        # Closed: most machines have none.
        .with_row(
            dash.Row("GPU")
            .collapsed(True)
            .with_panel(
                p.lines(
                    "GPU busy, share of time",
                    "Share of the time in which each GPU was busy.",
                    "percentunit",
                    [(f"prunepool_gpu_utilization_ratio{{{JOB}}}", "{{instance}} {{gpu}}")],
                    width=8,
                    most=1,
                )
            )
            .with_panel(
                p.lines(
                    "GPU memory in use and total",
                    "In use by any process, and total.",
                    "bytes",
                    [(f"prunepool_gpu_memory_bytes{{{JOB}}}", "{{instance}} {{gpu}} {{kind}}")],
                    width=8,
                )
            )
            .with_panel(
                p.lines(
                    "GPU power draw",
                    "Power draw of each GPU.",
                    "watt",
                    [(f"prunepool_gpu_power_watts{{{JOB}}}", "{{instance}} {{gpu}}")],
                    width=8,
                )
            )
        )
    )
