"""The files of Grafana and Alertmanager. tests/containers runs Prometheus and Alertmanager."""

from __future__ import annotations

import json
from typing import Any

import yaml

from tests.deploy.tools import ROOT

DEPLOY = ROOT / "deploy"
PROVISIONING = DEPLOY / "grafana" / "provisioning"


def read(*path: str) -> Any:
    return yaml.safe_load(DEPLOY.joinpath(*path).read_text())


def services() -> Any:
    return read("compose.yaml")["services"]


def test_grafana_finds_prometheus_under_its_name() -> None:
    (source,) = read("grafana", "provisioning", "datasources", "prometheus.yaml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert "127.0.0.1:9090:9090" in services()["prometheus"]["ports"]
    assert source["isDefault"] is True, "the dashboards use the default"


def test_grafana_finds_the_dashboards_where_they_are_mounted() -> None:
    (provider,) = read("grafana", "provisioning", "dashboards", "async-stt.yaml")["providers"]
    mounts = dict(volume.split(":")[:2] for volume in services()["grafana"]["volumes"])
    assert mounts["./grafana"] == provider["options"]["path"]
    assert mounts["./grafana/provisioning"] == "/etc/grafana/provisioning"
    dashboards = [json.loads(path.read_text()) for path in (DEPLOY / "grafana").glob("*.json")]
    assert len(dashboards) >= 4
    assert len({dashboard["uid"] for dashboard in dashboards}) == len(dashboards)


def test_prometheus_reports_to_alertmanager_under_its_name() -> None:
    managers = read("prometheus", "prometheus.yaml")["alerting"]["alertmanagers"]
    assert managers == [{"static_configs": [{"targets": ["alertmanager:9093"]}]}]
    assert "127.0.0.1:9093:9093" in services()["alertmanager"]["ports"]


def test_alertmanager_names_alerts_that_exist() -> None:
    groups = read("prometheus", "alerts.yaml")["groups"]
    alerts = {rule["alert"] for group in groups for rule in group["rules"]}
    for rule in read("prometheus", "alertmanager.yaml")["inhibit_rules"]:
        for matcher in (*rule["source_matchers"], *rule["target_matchers"]):
            names = matcher.partition("alertname")[2].lstrip("=~ ").strip('"').split("|")
            assert set(names) <= alerts
