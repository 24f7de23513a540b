"""A typed client of the HTTP API. `stt` uses it; `docs/client.md` documents it for scripts."""

from internal.client.async_client import AsyncClient
from internal.client.errors import (
    ClientError,
    ConflictError,
    InvalidResponseError,
    LimitError,
    NotAllowedError,
    NotFoundError,
    RecordingChangedError,
    RefusedError,
    ServiceError,
    UnavailableError,
    UnreachableError,
)
from internal.client.retries import RetryPolicy
from internal.client.sync_client import Client
from internal.client.values import Event, Job, Options, Submission

__all__ = [
    "AsyncClient",
    "Client",
    "ClientError",
    "ConflictError",
    "Event",
    "InvalidResponseError",
    "Job",
    "LimitError",
    "NotAllowedError",
    "NotFoundError",
    "Options",
    "RecordingChangedError",
    "RefusedError",
    "RetryPolicy",
    "ServiceError",
    "Submission",
    "UnavailableError",
    "UnreachableError",
]
