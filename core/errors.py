"""All named errors of the service.

`kind` selects what a consumer does, `http_status` is the status of the response, `en` and `vi` are the messages.
"""

from __future__ import annotations

from typing import Any

from core.error_base import Kind as Kind
from core.error_base import SttError as SttError
from core.errors_model_files import ModelDamagedError as ModelDamagedError
from core.errors_model_files import ModelExistsError as ModelExistsError
from core.errors_model_files import ModelFileError as ModelFileError
from core.errors_model_files import ModelLockedError as ModelLockedError
from core.errors_model_files import ModelUnsupportedError as ModelUnsupportedError
from core.errors_model_files import ModelUnusableError as ModelUnusableError


class AlreadyExists(Exception):
    """A row with the same unique key exists."""


class InternalError(SttError):
    """An unexpected exception. It is retried; its traceback is only in the log."""

    kind = Kind.WORK


# -- permanent: the job fails -----------------------------------------------------------------------------------------
class InvalidAudioFormatError(SttError):
    code, http_status = "INVALID_AUDIO", 422
    en = "The file contains no readable audio. Use .mp3, .wav or .m4a."
    vi = "Tệp không chứa âm thanh đọc được. Hãy dùng .mp3, .wav hoặc .m4a."


class CorruptedFileError(SttError):
    code, http_status = "CORRUPTED_FILE", 422
    en = "The file is damaged or incomplete. Export or upload it again."
    vi = "Tệp bị hỏng hoặc không đầy đủ. Hãy xuất hoặc tải lại tệp."


class UnsupportedLanguageError(SttError):
    code, http_status = "UNSUPPORTED_LANGUAGE", 422
    en = "The language is not supported. Use English (en), Vietnamese (vi) or auto."
    vi = "Ngôn ngữ không được hỗ trợ. Hãy dùng tiếng Anh (en), tiếng Việt (vi) hoặc auto."
    field = "language"


class FileTooLargeError(SttError):
    code, http_status = "FILE_TOO_LARGE", 413
    en = "The file is larger than the upload limit. Use a smaller file or a more compressed format."
    vi = "Tệp lớn hơn giới hạn tải lên. Hãy dùng tệp nhỏ hơn hoặc định dạng nén nhiều hơn."


class AudioTooLongError(SttError):
    code, http_status = "AUDIO_TOO_LONG", 422
    en = "The recording exceeds the duration limit. Split it into shorter recordings."
    vi = "Bản ghi âm dài hơn giới hạn. Hãy cắt thành các bản ngắn hơn."


class DecodeTimeoutError(SttError):
    code, http_status = "DECODE_TIMEOUT", 422
    en = "Decoding the recording took too long. Export it again as .mp3, .wav or .m4a."
    vi = "Giải mã bản ghi âm mất quá nhiều thời gian. Hãy xuất lại dưới dạng .mp3, .wav hoặc .m4a."


class SourceNotFoundError(SttError):
    code, http_status = "SOURCE_NOT_FOUND", 422
    en = "The recording was not found. Upload it again."
    vi = "Không tìm thấy bản ghi âm. Hãy tải lên lại."


class ObjectRefusedError(SttError):
    """The storage responds but rejects this object: access denied, archived, or an invalid key."""

    code, http_status = "OBJECT_REFUSED", 502
    en = "The storage denied access to the recording. Upload it again or contact support."
    vi = "Kho lưu trữ từ chối truy cập bản ghi âm. Hãy tải lên lại hoặc liên hệ hỗ trợ."


class ObjectDamagedError(SttError):
    """A stored object is missing, or differs from what was written even after a second read."""

    code, http_status = "OBJECT_DAMAGED", 500
    en = "Some of the job's stored data is missing or damaged. Retry the job, or upload the recording again."
    vi = "Dữ liệu đã lưu của công việc bị mất hoặc bị hỏng. Hãy thử lại công việc, hoặc tải bản ghi âm lên lại."


class ModelMissingError(SttError):
    code, http_status = "MODEL_MISSING", 422
    en = "No worker has this job's model file. Restore the file and retry the job, or submit the job again with a \
model listed by GET /health."
    vi = "Không máy xử lý nào có tệp mô hình của công việc này. Hãy khôi phục tệp rồi thử lại công việc, hoặc gửi lại \
với một mô hình có trong GET /health."


# -- work: retried ----------------------------------------------------------------------------------------------------
class WorkError(SttError):
    kind = Kind.WORK


class ChunkTimeoutError(WorkError):
    code = "TIMEOUT"
    en = "Processing took too long. Try again or contact support."
    vi = "Xử lý mất quá nhiều thời gian. Hãy thử lại hoặc liên hệ hỗ trợ."


class JobTimeoutError(ChunkTimeoutError):
    """A step that worked longer than JOB_TIMEOUT_SECONDS. It is not retried, since a retry would take as long."""

    kind = Kind.PERMANENT


class WhisperCrashError(WorkError):
    code = "WORKER_CRASH"
    en = "The speech engine crashed on this recording. Try again or contact support."
    vi = "Bộ nhận dạng giọng nói gặp sự cố với bản ghi âm này. Hãy thử lại hoặc liên hệ hỗ trợ."


class OutOfMemoryError(WorkError):
    code = "OUT_OF_MEMORY"
    en = "The server ran out of memory while processing this recording. Use a smaller model."
    vi = "Máy chủ hết bộ nhớ khi xử lý bản ghi âm này. Hãy dùng mô hình nhỏ hơn."


class NetworkError(WorkError):
    code = "NETWORK"
    en = "The recording could not be downloaded. Check that its URL is reachable and try again."
    vi = "Không tải được bản ghi âm. Hãy kiểm tra URL có truy cập được không rồi thử lại."


# -- machine: the job waits for a healthy machine ---------------------------------------------------------------------
class MachineError(SttError):
    """A fault of this machine, named by `detail` for the operator."""

    kind, http_status, retry_after = Kind.MACHINE, 503, 5.0
    code = "MACHINE_FAULT"
    en = "The server has a fault that its operator must repair. No data is lost; try again later."
    vi = "Máy chủ đang gặp sự cố cần người vận hành xử lý. Dữ liệu không bị mất; vui lòng thử lại sau."


class DiskFullError(MachineError):
    code = "DISK_FULL"
    en = "The server has no disk space left. Try again later."
    vi = "Máy chủ hết dung lượng đĩa. Vui lòng thử lại sau."


class EngineUnavailableError(MachineError):
    code = "ENGINE_UNAVAILABLE"
    en = "The speech engine could not be started on this server. No data is lost; try again later."
    vi = "Không khởi động được bộ nhận dạng giọng nói. Dữ liệu không bị mất; vui lòng thử lại sau."


# -- infrastructure: retried in place ---------------------------------------------------------------------------------
class InfrastructureError(SttError):
    kind, http_status, retry_after = Kind.INFRASTRUCTURE, 503, 5.0
    code = "UNAVAILABLE"
    en = "A dependency of the service is unavailable. No data is lost; try again in a few seconds."
    vi = "Một thành phần của dịch vụ đang tạm ngừng. Dữ liệu không bị mất; vui lòng thử lại sau vài giây."


class DatabaseUnavailable(InfrastructureError):
    code = "DATABASE_UNAVAILABLE"


class StorageUnavailable(InfrastructureError):
    code = "STORAGE_UNAVAILABLE"


class BrokerUnavailable(InfrastructureError):
    code = "BROKER_UNAVAILABLE"


# -- request: rejected by the API -------------------------------------------------------------------------------------
class RequestError(SttError):
    kind, http_status = Kind.REQUEST, 422
    code = "INVALID_REQUEST"
    en = "The request is not valid."
    vi = "Yêu cầu không hợp lệ."


class UnsupportedFormatError(RequestError):
    code, http_status = "UNSUPPORTED_FORMAT", 400
    en = "The format is not supported. Use .mp3, .wav or .m4a."
    vi = "Định dạng không được hỗ trợ. Hãy dùng .mp3, .wav hoặc .m4a."


class EmptyFileError(RequestError):
    code, http_status = "EMPTY_FILE", 400
    en = "The file is empty. Upload a recording that contains audio."
    vi = "Tệp trống. Hãy tải lên một bản ghi có âm thanh."


class FileMissingError(RequestError):
    code, http_status = "FILE_MISSING", 400
    en = "The request has no file. Send it as the multipart form field `file`."
    vi = "Yêu cầu không có tệp. Hãy gửi tệp trong trường `file`."


class MalformedUploadError(RequestError):
    code, http_status = "MALFORMED_UPLOAD", 400
    en = "The request body is not valid multipart/form-data. Send the file as the form field `file`."
    vi = "Nội dung yêu cầu không phải multipart/form-data hợp lệ. Hãy gửi tệp trong trường `file`."


class UploadTimeoutError(RequestError):
    code, http_status = "UPLOAD_TIMEOUT", 408
    en = "The request body arrived too slowly or stalled for 60 seconds. Send it again over a faster connection."
    vi = "Dữ liệu gửi lên quá chậm hoặc bị ngừng trong 60 giây. Hãy gửi lại qua kết nối nhanh hơn."


class InvalidFieldError(RequestError):
    code = "INVALID_FIELD"
    en = "A field of the request is not valid."
    vi = "Một trường của yêu cầu không hợp lệ."

    def __init__(self, field: str, detail: str | None = None, **values: Any) -> None:
        """field: name of the invalid field, as in `errors[]` of the response."""
        self.field = field
        super().__init__(detail, **values)


class UnknownModelError(RequestError):
    code = "UNKNOWN_MODEL"
    en = "No worker has this model. GET /health lists the available models."
    vi = "Không máy xử lý nào có mô hình này. GET /health liệt kê các mô hình hiện có."
    field = "model"


class JobNotFoundError(RequestError):
    code, http_status = "JOB_NOT_FOUND", 404
    en = "Job not found."
    vi = "Không tìm thấy công việc."


class JobNotCompletedError(RequestError):
    code, http_status = "JOB_NOT_COMPLETED", 400
    en = "Job not completed."
    vi = "Công việc chưa hoàn thành."


class JobCancelledError(RequestError):
    """The error of a cancelled job, for clients that distinguish success and failure only."""

    code, http_status = "CANCELLED", 409
    en = "Job cancelled"
    vi = "Công việc đã bị hủy"


class IdempotencyMismatchError(RequestError):
    code = "IDEMPOTENCY_MISMATCH"
    en = "This Idempotency-Key was already used for a different request. Use a new key for each request."
    vi = "Idempotency-Key này đã được dùng cho một yêu cầu khác. Hãy dùng khóa mới cho mỗi yêu cầu."


class ConflictError(RequestError):
    code, http_status = "CONFLICT", 409
    en = "The job's current state does not allow this."
    vi = "Trạng thái hiện tại của công việc không cho phép thao tác này."


class TooManyUploads(RequestError):
    code, http_status, retry_after = "TOO_MANY_UPLOADS", 503, 5.0
    en = "Too many concurrent uploads. Try again in a few seconds."
    vi = "Có quá nhiều lượt tải lên cùng lúc. Vui lòng thử lại sau vài giây."


class UnauthorizedError(RequestError):
    code, http_status = "UNAUTHORIZED", 401
    en = "A valid API key is required. Send it as `X-API-Key` or `Authorization: Bearer`."
    vi = "Cần khóa API hợp lệ. Hãy gửi trong `X-API-Key` hoặc `Authorization: Bearer`."


class LocalOnlyError(RequestError):
    code, http_status = "LOCAL_ONLY", 403
    en = (
        "Without API keys this service accepts requests from this machine only. "
        "Create a key with `stt keys create`, or set API_KEY, and send it as `X-API-Key`."
    )
    vi = (
        "Khi chưa có khóa API, dịch vụ chỉ nhận yêu cầu từ chính máy này. "
        "Hãy tạo khóa bằng `stt keys create` hoặc đặt API_KEY, rồi gửi khóa trong `X-API-Key`."
    )


class CrossSiteError(RequestError):
    code, http_status = "CROSS_SITE", 403
    en = (
        "The request was sent by a web page of another site. Add its origin to CORS_ORIGINS, "
        "or create a key with `stt keys create` or API_KEY and send it as `X-API-Key`."
    )
    vi = (
        "Yêu cầu này do một trang web khác gửi. Hãy thêm nguồn của trang vào CORS_ORIGINS, "
        "hoặc tạo khóa bằng `stt keys create` hay API_KEY và gửi trong `X-API-Key`."
    )


class UntrustedHostError(RequestError):
    code, http_status = "HOST_NOT_TRUSTED", 403
    en = "The request's `Host` is not trusted. Use the service's own host name, or add this one to TRUSTED_HOSTS."
    vi = (
        "`Host` của yêu cầu không được tin cậy. "
        "Hãy dùng đúng tên máy chủ của dịch vụ, hoặc thêm tên này vào TRUSTED_HOSTS."
    )


class RateLimitedError(RequestError):
    code, http_status = "RATE_LIMITED", 429
    en = "Too many requests. Wait for the number of seconds in `Retry-After`."
    vi = "Quá nhiều yêu cầu. Hãy chờ số giây trong `Retry-After`."


class QuotaExceededError(RequestError):
    code, http_status = "QUOTA_EXCEEDED", 429
    en = "A quota of this API key is exhausted. Wait for jobs to finish, or ask the operator for a higher limit."
    vi = "Đã hết hạn mức của khóa API này. Hãy chờ các công việc hoàn thành, hoặc xin người vận hành hạn mức cao hơn."


class NothingUploadedError(RequestError):
    code, http_status = "NOTHING_UPLOADED", 409
    en = "Nothing has been uploaded yet. Send the recording to `upload_url` first."
    vi = "Chưa có tệp nào được tải lên. Hãy gửi bản ghi âm tới `upload_url` trước."


class LinkUsedError(RequestError):
    code, http_status = "LINK_USED", 409
    en = "The upload link was already used or has expired. Request a new one."
    vi = "Liên kết tải lên đã được dùng hoặc đã hết hạn. Hãy xin liên kết mới."


class TooManyStreamsError(RequestError):
    code, http_status, retry_after = "TOO_MANY_STREAMS", 429, 30.0
    en = "This API key has too many event streams and waiting requests. Close some of them, or poll instead."
    vi = "Khóa API này có quá nhiều luồng sự kiện và yêu cầu đang chờ. Hãy đóng bớt, hoặc hỏi trạng thái định kỳ."


class StreamsExhaustedError(RequestError):
    code, http_status, retry_after = "STREAMS_EXHAUSTED", 503, 30.0
    en = "The server has too many event streams and waiting requests. Poll instead, or try again later."
    vi = "Máy chủ có quá nhiều luồng sự kiện và yêu cầu đang chờ. Hãy hỏi trạng thái định kỳ hoặc thử lại sau."


class BodyTooLargeError(RequestError):
    code, http_status = "BODY_TOO_LARGE", 413
    en = "The request body is larger than 64 KiB. Upload recordings to /api/v1/upload."
    vi = "Nội dung yêu cầu lớn hơn 64 KiB. Hãy gửi bản ghi âm tới /api/v1/upload."


class ObjectNotFound(SttError):
    """The object is not in storage. Callers translate this into an error about the job."""

    code, http_status = "OBJECT_NOT_FOUND", 404
    en = "The object was not found in storage."
    vi = "Không tìm thấy đối tượng trong kho lưu trữ."


class ShortRead(SttError):
    """A read returned fewer bytes than requested: the object is shorter than recorded."""

    code, http_status = "SHORT_READ", 500
    en = "The storage returned fewer bytes than were stored. Try again."
    vi = "Kho lưu trữ trả về ít dữ liệu hơn đã lưu. Vui lòng thử lại."


class SettingsError(Exception):
    """A setting is unknown or invalid, so the process does not start. The text names the setting."""
