"""Exit statuses of the command line."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from core.error_base import Kind, SttError

if TYPE_CHECKING:
    from internal.client.errors import ClientError


class ExitStatus(IntEnum):
    """Exit statuses, for scripts."""

    OK = 0
    FAILED = 1
    """Something failed, or some of many."""
    USAGE = 2
    UNREACHABLE = 3
    NOT_ALLOWED = 4
    INTERRUPTED = 130


def status_of(error: SttError | ClientError) -> ExitStatus:
    """Return the status of a command that ends with this error."""
    if not isinstance(error, SttError):
        return _status_of_response(error)
    if error.http_status in (401, 403):
        return ExitStatus.NOT_ALLOWED
    if error.kind is Kind.INFRASTRUCTURE:
        return ExitStatus.UNREACHABLE
    return ExitStatus.USAGE if error.kind is Kind.USAGE else ExitStatus.FAILED


def _status_of_response(error: ClientError) -> ExitStatus:
    status = getattr(error, "status", 503 if error.code == "SERVICE_UNREACHABLE" else 400)
    if status in (401, 403):
        return ExitStatus.NOT_ALLOWED
    return ExitStatus.UNREACHABLE if status in (502, 503, 504) else ExitStatus.FAILED
