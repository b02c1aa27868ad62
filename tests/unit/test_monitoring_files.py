"""The dashboard, the alert rules and the page of the docs name exactly the metrics that are exported."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from include.monitoring.metrics import KINDS
from include.project import ROOT

DASHBOARD = ROOT / "docs/monitoring/grafana-dashboard.json"
ALERTS = ROOT / "docs/monitoring/prometheus-alerts.yaml"
PAGE = ROOT / "docs/monitoring.md"


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return found


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def expressions() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel["targets"]] + [rule["expr"] for rule in rules()]


def names(text: str) -> set[str]:
    return set(re.findall(r"\bmillrace_\w+", text))


@pytest.mark.parametrize("expression", expressions())
def test_every_expression_names_exported_metrics_and_their_labels(expression: str) -> None:
    assert names(expression)
    assert names(expression) <= KINDS.keys()
    for name, matchers in re.findall(r"(millrace_\w+)\{(.*?)\}", expression):
        assert set(re.findall(r"(\w+)=~?\"", matchers)) <= set(KINDS[name].labels)


def test_legends_and_messages_use_labels_that_the_metrics_have() -> None:
    texts = [
        (target["expr"], re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        for panel in panels()
        for target in panel["targets"]
    ] + [(rule["expr"], re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"]))) for rule in rules()]
    assert any(labels for _, labels in texts)
    for expression, labels in texts:
        assert set(labels) <= {label for name in names(expression) for label in KINDS[name].labels}


def test_every_metric_is_on_the_dashboard() -> None:
    assert {name for panel in panels() for target in panel["targets"] for name in names(target["expr"])} == set(KINDS)


def test_panels_and_rules_are_complete() -> None:
    assert len({panel["id"] for panel in panels()}) == len(panels())
    assert len({rule["alert"] for rule in rules()}) == len(rules())
    assert all(rule["labels"]["severity"] and rule["annotations"]["summary"] for rule in rules())
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels()]
    assert len(set(places)) == len(places)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels())


def test_the_docs_describe_every_metric_with_its_labels() -> None:
    described = {
        name: set(re.findall(r"`(\w+)`", labels))
        for name, labels in re.findall(r"^\| `(millrace_\w+)` \| (.*?) \|", PAGE.read_text(), re.MULTILINE)
    }
    assert described == {name: set(kind.labels) for name, kind in KINDS.items()}


@pytest.mark.parametrize("name", KINDS)
def test_names_follow_the_conventions_of_prometheus(name: str) -> None:
    kind = KINDS[name]
    assert (kind.type == "counter") == name.endswith("_total")
    assert name.removesuffix("_total").endswith(f"_{kind.unit}" if kind.unit else "")
    assert kind.help.endswith(".")
