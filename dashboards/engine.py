"""The engine and the machine under it: batches, predictions, restarts, processor, memory, GPU."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as dash

import panels as p

M = 'model="$model"'
JOB = 'job="prunepool"'


def engine() -> dash.Dashboard:
    """Where to look when the overview is not as it should be."""
    return (
        p.board("prunepool-engine", "Engine", "Batches, predictions, restarts, and the machine under them.")
        .with_row(dash.Row("Health"))
        .with_panel(
            p.states(
                "Engine",
                "Whether each replica's engine can run a batch.",
                f"min by (instance) (prunepool_engine_up{{{M}}})",
                "{{instance}}",
                width=8,
            )
        )
        .with_panel(
            p.lines(
                "Restarts",
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
                "Device busy",
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
                "Batch size",
                "Batches by the number of images in them.",
                "short",
                f"sum by (le) (increase(prunepool_batch_size_bucket{{{M}}}[$__rate_interval]))",
                width=8,
            )
        )
        .with_panel(
            p.density(
                "Tokens per batch",
                "Batches by their tokens after the last reduction, summed over the images.",
                "short",
                f"sum by (le) (increase(prunepool_batch_tokens_bucket{{{M}}}[$__rate_interval]))",
                width=8,
            )
        )
        .with_panel(
            p.lines(
                "Mean batch size",
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
                "Prediction error",
                "Batches by the error of their predicted time.",
                "percentunit",
                f"sum by (le) (increase(prunepool_prediction_error_ratio_bucket{{{M}}}[$__rate_interval]))",
            )
        )
        .with_panel(
            p.lines(
                "Cost model",
                "Predicted time of each part of a batch, as learned so far.",
                "s",
                [(f"max by (part) (prunepool_cost_model_seconds{{{M}}})", "{{part}}")],
            )
        )
        .with_row(dash.Row("Machine"))
        .with_panel(
            p.lines(
                "CPU",
                "Cores in use by the server.",
                "short",
                [(f"rate(process_cpu_seconds_total{{{JOB}}}[$__rate_interval])", "{{instance}}")],
                width=8,
            )
        )
        .with_panel(
            p.lines(
                "Memory",
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
        .with_row(dash.Row("GPU"))
        .with_panel(
            p.lines(
                "GPU busy",
                "Share of the time in which each GPU was busy.",
                "percentunit",
                [("prunepool_gpu_utilization_ratio", "{{instance}} {{gpu}}")],
                width=8,
                most=1,
            )
        )
        .with_panel(
            p.lines(
                "GPU memory",
                "In use by any process, and total.",
                "bytes",
                [("prunepool_gpu_memory_bytes", "{{instance}} {{gpu}} {{kind}}")],
                width=8,
            )
        )
        .with_panel(
            p.lines(
                "GPU power",
                "Power draw of each GPU.",
                "watt",
                [("prunepool_gpu_power_watts", "{{instance}} {{gpu}}")],
                width=8,
            )
        )
    )
