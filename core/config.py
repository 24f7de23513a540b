"""Settings, read from the environment, `.env`, and the YAML file that STT_CONFIG names. Earlier sources win.

`.env.example` documents the unit, default and meaning of each setting; a test compares the two.
"""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import (
    AliasChoices,
    AliasGenerator,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from core.bundled import DEMO_MODELS
from core.config_models import ModelSettings
from core.config_monitoring import MonitoringSettings
from core.config_storage import StorageSettings
from core.config_types import OLD_NAMES as OLD_NAMES
from core.config_types import BrokerKind as BrokerKind
from core.config_types import LogFormat as LogFormat
from core.config_types import QueueType as QueueType
from core.config_types import StorageKind as StorageKind
from core.credentials import MIN_SECRET, is_well_known, passwords
from core.domain.job_options import MergeMethod
from core.errors import SettingsError
from core.machine import usable_cores

MAX_CHUNK_DEADLINE = 900.0
"""Upper bound of CHUNK_TIMEOUT_SECONDS."""
_HOST_NAME = re.compile(r"[a-z0-9._-]{1,253}|\[[0-9a-f:.]{2,45}\]")
API_KEY = re.compile(r"stt_([0-9a-f]{8,32})_([A-Za-z0-9_-]{32,128})")


def _aliases(field: str) -> AliasChoices:
    return AliasChoices(field, *([OLD_NAMES[field]] if field in OLD_NAMES else []))


class Settings(ModelSettings, MonitoringSettings, StorageSettings):
    """All settings of all processes."""

    model_config = SettingsConfigDict(
        env_file=".env",
        extra="forbid",
        validate_default=True,
        env_ignore_empty=True,
        allow_inf_nan=False,
        alias_generator=AliasGenerator(validation_alias=_aliases),
    )

    # API
    api_host: str = "127.0.0.1"
    api_port: int = Field(8000, ge=0, le=65535)
    api_workers: int = Field(4, ge=1, le=64)
    public_url: str = ""
    trusted_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    forwarded_allow_ips: Annotated[tuple[str, ...], NoDecode] = ()
    max_connections: int = Field(0, ge=0)

    # access, limits and outgoing requests
    allow_anonymous: bool = False
    api_key: str = Field("", repr=False)
    secret_key: str = Field("", repr=False)
    allow_default_credentials: bool = False
    cors_origins: Annotated[tuple[str, ...], NoDecode] = ()
    rate_limit_per_minute: int = Field(1200, ge=0)
    max_queued_jobs: int = Field(10_000, ge=0)
    max_queued_seconds: float = Field(3_600_000, ge=0)
    max_bytes_per_day: int = Field(1_099_511_627_776, ge=0)
    max_open_links: int = Field(100, ge=0)
    max_event_streams: int = Field(500, ge=0)
    max_event_streams_per_owner: int = Field(100, ge=0)
    media_url_allowed_hosts: Annotated[tuple[str, ...] | None, NoDecode] = None
    webhook_allowed_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    download_timeout_seconds: float = Field(900, gt=0, le=1000)
    download_min_rate: int = Field(16, ge=0)
    fetch_per_owner: int = Field(4, ge=1)
    max_prepared_seconds: float = Field(86_400, ge=0)
    upload_link_ttl_seconds: int = Field(900, ge=60, le=86_400)

    # dependencies
    data_dir: Path = Path("~/.local/share/async-stt")
    temp_dir: Path = Path("/tmp/stt_processing")
    models_dir: Path = Path()
    database_url: str = Field("", repr=False)
    database_connections: int = Field(6, ge=2, le=100)
    database_prepared_statements: bool = True
    broker: BrokerKind = BrokerKind.MEMORY
    rabbitmq_url: str = Field("amqp://localhost/", repr=False)
    queue_type: QueueType = QueueType.CLASSIC

    # submits
    default_model: str | None = None
    default_language: str = "vi"
    languages: Annotated[tuple[str, ...], NoDecode] = ("en", "vi")
    max_upload_size_mb: int = Field(500, ge=1)
    max_audio_duration_seconds: float = Field(21_600, gt=0)
    max_concurrent_uploads: int = Field(8, ge=1, le=256)
    upload_min_rate: float = Field(1024, ge=0)

    # chunks
    chunk_strategy: str = "silence_based"
    chunk_duration_seconds: float = Field(29, ge=10, le=60)
    min_chunk_duration_seconds: float = Field(5, ge=0)
    max_chunks_per_job: int = Field(2000, ge=1)
    chunk_overlap_seconds: float | None = Field(None, ge=0)
    silence_threshold: float = Field(-40, ge=-90, lt=0)
    min_silence_duration_seconds: float = Field(1.0, ge=0.3, le=3)
    max_pause_seconds: float = Field(0.6, ge=0, le=3)
    merge_method: MergeMethod = MergeMethod.SMART

    # engine
    engine: str = "auto"
    worker_concurrency: int = Field(default_factory=usable_cores, ge=1)
    batch_size: int | None = Field(None, ge=1, le=64)
    engine_threads: int | None = Field(None, ge=1)
    memory_check: bool = True
    prepare_concurrency: int = Field(2, ge=1)
    fetch_concurrency: int = Field(16, ge=1, le=256)

    # retries and timeouts
    max_retries: int = Field(3, ge=0, le=10)
    retry_delay_seconds: float = Field(2, gt=0)
    retry_backoff_multiplier: float = Field(3, ge=1)
    retry_max_delay_seconds: float = Field(300, gt=0)
    retry_jitter: bool = True
    chunk_timeout_seconds: float = Field(300, gt=0, le=MAX_CHUNK_DEADLINE)
    job_timeout_seconds: float = Field(3600, gt=0)
    lease_seconds: float = Field(30, ge=1, le=3600)
    model_wait_seconds: float = Field(3600, gt=0)
    dead_letter_ttl_seconds: int = Field(604_800, ge=1)
    failure_ttl_seconds: int = Field(604_800, ge=0)
    result_ttl_seconds: int = Field(0, ge=0)
    metric_ttl_seconds: int = Field(2_592_000, ge=0)
    job_ttl_seconds: int = Field(3600, ge=0)
    starvation_seconds: float = Field(300, gt=0)

    # logs
    log_level: str = "INFO"
    log_format: LogFormat = LogFormat.AUTO
    log_file: Path | None = None
    debug: bool = False

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        sources = (init_settings, env_settings, dotenv_settings)
        config = os.environ.get("STT_CONFIG")
        if not config:
            return sources
        from core.config_file import ConfigFile, existing_file  # loads the YAML parser

        return (*sources, ConfigFile(settings_cls, existing_file(config)))

    @field_validator(
        *("languages", "cors_origins", "media_url_allowed_hosts", "webhook_allowed_hosts"),
        *("trusted_hosts", "forwarded_allow_ips"),
        mode="before",
    )
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip().lower() for part in value.split(",") if part.strip())
        return value

    @field_validator("media_url_allowed_hosts", "webhook_allowed_hosts")
    @classmethod
    def _with_port(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for host in value or ():
            if not re.fullmatch(r".+:\d{1,5}", host):
                raise ValueError(f"{host!r} is not host:port")
        return value

    @field_validator("api_key")
    @classmethod
    def _key_form(cls, value: str) -> str:
        if value and not API_KEY.fullmatch(value):
            raise ValueError("must be stt_ID_SECRET, with 8 to 32 of 0-9a-f as ID and at least 32 characters as SECRET")
        return value

    @field_validator("secret_key")
    @classmethod
    def _long_enough(cls, value: str) -> str:
        if value and len(value) < MIN_SECRET:
            raise ValueError(f"must have at least {MIN_SECRET} characters; generate one with: openssl rand -hex 32")
        return value

    @field_validator("public_url")
    @classmethod
    def _base_address(cls, value: str) -> str:
        parts = urlsplit(value)
        if value and (parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment):
            raise ValueError(
                "must be an http:// or https:// URL without query and fragment, such as https://stt.example.org"
            )
        return value.rstrip("/")

    @field_validator("trusted_hosts")
    @classmethod
    def _host_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for host in value:
            if not _HOST_NAME.fullmatch(host):
                raise ValueError(f"{host!r} is not a host name; omit scheme and port")
        return value

    @field_validator("forwarded_allow_ips")
    @classmethod
    def _addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for address in value:
            try:
                ipaddress.ip_network(address)
            except ValueError:
                raise ValueError(f"{address!r} is neither an IP address nor a network such as 10.0.0.0/8") from None
        return value

    @field_validator("default_language")
    @classmethod
    def _lower(cls, value: str) -> str:
        return value.strip().lower()

    @field_validator("rabbitmq_url")
    @classmethod
    def _broker_address(cls, value: str) -> str:
        if not value.startswith(("amqp://", "amqps://")):
            raise ValueError("must start with amqp:// or amqps://")
        return value

    @field_validator("log_level")
    @classmethod
    def _known_level(cls, value: str) -> str:
        if value.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"):
            raise ValueError("must be DEBUG, INFO, WARNING, ERROR or CRITICAL")
        return value.upper()

    @field_validator("data_dir", "temp_dir", "log_file", "ready_file")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return value.expanduser().absolute() if value else None

    @field_validator("log_file", "ready_file")
    @classmethod
    def _no_folder(cls, value: Path | None) -> Path | None:
        if value and value.is_dir():
            raise ValueError("is a folder; must be a file")
        return value

    @field_validator("models_dir")
    @classmethod
    def _under_data_dir(cls, value: Path, info: ValidationInfo) -> Path:
        if value == Path() and "data_dir" in info.data:
            return Path(info.data["data_dir"]) / "models"
        return value.expanduser().absolute()

    @field_validator("database_url")
    @classmethod
    def _async_driver(cls, value: str, info: ValidationInfo) -> str:
        if not value:
            return f"sqlite+aiosqlite:///{info.data['data_dir']}/stt.db" if "data_dir" in info.data else value
        scheme, _, rest = value.partition("://")
        match scheme:
            case "postgresql" | "postgres" | "postgresql+asyncpg":
                return f"postgresql+asyncpg://{rest}"
            case "sqlite" | "sqlite+aiosqlite":
                if not rest.strip("/") or ":memory:" in rest:
                    raise ValueError("must name a file: sqlite:////absolute/path.db")
                return f"sqlite+aiosqlite://{rest}"
            case _:
                raise ValueError("must start with postgresql:// or sqlite://")

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        minio = self.storage is StorageKind.MINIO
        longest, overlap = self.chunk_duration_seconds, self.chunk_overlap_seconds or 0
        for valid, name, rule in (
            (self.languages, "LANGUAGES", "must have at least one language"),
            (self.default_language in (*self.languages, "auto"), "DEFAULT_LANGUAGE", "must be auto or in LANGUAGES"),
            (
                self.min_chunk_duration_seconds < longest,
                "MIN_CHUNK_DURATION_SECONDS",
                "must be less than CHUNK_DURATION_SECONDS",
            ),
            (overlap < longest / 2, "CHUNK_OVERLAP_SECONDS", "must be less than half of CHUNK_DURATION_SECONDS"),
            (self.minio_access_key or not minio, "MINIO_ACCESS_KEY", "is required with STORAGE=minio"),
            (self.minio_secret_key or not minio, "MINIO_SECRET_KEY", "is required with STORAGE=minio"),
        ):
            if not valid:
                raise ValueError(f"{name}: {rule}")
        for name in [] if self.allow_default_credentials else self._default_credentials():
            raise ValueError(
                f"{name}: has a well-known default password; generate another with `openssl rand -hex 24`, "
                "or set ALLOW_DEFAULT_CREDENTIALS=true"
            )
        return self

    def _default_credentials(self) -> list[str]:
        """Return the names of the settings that have a well-known default password."""
        rabbit, database = urlsplit(self.rabbitmq_url), urlsplit(self.database_url)
        checks = {
            # RabbitMQ's client uses guest if no user is given
            "RABBITMQ_URL": self.broker is BrokerKind.RABBITMQ
            and is_well_known(rabbit.username or "guest", rabbit.password or "guest"),
            "MINIO_SECRET_KEY": self.storage is StorageKind.MINIO
            and is_well_known(self.minio_access_key, self.minio_secret_key),
            "DATABASE_URL": any(is_well_known(database.username or "", word) for word in passwords(database)),
        }
        return [name for name, default in checks.items() if default]

    @property
    def loopback(self) -> bool:
        """True if the API listens on a loopback address."""
        return self.api_host in ("localhost", "::1") or self.api_host.startswith("127.")

    @property
    def media_hosts(self) -> tuple[str, ...]:
        """Non-public host:port pairs that recordings may be downloaded from; by default those of the storage."""
        if self.media_url_allowed_hosts is not None:
            return self.media_url_allowed_hosts
        if self.storage is not StorageKind.MINIO:
            return ()
        public_ssl = self.minio_use_ssl if self.minio_public_use_ssl is None else self.minio_public_use_ssl
        endpoints = ((self.minio_endpoint, self.minio_use_ssl), (self.minio_public_endpoint, public_ssl))
        return tuple(host if ":" in host else f"{host}:{443 if ssl else 80}" for host, ssl in endpoints if host)

    @property
    def written_folders(self) -> tuple[Path, ...]:
        """Local folders that a submit writes to: those of the SQLite database and of the local storage."""
        sqlite = self.database_url.startswith("sqlite")
        database = (Path(self.database_url.partition(":///")[2]).parent,) if sqlite else ()
        objects = (self.data_dir,) if self.storage is StorageKind.LOCAL else ()
        return tuple(dict.fromkeys((*objects, *database)))

    @property
    def max_upload_bytes(self) -> int:
        return self.max_upload_size_mb * 1024 * 1024

    @property
    def retry_delays(self) -> tuple[float, ...]:
        """Seconds before each retry; 2, 6, 18 by default."""
        steps = (self.retry_delay_seconds * self.retry_backoff_multiplier**n for n in range(self.max_retries))
        return tuple(min(step, self.retry_max_delay_seconds) for step in steps)

    @property
    def model_dirs(self) -> tuple[Path, ...]:
        """Folders of model files, in the order in which they are searched."""
        return (self.models_dir, *DEMO_MODELS)


def load_settings(**overrides: Any) -> Settings:
    """Read the settings. Raises SettingsError, which names each unknown or invalid setting."""
    try:
        return Settings(**overrides)
    except ValidationError as error:
        lines = []
        for item in error.errors():
            text = item["msg"].removeprefix("Value error, ")
            if item["type"] == "extra_forbidden":
                text = "unknown setting; .env.example lists all settings"
            lines.append(f"{str(item['loc'][0]).upper()}: {text}" if item["loc"] else text)
        raise SettingsError("\n".join(lines)) from None
