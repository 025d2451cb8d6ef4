"""Dashboards, rules and alerts: what they ask for exists, and every alert fires and keeps silent."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.metrics import families
from tests.deploy.tools import run
from tools.dashboards.__main__ import main as write
from tools.dashboards.write import ALERTS, DASHBOARDS, MONITORING, outputs

ROOT = MONITORING.parent.parent
HANDBOOK = ROOT / "docs" / "operations.md"
RULES = [
    rule
    for group in yaml.safe_load((MONITORING / ALERTS).read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
RECORDED = {rule["record"]: rule["expr"] for rule in RULES if "record" in rule}
ALARMS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
PANELS = {f"{dashboard.uid} / {panel.title}": panel for dashboard in DASHBOARDS for panel in dashboard.panels}
# Prometheus itself makes `up`; it and the cluster add these labels to what is scraped.
FROM_PROMETHEUS = {"up"}
FROM_SCRAPING = {"instance", "job", "namespace", "pod"}
WORDS = {"sum", "by", "rate", "count", "max", "histogram_quantile", "le", "m"}


def plain(expression: str) -> str:
    """Grafana's variables replaced by values."""
    return expression.replace("$__rate_interval", "5m").replace("$stage", ".+")


EXPRESSIONS = {
    f"{title}, {query.legend}": plain(query.expression) for title, panel in PANELS.items() for query in panel.queries
} | {str(rule.get("alert") or rule.get("record")): rule["expr"] for rule in RULES}


def metrics_of(expression: str) -> set[str]:
    """The names of series in an expression."""
    bare = re.sub(r'"[^"]*"|\[[^]]*\]|\bby \([^)]*\)|\{[^}]*\}', " ", expression)
    return {word for word in re.findall(r"[a-zA-Z_:][a-zA-Z0-9_:]*", bare) if word not in WORDS}


def labels_of(expression: str) -> set[str]:
    """The labels that an expression selects or groups by."""
    grouped = {label.strip() for part in re.findall(r"\bby \(([^)]*)\)", expression) for label in part.split(",")}
    return grouped | set(re.findall(r"[{,]\s*([a-z_]+)\s*=", expression))


@pytest.fixture(scope="module")
def served() -> dict[str, set[str]]:
    """Label names by the name of each series that a page serves."""
    series: dict[str, set[str]] = {}
    for family in families().values():
        for sample in family.samples:
            series.setdefault(sample.name, set()).update(sample.labels)
    return series


def test_what_is_committed_is_what_the_panels_say(tmp_path: Path) -> None:
    (tmp_path / "dashboards").mkdir()
    assert write(tmp_path) == 0
    for name in outputs():
        assert (MONITORING / name).read_text(encoding="utf-8") == (tmp_path / name).read_text(encoding="utf-8"), (
            f"{name} is stale: make dashboards"
        )


def test_every_panel_says_what_good_looks_like_and_has_a_name_of_its_own() -> None:
    assert all(panel.good.startswith("Good: ") and panel.good.endswith(".") for panel in PANELS.values())
    assert len(PANELS) == sum(len(dashboard.panels) for dashboard in DASHBOARDS)


@pytest.mark.parametrize("where", EXPRESSIONS)
def test_an_expression_asks_for_series_and_labels_that_a_page_serves(where: str, served: dict[str, set[str]]) -> None:
    expression = EXPRESSIONS[where]
    names = metrics_of(expression)
    assert names
    for name in names - FROM_PROMETHEUS:
        assert name in served or name in RECORDED, f"nobody serves {name}"
    plain_names = names & served.keys()
    known = set().union(*(served[name] for name in plain_names)) | FROM_SCRAPING
    for name in names & RECORDED.keys():
        known |= labels_of(RECORDED[name])
    if not names & FROM_PROMETHEUS:
        assert labels_of(expression) <= known


def test_every_expression_is_one_to_prometheus(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{index}", "expr": text} for index, text in enumerate(EXPRESSIONS.values())]
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}), encoding="utf-8")
    assert f"{len(rules)} rules found" in run("promtool", "check", "rules", str(path))


def test_a_misspelt_function_would_be_found(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    rules = [{"record": "panel:0", "expr": "histogram_quantil(0.95, up)"}]
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}), encoding="utf-8")
    with pytest.raises(AssertionError, match="histogram_quantil"):
        run("promtool", "check", "rules", str(path))


def test_alerts_fire_where_they_should_and_are_silent_beside_it() -> None:
    assert "SUCCESS" in run("promtool", "test", "rules", str(MONITORING / "alerts_test.yaml"))


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    cases: list[Any] = yaml.safe_load((MONITORING / "alerts_test.yaml").read_text(encoding="utf-8"))["tests"]
    checks = [check for case in cases for check in case["alert_rule_test"]]
    fired = Counter(check["alertname"] for check in checks if check["exp_alerts"])
    silent = Counter(check["alertname"] for check in checks if not check["exp_alerts"])
    assert fired.keys() == silent.keys() == ALARMS.keys()


@pytest.mark.parametrize("alert", ALARMS)
def test_an_alert_leads_to_its_panel_and_to_its_page_of_the_handbook(alert: str) -> None:
    notes = ALARMS[alert]["annotations"]
    panel = PANELS[notes["panel"]]
    assert ALARMS[alert]["labels"]["severity"] in ("page", "warn")
    shown = set().union(*(metrics_of(plain(query.expression)) for query in panel.queries))
    asked = metrics_of(ALARMS[alert]["expr"])
    asked |= set().union(*(metrics_of(RECORDED[name]) for name in asked & RECORDED.keys()))
    assert shown & asked or alert == "ReplicaGone", "the panel shows something else"
    assert notes["runbook"] == f"docs/operations.md#{alert.lower()}"
    assert f"### {alert}\n" in HANDBOOK.read_text(encoding="utf-8")
