"""What the dial does: ratios applied, work saved, speed won, answers kept."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as dash

import panels as p

M = p.OF_MODEL


def dial() -> dash.Dashboard:
    """What reduction brings and costs on the real traffic."""
    return (
        p.board("prunepool-dial", "The dial", "What reduction saves and costs on real traffic.")
        .with_row(dash.Row("Ratio"))
        .with_panel(
            p.density(
                "Applied ratio, distribution",
                "Images by the reduction ratio that was applied to them.",
                "percentunit",
                f"sum by (le) (increase(prunepool_applied_reduction_ratio_bucket{{{M}}}[$__rate_interval]))",
            )
        )
        .with_panel(
            p.lines(
                "Ratio: auto now, its limit, mean applied",
                "What auto would apply now, its limit, and the mean of all applied ratios, auto or "
                "chosen by the caller.",
                "percentunit",
                [
                    (f"max(prunepool_auto_reduction_ratio{{{M}}})", "auto now"),
                    (f"max(prunepool_auto_reduction_ratio_limit{{{M}}})", "limit"),
                    (
                        (
                            f"sum(rate(prunepool_applied_reduction_ratio_sum{{{M}}}[$__rate_interval])) "
                            f"/ sum(rate(prunepool_applied_reduction_ratio_count{{{M}}}[$__rate_interval]))"
                        ),
                        "mean applied",
                    ),
                ],
                most=1,
                colors={"auto now": p.BLUE, "mean applied": p.GREEN},
                dashed=["limit"],
            )
        )
        .with_row(dash.Row("What it saves"))
        .with_panel(
            p.lines(
                "Device time of a dense image / a reduced one, by band",
                "Device time of a dense image over that of a reduced one, over 5 minutes, while both are served. "
                "A mixed batch's time is divided by GMACs, so mixed traffic tends to the ratio of GMACs.",
                "suffix:×",
                [
                    (
                        _speedup(),
                        "{{reduction}}",
                    )
                ],
                least=None,
            )
        )
        .with_panel(
            p.lines(
                "Device time per image, by band",
                "By band of the reduction ratio.",
                "s",
                [
                    (
                        (
                            f"sum by (reduction) (rate(prunepool_inference_seconds_total{{{M}}}[$__rate_interval]))"
                            f" / sum by (reduction) (rate(prunepool_images_total{{{M}}}[$__rate_interval]))"
                        ),
                        "{{reduction}}",
                    )
                ],
            )
        )
        .with_panel(
            p.lines(
                "GMACs per second, spent and saved",
                "Billions of multiply-accumulates spent, and saved against dense answers.",
                "short",
                [(f"sum by (kind) (rate(prunepool_gmacs_total{{{M}}}[$__rate_interval]))", "{{kind}}")],
                stacked=True,
                colors={"spent": p.BLUE, "saved": p.GREEN},
            )
        )
        .with_panel(
            p.lines(
                "Tokens per second, by outcome",
                "Tokens per second that were kept to the end, pruned, or pooled with others.",
                "short",
                [(f"sum by (fate) (rate(prunepool_tokens_total{{{M}}}[$__rate_interval]))", "{{fate}}")],
                stacked=True,
                colors={"kept": p.BLUE, "pruned": p.AMBER, "pooled": p.GREEN},
            )
        )
        .with_row(dash.Row("What it costs"))
        .with_panel(
            p.lines(
                "Sampled answers that agree with ratio 0, by band",
                "Share of sampled reduced images that got the same answer at ratio 0. Needs "
                "shadow_sample above 0.",
                "percentunit",
                [
                    (
                        f"avg by (reduction) (prunepool_shadow_agreement{{{M}}})",
                        "{{reduction}}",
                    )
                ],
                least=None,
                most=1,
            )
        )
        .with_panel(
            p.lines(
                "All answers that agree with ratio 0, estimated",
                "Share of all answers that are the dense model's: each band's agreement, weighted by its images; "
                "dense answers agree with themselves. Needs shadow_sample above 0.",
                "percentunit",
                [
                    (
                        _effective(),
                        "agreement, all images",
                    )
                ],
                least=None,
                most=1,
                colors={"agreement, all images": p.GREEN},
            )
        )
    )


def _speedup() -> str:
    """Device time of a dense image over that of a reduced one, of each band that is served."""

    def per_image(of: str) -> str:
        seconds = f"sum by (reduction) (rate(prunepool_inference_seconds_total{{{M}, {of}}}[5m]))"
        return f"{seconds} / (sum by (reduction) (rate(prunepool_images_total{{{M}, {of}}}[5m])) > 0)"

    dense, reduced = per_image('reduction="0"'), per_image('reduction!="0"')
    return f"scalar(sum({dense})) / ({reduced})"


def _effective() -> str:
    """Each band's agreement weighted by its images, over the bands that have been sampled."""
    reduced = f'sum by (reduction) (rate(prunepool_images_total{{{M}, reduction!="0"}}[5m]))'
    dense = f'(sum(rate(prunepool_images_total{{{M}, reduction="0"}}[5m])) or vector(0))'
    agreement = f"avg by (reduction) (prunepool_shadow_agreement{{{M}}})"
    agreeing = f"sum({agreement} * on (reduction) {reduced})"
    sampled = f"sum({reduced} and on (reduction) {agreement})"
    return f"({agreeing} + {dense}) / ({sampled} + {dense})"
