"""Panels, rows and variables, and the JSON Grafana (10 and later) imports for them.

Only what a dashboard of ours needs: time series, single numbers, tables. The schema is Grafana's dashboard
JSON model, schemaVersion 39.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["Dashboard", "Panel", "Row", "Target", "Variable", "render"]

Json = dict[str, object]

_DATASOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}
_COLUMNS = 24


@dataclass(frozen=True, slots=True)
class Target:
    """One PromQL query and its legend."""

    expr: str
    legend: str = "{{name}}"
    instant: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel; ``unit`` is Grafana's unit id (``bytes``, ``percentunit``, ``Bps``, ``short``, ``s``)."""

    title: str
    unit: str
    targets: Sequence[Target]
    kind: str = "timeseries"  #: timeseries, stat, gauge or table
    width: int = 12
    height: int = 8
    description: str = ""
    stack: bool = False
    thresholds: Sequence[tuple[float | None, str]] = ((None, "green"),)


@dataclass(frozen=True, slots=True)
class Row:
    """A heading and the panels under it, laid out left to right."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, slots=True)
class Variable:
    """A selector at the top of the dashboard, filled by a ``label_values`` query."""

    name: str
    label: str
    query: str
    multi: bool = True


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A whole dashboard; ``uid`` is what keeps its address stable."""

    uid: str
    title: str
    variables: Sequence[Variable]
    rows: Sequence[Row]
    tags: Sequence[str] = field(default_factory=lambda: ("taffrail", "containers"))
    refresh: str = "10s"


def render(dashboard: Dashboard) -> Json:
    """The dashboard as Grafana's JSON model."""
    panels: list[Json] = []
    y = 0
    for row in dashboard.rows:
        panels.append(
            {"id": len(panels) + 1, "type": "row", "title": row.title, "collapsed": False, "panels": [],
             "gridPos": {"x": 0, "y": y, "w": _COLUMNS, "h": 1}}
        )  # fmt: skip
        y += 1
        x = tallest = 0
        for panel in row.panels:
            if x + panel.width > _COLUMNS:
                x, y, tallest = 0, y + tallest, 0
            panels.append(_panel(panel, len(panels) + 1, x, y))
            x, tallest = x + panel.width, max(tallest, panel.height)
        y += tallest
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "tags": list(dashboard.tags),
        "schemaVersion": 39,
        "editable": True,
        "refresh": dashboard.refresh,
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "browser",
        "templating": {"list": [_datasource_variable(), *map(_variable, dashboard.variables)]},
        "panels": panels,
    }


def _panel(panel: Panel, number: int, x: int, y: int) -> Json:
    defaults: Json = {
        "unit": panel.unit,
        "thresholds": {"mode": "absolute", "steps": [{"value": v, "color": c} for v, c in panel.thresholds]},
    }
    if panel.kind == "timeseries":
        defaults["custom"] = {
            "fillOpacity": 30 if panel.stack else 8,
            "lineWidth": 1,
            "showPoints": "never",
            "stacking": {"mode": "normal" if panel.stack else "none"},
        }
        defaults["min"] = 0
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": _DATASOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": panel.height},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": _options(panel.kind),
        "targets": [
            _target(target, letter) for target, letter in zip(panel.targets, "ABCDEFGH", strict=False)
        ],
    }


def _options(kind: str) -> Json:
    if kind == "timeseries":
        return {"legend": {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"]},
                "tooltip": {"mode": "multi", "sort": "desc"}}  # fmt: skip
    if kind == "table":
        return {"showHeader": True}
    return {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}}


def _target(target: Target, letter: str) -> Json:
    return {
        "refId": letter,
        "datasource": _DATASOURCE,
        "expr": target.expr,
        "legendFormat": target.legend,
        "instant": target.instant,
        "range": not target.instant,
        **({"format": "table"} if target.instant else {}),
    }


def _datasource_variable() -> Json:
    return {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "hide": 0,
    }


def _variable(variable: Variable) -> Json:
    return {
        "name": variable.name,
        "label": variable.label,
        "type": "query",
        "datasource": _DATASOURCE,
        "query": {"query": variable.query, "refId": variable.name},
        "refresh": 2,
        "sort": 1,
        "multi": variable.multi,
        "includeAll": variable.multi,
        "allValue": ".*" if variable.multi else None,
        "current": {"text": "All", "value": "$__all"} if variable.multi else {},
    }
