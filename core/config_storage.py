"""Settings of the storage."""

from __future__ import annotations

import re

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings

from core.config_types import StorageKind

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


class StorageSettings(BaseSettings):
    """The settings of the object storage, which `Settings` inherits."""

    storage: StorageKind = StorageKind.LOCAL
    minio_endpoint: str = "localhost:9000"
    minio_public_endpoint: str = ""
    minio_access_key: str = Field("", repr=False)
    minio_secret_key: str = Field("", repr=False)
    minio_bucket: str = "stt-audio-files"
    minio_use_ssl: bool = False
    minio_public_use_ssl: bool | None = None

    @field_validator("minio_bucket")
    @classmethod
    def _bucket_name(cls, value: str) -> str:
        if not _BUCKET.fullmatch(value):
            raise ValueError("must be an S3 bucket name: 3 to 63 lowercase letters, digits, dots and hyphens")
        return value

    @field_validator("minio_endpoint", "minio_public_endpoint")
    @classmethod
    def _without_scheme(cls, value: str) -> str:
        if "/" in value:
            raise ValueError("must be host:port without scheme and path; MINIO_USE_SSL=true selects https")
        return value
