"""The kinds of panels that the dashboards are made of: one look, one data source, one model at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from grafana_foundation_sdk.builders import common, heatmap, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.builders import dashboard as dash
from grafana_foundation_sdk.builders import prometheus as prom
from grafana_foundation_sdk.models import common as looks
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import heatmap as heat
from grafana_foundation_sdk.models import prometheus as queries

SOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
GREEN, AMBER, RED, BLUE, GREY = "#56A64B", "#F2A900", "#E02F44", "#3274D9", "#8E96A3"

#: Bands of the reduction ratio as prunepool labels them, from grey (dense) over blue and green to orange.
BANDS = {
    "0": GREY,
    "0.0-0.1": "#3B528B",
    "0.1-0.2": "#2F6C8E",
    "0.2-0.3": "#25848E",
    "0.3-0.4": "#1E9C89",
    "0.4-0.5": "#3BB273",
    "0.5-0.6": "#6CCD5A",
    "0.6-0.7": "#A8DB34",
    "0.7-0.8": "#E8C52B",
    "0.8-0.9": "#F28C28",
}

#: What the variables of a dashboard choose, as label matchers.
OF_PLACE = 'namespace=~"$namespace", job=~"$job", instance=~"$instance"'
OF_MODEL = f'model="$model", {OF_PLACE}'

Query = tuple[str, str]  # PromQL and the legend of what it gives


def _color(value: str) -> model.DynamicConfigValue:
    return model.DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": value})


def _target(query: Query, ref: int, *, instant: bool = False, as_heatmap: bool = False) -> prom.Dataquery:
    expression, legend = query
    target = (
        prom.Dataquery().expr(expression).legend_format(legend).ref_id(chr(ord("A") + ref)).datasource(SOURCE)
    )
    if as_heatmap:
        target.format(queries.PromQueryFormat.HEATMAP)
    return target.instant() if instant else target.range()


def thresholds(*steps: tuple[float | None, str]) -> dash.ThresholdsConfig:
    """Colours by value: the first step has no lower end."""
    return (
        dash.ThresholdsConfig()
        .mode(model.ThresholdsMode.ABSOLUTE)
        .steps([model.Threshold(value=value, color=color) for value, color in steps])
    )


def lines(
    title: str,
    description: str,
    unit: str,
    queries_: Sequence[Query],
    *,
    width: int = 12,
    height: int = 8,
    stacked: bool = False,
    least: float | None = 0,
    most: float | None = None,
    colors: dict[str, str] | None = None,
    dashed: Sequence[str] = (),
) -> timeseries.Panel:
    """Values over time, with a table of their mean, maximum and last value.

    Args:
        title: above it.
        description: behind the i.
        unit: one of Grafana's.
        queries_: what is shown.
        width: of 24 columns.
        height: in rows of the grid.
        stacked: as areas on top of each other.
        least: lower end of the axis.
        most: upper end of the axis.
        colors: of series by name; the bands of the reduction ratio have theirs.
        dashed: names of series that are limits.
    """
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .unit(unit)
        .datasource(SOURCE)
        .span(width)
        .height(height)
        .line_width(1 if stacked else 2)
        .fill_opacity(65 if stacked else 8)
        .gradient_mode(looks.GraphGradientMode.NONE if stacked else looks.GraphGradientMode.OPACITY)
        .show_points(looks.VisibilityMode.NEVER)
        .span_nulls(60_000)
        .tooltip(
            common.VizTooltipOptions().mode(looks.TooltipDisplayMode.MULTI).sort(looks.SortOrder.DESCENDING)
        )
        .legend(
            common.VizLegendOptions()
            .display_mode(looks.LegendDisplayMode.TABLE)
            .placement(looks.LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["mean", "max", "lastNotNull"])
        )
    )
    if stacked:
        panel.stacking(common.StackingConfig().mode(looks.StackingMode.NORMAL).group("A"))
    if least is not None:
        panel.min(least)
    if most is not None:
        panel.max(most)
    for ref, query in enumerate(queries_):
        panel.with_target(_target(query, ref))
    for name, color in {**BANDS, **(colors or {})}.items():
        if name not in BANDS or any("{{reduction}}" in legend for _, legend in queries_):
            panel.override_by_name(name, [_color(color)])
    for name in dashed:
        panel.override_by_name(
            name,
            [
                _color(RED),
                model.DynamicConfigValue(id_val="custom.lineStyle", value={"fill": "dash", "dash": [8, 6]}),
                model.DynamicConfigValue(id_val="custom.fillOpacity", value=0),
            ],
        )
    return panel


def number(
    title: str, description: str, unit: str, expression: str, levels: dash.ThresholdsConfig, *, width: int = 4
) -> stat.Panel:
    """The present value in large, its course behind it."""
    return (
        stat.Panel()
        .title(title)
        .description(description)
        .unit(unit)
        .datasource(SOURCE)
        .span(width)
        .height(4)
        .thresholds(levels)
        .color_scheme(dash.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
        .graph_mode(looks.BigValueGraphMode.AREA)
        .color_mode(looks.BigValueColorMode.VALUE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .with_target(_target((expression, ""), 0))
    )


def density(
    title: str, description: str, unit: str, expression: str, *, width: int = 12, height: int = 8
) -> heatmap.Panel:
    """A histogram over time: `expression` gives buckets by `le`."""
    return (
        heatmap.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .span(width)
        .height(height)
        .calculate(False)
        .y_axis(heatmap.YAxisConfig().unit(unit))
        .color(
            heatmap.HeatmapColorOptions()
            .mode(heat.HeatmapColorMode.SCHEME)
            .scheme("Viridis")
            .scale(heat.HeatmapColorScale.EXPONENTIAL)
            .exponent(0.5)
            .steps(64)
        )
        .filter_values(heatmap.FilterValueRange().le(1e-9))
        .cell_gap(1)
        .show_y_histogram()
        .show_color_scale(True)
        .with_target(_target((expression, "{{le}}"), 0, as_heatmap=True))
    )


def states(
    title: str, description: str, expression: str, legend: str, *, width: int = 12
) -> statetimeline.Panel:
    """Up or down over time."""
    up_or_down: Any = {
        "0": model.ValueMappingResult(text="down", color=RED, index=0),
        "1": model.ValueMappingResult(text="up", color=GREEN, index=1),
    }
    return (
        statetimeline.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .span(width)
        .height(8)
        .mappings([model.ValueMap(options=up_or_down)])
        .thresholds(thresholds((None, RED), (1, GREEN)))
        .color_scheme(dash.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
        .merge_values(True)
        .show_value(looks.VisibilityMode.AUTO)
        .with_target(_target((expression, legend), 0))
    )


def board(uid: str, title: str, description: str) -> dash.Dashboard:
    """An empty dashboard with what all of them share: data source, model, links, and alerts as annotations."""
    return (
        dash.Dashboard(f"prunepool · {title}")
        .uid(uid)
        .description(description)
        .tags(["prunepool"])
        .readonly()
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .refresh("10s")
        .time("now-30m", "now")
        .timezone("browser")
        .link(
            dash.DashboardLink("prunepool")
            .type(model.DashboardLinkType.DASHBOARDS)
            .tags(["prunepool"])
            .include_vars(True)
            .keep_time(True)
        )
        .with_variable(dash.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .with_variable(
            dash.QueryVariable("model")
            .label("Model")
            .datasource(SOURCE)
            .query("label_values(prunepool_engine_up, model)")
            .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(model.VariableSort.ALPHABETICAL_ASC)
        )
        .with_variable(_place("namespace", "Namespace"))
        .with_variable(_place("job", "Job"))
        .with_variable(_place("instance", "Instance"))
        .annotation(
            dash.AnnotationQuery()
            .name("Alerts")
            .datasource(SOURCE)
            .enable(True)
            .icon_color(RED)
            .expr('ALERTS{alertstate="firing", alertname=~"Prunepool.*"}')
        )
    )


def _place(label: str, title: str) -> dash.QueryVariable:
    """A choice among the values of a label; all of them by default, also of series that lack it."""
    return (
        dash.QueryVariable(label)
        .label(title)
        .datasource(SOURCE)
        .query(f"label_values(prunepool_engine_up, {label})")
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(model.VariableOption(text="All", value="$__all", selected=True))
    )


def rows(
    title: str,
    description: str,
    expression: str,
    hidden: Sequence[str] = (),
    *,
    width: int = 12,
    height: int = 8,
) -> table.Panel:
    """The present series as a table, their labels as columns.

    Args:
        title: above it.
        description: behind the i.
        expression: gives the series.
        hidden: labels, and `Value`, that are not shown.
        width: of 24 columns.
        height: in rows of the grid.
    """
    target = (
        prom.Dataquery()
        .expr(expression)
        .ref_id("A")
        .datasource(SOURCE)
        .format(queries.PromQueryFormat.TABLE)
        .instant()
    )
    panel = table.Panel().title(title).description(description).datasource(SOURCE).span(width).height(height)
    left_out = dict.fromkeys(("Time", *hidden), True)
    organised = model.DataTransformerConfig(id_val="organize", options={"excludeByName": left_out})
    return panel.with_target(target).with_transformation(organised)
