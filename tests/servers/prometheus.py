"""Prometheus from this machine's package, with the configuration of deploy/prometheus/ and other addresses."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.servers.base import Server, Unavailable, free_port, get

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "prometheus"
SCRAPE_INTERVAL = "1s"


class Prometheus(Server):
    name = "prometheus"

    def __init__(self, targets: Mapping[str, str]) -> None:
        """targets: host:port by process. Raises Unavailable."""
        if shutil.which("prometheus") is None:
            raise Unavailable("Prometheus is missing: deploy/install-test-tools.sh installs it")
        super().__init__()
        self.address = f"127.0.0.1:{free_port()}"
        config = yaml.safe_load((FOLDER / "prometheus.yaml").read_text())
        config["global"] = {"scrape_interval": SCRAPE_INTERVAL, "evaluation_interval": SCRAPE_INTERVAL}
        config["rule_files"] = [str(FOLDER / name) for name in config["rule_files"]]
        names = [job["job_name"] for job in config["scrape_configs"]]
        config["scrape_configs"] = [
            {"job_name": name, "static_configs": [{"targets": [targets[name.rpartition("-")[2]]]}]} for name in names
        ]
        (self.folder / "prometheus.yaml").write_text(yaml.safe_dump(config))

    def command(self) -> list[str]:
        return [
            "prometheus",
            f"--config.file={self.folder / 'prometheus.yaml'}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address={self.address}",
        ]

    def is_ready(self) -> bool:
        return get(f"http://{self.address}/-/ready").status_code == 200

    def query(self, expression: str) -> list[float]:
        """Return the values of an instant query that are numbers."""
        answer = httpx.get(f"http://{self.address}/api/v1/query", params={"query": expression}, timeout=30)
        body: dict[str, Any] = answer.json()
        assert body["status"] == "success", body
        values = [float(series["value"][1]) for series in body["data"]["result"]]
        return [value for value in values if not math.isnan(value)]

    def rules(self) -> list[dict[str, Any]]:
        """Return the state of every rule."""
        groups = httpx.get(f"http://{self.address}/api/v1/rules", timeout=30).json()["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]
