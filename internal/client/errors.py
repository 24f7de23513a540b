"""Errors of the client, each with a stable code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.texts import ENGLISH, translate


class ClientError(Exception):
    """Base of all errors of the client. code: stable, for programs; message: for people, in the client's language."""

    code = "CLIENT_ERROR"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        self.code = code or self.code
        self.message = message
        super().__init__(f"{self.code}: {message}")


class UnreachableError(ClientError):
    """No response: the service cannot be reached, or the connection broke repeatedly."""

    code = "SERVICE_UNREACHABLE"


class InvalidResponseError(ClientError):
    """A response that is not the service's, such as a page of a proxy."""

    code = "INVALID_RESPONSE"


class RecordingChangedError(ClientError):
    """The file became shorter while it was being sent."""

    code = "RECORDING_CHANGED"


class ServiceError(ClientError):
    """An error response. status: HTTP; retry_after: seconds, or None; body: its JSON object."""

    def __init__(
        self, message: str, *, code: str, status: int, retry_after: float | None = None, body: Mapping[str, Any]
    ) -> None:
        super().__init__(message, code=code)
        self.status = status
        self.retry_after = retry_after
        self.body = body


class NotAllowedError(ServiceError):
    """401 or 403: the key is missing or not valid, or the service serves its own machine only."""


class NotFoundError(ServiceError):
    """404: the job does not exist, or belongs to another owner."""


class ConflictError(ServiceError):
    """409: the state of the job does not allow this."""


class LimitError(ServiceError):
    """429: a rate limit or quota, after the retries that the policy allows."""


class UnavailableError(ServiceError):
    """5xx: the service or one of its dependencies is down, after the retries that the policy allows."""


class RefusedError(ServiceError):
    """Any other 4xx: the recording or a field is not valid. Sending it again has the same result."""


_BY_STATUS: Mapping[int, type[ServiceError]] = {
    401: NotAllowedError,
    403: NotAllowedError,
    404: NotFoundError,
    409: ConflictError,
    429: LimitError,
}


def service_error(status: int, body: Any, retry_after: float | None, language: str = ENGLISH) -> ClientError:
    """Return the error of a response; InvalidResponseError if it is not `application/problem+json`."""
    if status < 400 or not isinstance(body, Mapping) or not isinstance(body.get("code"), str):
        text = "The response (status {status}) is not that of an async-stt service. Check the address."
        return InvalidResponseError(translate(text, language, status=status))
    kind = UnavailableError if status >= 500 else _BY_STATUS.get(status, RefusedError)
    message = str(body.get("detail") or body["code"])
    return kind(message, code=body["code"], status=status, retry_after=retry_after, body=body)
