"""Settings of the model hub."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode

HUGGING_FACE = "https://huggingface.co"


class ModelSettings(BaseSettings):
    """The settings of installing models, which `Settings` inherits."""

    models: Annotated[tuple[str, ...], NoDecode] = ()
    hf_endpoint: str = HUGGING_FACE
    hf_token: str = Field("", repr=False)
    models_mirror: str = ""

    @field_validator("models", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))
        return value

    @field_validator("hf_endpoint", "models_mirror")
    @classmethod
    def _hub_address(cls, value: str) -> str:
        parts = urlsplit(value)
        valid = parts.scheme in ("http", "https") and parts.hostname and not parts.query and not parts.fragment
        if value and (not valid or parts.username is not None):
            raise ValueError(
                "must be an http:// or https:// URL without password, query and fragment, such as https://huggingface.co"
            )
        return value.rstrip("/")

    @field_validator("hf_token")
    @classmethod
    def _header_value(cls, value: str) -> str:
        if value and not (value.isascii() and value.isprintable() and " " not in value):
            raise ValueError("must consist of printable ASCII characters without spaces")
        return value
