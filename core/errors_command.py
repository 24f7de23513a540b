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


class InvalidServerError(UsageError):
    code = "INVALID_SERVER"
    en = "The address of the server is not valid. Use http://HOST:PORT or https://HOST."
    vi = "Địa chỉ máy chủ không hợp lệ. Hãy dùng http://HOST:PORT hoặc https://HOST."


class ServiceStartError(SttError):
    kind, http_status = Kind.INFRASTRUCTURE, 503
    code = "SERVICE_NOT_STARTED"
    en = "The service could not be started. `stt doctor` looks for the reason."
    vi = "Không khởi động được dịch vụ. `stt doctor` sẽ tìm nguyên nhân."


class ServiceElsewhereError(SttError):
    kind, http_status = Kind.INFRASTRUCTURE, 503
    code = "SERVICE_ELSEWHERE"
    en = "A service of another container or machine uses DATA_DIR. Use its address with --server."
    vi = "Một dịch vụ ở container hoặc máy khác đang dùng DATA_DIR. Hãy dùng địa chỉ đó với --server."


class RecordingNotFoundError(UsageError):
    code = "RECORDING_NOT_FOUND"
    en = "There is no such file or folder, and the pattern matches nothing."
    vi = "Không có tệp hoặc thư mục nào như vậy, và mẫu tên không khớp với tệp nào."


class OutputExistsError(SttError):
    code, http_status = "OUTPUT_EXISTS", 409
    en = "A file that stt did not write has the transcript's name. Use --overwrite or --output_dir."
    vi = "Một tệp không do stt ghi đã có tên của bản ghi lời. Hãy dùng --overwrite hoặc --output_dir."


class OutputNotWritableError(SttError):
    code, http_status = "OUTPUT_NOT_WRITABLE", 500
    en = "The transcript cannot be written there. Use --output_dir."
    vi = "Không ghi được bản ghi lời vào đó. Hãy dùng --output_dir."


class RecordingUnreadableError(SttError):
    code, http_status = "RECORDING_UNREADABLE", 500
    en = "The recording cannot be read."
    vi = "Không đọc được bản ghi âm."


class TaskNotSupportedError(UsageError):
    code = "TASK_NOT_SUPPORTED"
    en = "Only --task transcribe is supported; this service does not translate."
    vi = "Chỉ hỗ trợ --task transcribe; dịch vụ này không dịch."


class NoSamplesError(UsageError):
    code = "NO_SAMPLES"
    en = "The sample recordings are part of the repository, not of the installed package. Try `stt transcribe FILE`."
    vi = "Các bản ghi mẫu nằm trong kho mã, không có trong gói đã cài. Hãy thử `stt transcribe FILE`."
