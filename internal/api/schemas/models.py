"""Bodies of the routes of models."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class ModelFailure(BaseModel):
    """The last error of an installation."""

    code: str
    message: str


class ModelBody(BaseModel):
    """A model that is installed, being installed, or can be installed."""

    model_config = ConfigDict(from_attributes=True)

    name: str
    state: str = Field(description="installed, queued, pulling, retrying, failed, available, or import")
    done: int = Field(description="Bytes on the worker that is nearest to having the model.")
    total: int | None = Field(description="Bytes of the file, if known.")
    rate: float = Field(description="Bytes per second of a running download.")
    remaining_seconds: float | None
    memory_mb: int | None = Field(description="Estimated memory of one engine process.")
    languages: str | None
    speed: str | None
    licence: str | None
    source: str | None = Field(description="OWNER/REPO:FILE on the hub.")
    workers: int = Field(description="Number of live workers that have the model.")
    error: ModelFailure | None = None


class ModelsBody(BaseModel):
    models: list[ModelBody]


class ModelRequest(BaseModel):
    """A model to install. model: a name of the list, or OWNER/REPO[@REVISION]:FILE."""

    model: str = Field(min_length=1, max_length=1000)
    name: str | None = Field(None, max_length=100, description="Name here of a file that is not in the list.")
