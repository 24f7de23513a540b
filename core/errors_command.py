"""Errors of the command line, in the same form as those of the service."""

from __future__ import annotations

from core.error_base import Kind, SttError


class UsageError(SttError):
    """A command that cannot be run as it was given. Nothing was done."""

    kind, http_status = Kind.USAGE, 400
    code = "USAGE"
    en = "The command cannot be run like this. `--help` shows how."
    vi = "Không chạy được lệnh như vậy. `--help` cho biết cách dùng."


class QueueInsideServiceError(UsageError):
    code = "QUEUE_INSIDE_SERVICE"
    en = "With BROKER=memory the queue is inside the service. Use `stt jobs retry` instead."
    vi = "Với BROKER=memory, hàng đợi nằm trong dịch vụ. Hãy dùng `stt jobs retry`."


class DeadLetterNotFoundError(SttError):
    code, http_status = "DEAD_LETTER_NOT_FOUND", 404
    en = "The job has no dead letter. `stt dlq list` shows all."
    vi = "Công việc không có thư chết nào. `stt dlq list` liệt kê tất cả."


class KeyNotFoundError(SttError):
    code, http_status = "KEY_NOT_FOUND", 404
    en = "There is no valid key with this id. `stt keys list` shows all keys."
    vi = "Không có khóa hợp lệ nào có mã này. `stt keys list` liệt kê tất cả các khóa."


class SchemaNeededError(SttError):
    """The database has no schema yet, or an older one."""

    kind, http_status = Kind.INFRASTRUCTURE, 503
    code = "SCHEMA_NEEDED"
    en = "The database has no tables, or those of another version. `stt migrate` creates or upgrades them."
    vi = "Cơ sở dữ liệu chưa có bảng, hoặc có bảng của phiên bản khác. `stt migrate` tạo hoặc nâng cấp chúng."
