"""Settings of metrics, health files and traces."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings


class MonitoringSettings(BaseSettings):
    """The settings of monitoring, which `Settings` inherits."""

    metrics_host: str = "127.0.0.1"
    consumer_metrics_port: int = Field(9801, ge=0, le=65535)
    scheduler_metrics_port: int = Field(9802, ge=0, le=65535)
    ready_file: Path | None = None
    otel_exporter_otlp_endpoint: str = ""
    otel_exporter_otlp_headers: str = Field("", repr=False)

    @field_validator("otel_exporter_otlp_endpoint")
    @classmethod
    def _collector(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            valid = False
        if value and (not valid or parts.query or parts.fragment or parts.username is not None):
            raise ValueError(
                "must be an http:// or https:// URL without password, query and fragment, such as http://127.0.0.1:4318"
            )
        return value.rstrip("/")
