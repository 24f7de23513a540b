"""Exit statuses of the command line."""

from __future__ import annotations

from enum import IntEnum

from core.error_base import Kind, SttError


class ExitStatus(IntEnum):
    """Exit statuses, for scripts."""

    OK = 0
    FAILED = 1
    """Something failed, or some of many."""
    USAGE = 2
    UNREACHABLE = 3
    NOT_ALLOWED = 4
    INTERRUPTED = 130


def status_of(error: SttError) -> ExitStatus:
    """Return the status of a command that ends with this error."""
    if error.http_status in (401, 403):
        return ExitStatus.NOT_ALLOWED
    if error.kind is Kind.INFRASTRUCTURE:
        return ExitStatus.UNREACHABLE
    return ExitStatus.USAGE if error.kind is Kind.USAGE else ExitStatus.FAILED
