"""Dashboards in Grafana's JSON, and the rules as a PrometheusRule: the same text for the same panels, always."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from typing import Any

import yaml
from grafana_foundation_sdk.builders import common as grafana_common
from grafana_foundation_sdk.builders import dashboard as grafana
from grafana_foundation_sdk.builders import prometheus, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as models
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    GridPos,
    Threshold,
    ThresholdsMode,
    VariableOption,
)

from tools.dashboards.capacity import CAPACITY
from tools.dashboards.panel import Dashboard, Panel
from tools.dashboards.stage import STAGES
from tools.dashboards.turn import TURN

MONITORING = Path(__file__).resolve().parent.parent.parent / "deploy" / "monitoring"
DASHBOARDS = (TURN, STAGES, CAPACITY)
ALERTS = "alerts.yaml"
_SOURCE = DataSourceRef(type_val="prometheus", uid="${source}")
_WIDTH, _HEIGHT, _COLUMNS = 12, 8, 2
_NOT_IN_SCHEMA = {"id", "auto", "auto_count", "auto_min"}  # what the SDK adds to variables
_NOTE = "# Written by `make dashboards` from alerts.yaml; change that one.\n"


def outputs() -> dict[str, str]:
    """Path below deploy/monitoring/ and text of everything that is generated."""
    texts = {f"dashboards/{dashboard.uid}.json": grafana_json(dashboard) for dashboard in DASHBOARDS}
    return texts | {"prometheusrule.yaml": prometheus_rule()}


def grafana_json(dashboard: Dashboard) -> str:
    """That dashboard as Grafana imports it."""
    builder = (
        grafana.Dashboard(dashboard.title)
        .uid(dashboard.uid)
        .description(dashboard.about)
        .tags(["voicemesh"])
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .time("now-1h", "now")
        .refresh("10s")
        .with_variable(grafana.DatasourceVariable("source").label("Prometheus").type("prometheus"))
    )
    if any("$stage" in query.expression for panel in dashboard.panels for query in panel.queries):
        builder = builder.with_variable(_stage_variable())
    top, ids = 0, count(1)
    for row, panels in dashboard.rows.items():
        builder = builder.with_row(grafana.Row(row).id(next(ids)).grid_pos(GridPos(h=1, w=24, x=0, y=top)))
        for index, panel in enumerate(panels):
            place = GridPos(h=_HEIGHT, w=_WIDTH, x=index % _COLUMNS * _WIDTH, y=top + 1 + index // _COLUMNS * _HEIGHT)
            builder = builder.with_panel(_timeseries(panel).id(next(ids)).grid_pos(place))
        top += 1 + -(-len(panels) // _COLUMNS) * _HEIGHT
    document = json.loads(json.dumps(builder.build(), cls=JSONEncoder))
    del document["style"]  # gone from Grafana's schema, not yet from the SDK
    for variable in document["templating"]["list"]:
        for unknown in variable.keys() & _NOT_IN_SCHEMA:
            del variable[unknown]
    return json.dumps(_without_nulls(document), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def prometheus_rule() -> str:
    """alerts.yaml as an object of the Prometheus operator."""
    rules = yaml.safe_load((MONITORING / ALERTS).read_text(encoding="utf-8"))
    document = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "voicemesh"},
        "spec": {"groups": rules["groups"]},
    }
    return _NOTE + yaml.safe_dump(document, sort_keys=False, width=120, allow_unicode=True)


def _stage_variable() -> grafana.QueryVariable:
    return (
        grafana.QueryVariable("stage")
        .label("Stage")
        .datasource(_SOURCE)
        .query("label_values(voicemesh_slot_limit, voicemesh_stage)")
        .include_all(True)
        .multi(True)
        .all_value(".+")
        .current(VariableOption(selected=True, text="All", value="$__all"))
    )


def _timeseries(panel: Panel) -> timeseries.Panel:
    built = (
        timeseries.Panel()
        .title(panel.title)
        .description(panel.good)
        .datasource(_SOURCE)
        .unit(panel.unit)
        .axis_soft_min(0)
        .fill_opacity(60 if panel.stacked else 5)
        .legend(grafana_common.VizLegendOptions().show_legend(True).placement(models.LegendPlacement.BOTTOM))
        .tooltip(grafana_common.VizTooltipOptions().mode(models.TooltipDisplayMode.MULTI))
    )
    if panel.stacked:
        built = built.stacking(grafana_common.StackingConfig().mode(models.StackingMode.NORMAL))
    if panel.limit is not None:
        steps = [Threshold(value=None, color="green"), Threshold(value=panel.limit, color="red")]
        built = built.thresholds(grafana.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
        lines = grafana_common.GraphThresholdsStyleConfig().mode(models.GraphTresholdsStyleMode.DASHED)
        built = built.thresholds_style(lines)
    for index, query in enumerate(panel.queries):
        target = prometheus.Dataquery().expr(query.expression).legend_format(query.legend).ref_id(chr(ord("A") + index))
        built = built.with_target(target.datasource(_SOURCE).exemplar("histogram_quantile" in query.expression))
    return built


def _without_nulls(value: Any) -> Any:
    """Grafana's schema wants no nulls but a threshold's lowest step."""
    if isinstance(value, dict):
        return {key: _without_nulls(it) for key, it in value.items() if it is not None or "color" in value}
    return [_without_nulls(it) for it in value] if isinstance(value, list) else value
