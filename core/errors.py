"""Every error we name, and the one table of what becomes of it (design section 5).

`kind` says what a consumer does with it; `http_status` what the API answers; `en` and `vi` what the sender reads.
An error's own detail is a template with its values, whose Vietnamese is in `core/texts.py`; the class's text is the
general message.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, ClassVar

from core.texts import ENGLISH, VIETNAMESE, format_template


class Kind(StrEnum):
    PERMANENT = "permanent"  # the job fails at once
    WORK = "work"  # counted in `failures`, retried, then the job fails
    INFRASTRUCTURE = "infrastructure"  # counted nowhere, waited out in place
    MACHINE = "machine"  # a fault of this machine: counted nowhere, the row is handed back for another one
    REQUEST = "request"  # refused by the API, never reaches a consumer


class SttError(Exception):
    """Base of all. `detail` is for the sender: one sentence that says what to do."""

    code: ClassVar[str] = "INTERNAL"
    kind: ClassVar[Kind] = Kind.PERMANENT
    http_status: ClassVar[int] = 500
    en: ClassVar[str] = "Something went wrong. Please try again later."
    vi: ClassVar[str] = "Đã xảy ra lỗi. Vui lòng thử lại sau."
    max_retries: ClassVar[int | None] = None  # None: MAX_RETRIES
    retry_after: float | None = None  # seconds after which asking again makes sense
    field: str | None = None  # the field of the request that is wrong

    def __init__(self, detail: str | None = None, *, retry_after: float | None = None, **values: Any) -> None:
        """detail: a template of `core/texts.py`; values: what it names, strings and numbers."""
        self.detail = detail
        self.values = values
        self.retry_after = retry_after or self.retry_after
        super().__init__(self.message())

    def message(self, language: str = ENGLISH) -> str:
        """The text for the sender: this case's own detail, else the class's."""
        own = None if self.detail is None else format_template(self.detail, language, self.values)
        return own or self.general(language)

    @classmethod
    def general(cls, language: str) -> str:
        return cls.vi if language == VIETNAMESE else cls.en

    @property
    def details(self) -> dict[str, Any] | None:
        """Values that `failure_text` needs besides the code, for any language; None where the code is enough."""
        return None if self.detail is None else {"detail": self.detail, "values": self.values}


class AlreadyExists(Exception):
    """A row with the same unique key exists."""


class InternalError(SttError):
    """An exception nobody foresaw, retried: another machine may do better. Its traceback is in the log alone."""

    kind = Kind.WORK


# -- permanent: about the recording ---------------------------------------------------------------------------------
class InvalidAudioFormatError(SttError):
    code, http_status = "INVALID_AUDIO", 422
    en = "The file holds no audio that can be read. Try .mp3, .wav or .m4a."
    vi = "Định dạng tệp không được hỗ trợ. Hãy thử .mp3, .wav hoặc .m4a."


class CorruptedFileError(SttError):
    code, http_status = "CORRUPTED_FILE", 422
    en = "The file is damaged or incomplete. Export or upload it again."
    vi = "Tệp bị hỏng hoặc không đầy đủ. Hãy xuất hoặc tải lại tệp."


class UnsupportedLanguageError(SttError):
    code, http_status = "UNSUPPORTED_LANGUAGE", 422
    en = "The language is not supported. Only English (en) and Vietnamese (vi), or auto."
    vi = "Ngôn ngữ không được hỗ trợ. Chỉ hỗ trợ tiếng Anh và tiếng Việt."
    field = "language"


class FileTooLargeError(SttError):
    code, http_status = "FILE_TOO_LARGE", 413
    en = "The file is too large. Use one under the size limit, or a more compressed format."
    vi = "Tệp quá lớn. Hãy dùng tệp nhỏ hơn giới hạn cho phép."


class AudioTooLongError(SttError):
    code, http_status = "AUDIO_TOO_LONG", 422
    en = "The recording is longer than the limit. Cut it into shorter recordings."
    vi = "Bản ghi âm dài hơn giới hạn. Hãy cắt thành các bản ngắn hơn."


class DecodeTimeoutError(SttError):
    code, http_status = "DECODE_TIMEOUT", 422
    en = "The recording takes too long to decode. Export it again as .mp3, .wav or .m4a."
    vi = "Giải mã bản ghi âm mất quá nhiều thời gian. Hãy xuất lại dưới dạng .mp3, .wav hoặc .m4a."


class SourceNotFoundError(SttError):
    code, http_status = "SOURCE_NOT_FOUND", 422
    en = "The recording is not where it should be. Upload it again."
    vi = "Không tìm thấy bản ghi âm. Hãy tải lên lại."


class ObjectRefusedError(SttError):
    """The storage answers, and refuses this one object: access denied, archived, or a key it does not take."""

    code, http_status = "OBJECT_REFUSED", 502
    en = "The storage refuses to hand out the recording. Upload it again, or contact support."
    vi = "Kho lưu trữ từ chối cung cấp bản ghi âm. Hãy tải lên lại hoặc liên hệ hỗ trợ."


class ObjectDamagedError(SttError):
    """An object in storage is gone, shorter or other than what was written there, also when it is read again."""

    code, http_status = "OBJECT_DAMAGED", 500
    en = "The storage lost or changed a part of the job's data. Retry the job, or upload the recording again."
    vi = "Kho lưu trữ làm mất hoặc thay đổi dữ liệu của công việc. Hãy thử lại; nếu vẫn lỗi, hãy tải tệp lên lại."


class ModelMissingError(SttError):
    code, http_status = "MODEL_MISSING", 422
    en = "No worker has the model file of this job. Put the file back and retry the job, or submit it with a model \
that GET /health lists."
    vi = "Không máy xử lý nào có tệp mô hình của công việc này. Hãy khôi phục tệp rồi thử lại công việc, hoặc gửi lại \
với một mô hình có trong GET /health."


# -- work: tried again ----------------------------------------------------------------------------------------------
class WorkError(SttError):
    kind = Kind.WORK


class ChunkTimeoutError(WorkError):
    code = "TIMEOUT"
    en = "Processing took too long. Try again, or contact support."
    vi = "Xử lý mất quá nhiều thời gian. Hãy thử lại hoặc liên hệ hỗ trợ."


class JobTimeoutError(ChunkTimeoutError):
    """A step worked longer than JOB_TIMEOUT_SECONDS: trying it again would take as long."""

    kind = Kind.PERMANENT


class WhisperCrashError(WorkError):
    code = "WORKER_CRASH"
    en = "The speech engine stopped on this recording. Try again, or contact support."
    vi = "Bộ nhận dạng giọng nói đã dừng. Hãy thử lại hoặc liên hệ hỗ trợ."


class OutOfMemoryError(WorkError):
    code = "OUT_OF_MEMORY"
    en = "The machine ran out of memory on this recording. Try a smaller model."
    vi = "Máy chủ hết bộ nhớ khi xử lý. Hãy thử mô hình nhỏ hơn."


class NetworkError(WorkError):
    code = "NETWORK"
    en = "The recording could not be fetched. Check that its address answers, and try again."
    vi = "Không tải được bản ghi âm. Hãy kiểm tra địa chỉ và thử lại."


# -- machine: the job waits for a machine that is well ---------------------------------------------------------------
class MachineError(SttError):
    """A fault of this machine; the detail names it for the operator."""

    kind, http_status, retry_after = Kind.MACHINE, 503, 5.0
    code = "MACHINE_FAULT"
    en = "The machine has a fault that its operator has to repair. Nothing is lost; try again later."
    vi = "Máy chủ đang gặp sự cố. Dữ liệu không bị mất; vui lòng thử lại sau."


class DiskFullError(MachineError):
    code = "DISK_FULL"
    en = "The server has no disk space left. Try again later."
    vi = "Máy chủ hết dung lượng đĩa. Vui lòng thử lại sau."


class EngineUnavailableError(MachineError):
    code = "ENGINE_UNAVAILABLE"
    en = "The speech engine's process cannot be started on this machine. Nothing is lost; try again later."
    vi = "Không khởi động được bộ nhận dạng giọng nói. Vui lòng thử lại sau."


# -- infrastructure: waited out -------------------------------------------------------------------------------------
class InfrastructureError(SttError):
    kind, http_status, retry_after = Kind.INFRASTRUCTURE, 503, 5.0
    code = "UNAVAILABLE"
    en = "A part of the service is down. Nothing is lost; try again in a few seconds."
    vi = "Một phần của dịch vụ đang tạm ngừng. Vui lòng thử lại sau vài giây."


class DatabaseUnavailable(InfrastructureError):
    code = "DATABASE_UNAVAILABLE"


class StorageUnavailable(InfrastructureError):
    code = "STORAGE_UNAVAILABLE"


class BrokerUnavailable(InfrastructureError):
    code = "BROKER_UNAVAILABLE"


# -- request: refused at the door -----------------------------------------------------------------------------------
class RequestError(SttError):
    kind, http_status = Kind.REQUEST, 422
    code = "INVALID_REQUEST"
    en = "The request is not valid."
    vi = "Yêu cầu không hợp lệ."


class UnsupportedFormatError(RequestError):
    code, http_status = "UNSUPPORTED_FORMAT", 400
    en = "The format is not supported. Try .mp3, .wav or .m4a."
    vi = "Định dạng không được hỗ trợ. Hãy thử .mp3, .wav hoặc .m4a."


class EmptyFileError(RequestError):
    code, http_status = "EMPTY_FILE", 400
    en = "The file is empty. Choose a recording with sound in it."
    vi = "Tệp trống. Hãy chọn một bản ghi âm có âm thanh."


class FileMissingError(RequestError):
    code, http_status = "FILE_MISSING", 400
    en = "There is no file in the request. Send it as the multipart form field `file`."
    vi = "Yêu cầu không có tệp. Hãy gửi tệp trong trường `file`."


class MalformedUploadError(RequestError):
    code, http_status = "MALFORMED_UPLOAD", 400
    en = "The request body is not valid multipart/form-data. Send the file as the form field `file`."
    vi = "Nội dung yêu cầu không phải multipart/form-data hợp lệ."


class UploadTimeoutError(RequestError):
    code, http_status = "UPLOAD_TIMEOUT", 408
    en = "The body arrived too slowly, or not at all for 60 seconds. Send it again over a faster connection."
    vi = "Dữ liệu gửi lên quá chậm, hoặc không có gì trong 60 giây. Hãy gửi lại qua kết nối nhanh hơn."


class InvalidFieldError(RequestError):
    code = "INVALID_FIELD"
    en = "A field of the request is not valid."
    vi = "Một trường của yêu cầu không hợp lệ."

    def __init__(self, field: str, detail: str | None = None, **values: Any) -> None:
        """field: its name, as `errors[]` of the answer has it."""
        self.field = field
        super().__init__(detail, **values)


class UnknownModelError(RequestError):
    code = "UNKNOWN_MODEL"
    en = "No worker has this model."
    vi = "Không có mô hình này."
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
    """Code of a cancelled job for clients that distinguish only success and failure."""

    code, http_status = "CANCELLED", 409
    en = "Job cancelled"
    vi = "Công việc đã bị hủy"


class IdempotencyMismatchError(RequestError):
    code = "IDEMPOTENCY_MISMATCH"
    en = "This Idempotency-Key was used for another request. Use a new key for a new request."
    vi = "Idempotency-Key này đã được dùng cho một yêu cầu khác. Hãy dùng khóa mới."


class ConflictError(RequestError):
    code, http_status = "CONFLICT", 409
    en = "The job's present state does not allow this."
    vi = "Trạng thái hiện tại của công việc không cho phép thao tác này."


class TooManyUploads(RequestError):
    code, http_status, retry_after = "TOO_MANY_UPLOADS", 503, 5.0
    en = "Too many uploads at once. Try again in a few seconds."
    vi = "Có quá nhiều lượt tải lên. Vui lòng thử lại sau vài giây."


class UnauthorizedError(RequestError):
    code, http_status = "UNAUTHORIZED", 401
    en = "A valid API key is needed. Send it as `X-API-Key` or `Authorization: Bearer`."
    vi = "Cần khóa API hợp lệ. Hãy gửi trong `X-API-Key` hoặc `Authorization: Bearer`."


class LocalOnlyError(RequestError):
    code, http_status = "LOCAL_ONLY", 403
    en = (
        "Without keys this service serves this machine only. "
        "Make a key with `stt keys create`, or set API_KEY, and send it as `X-API-Key`."
    )
    vi = (
        "Khi chưa có khóa API, dịch vụ chỉ phục vụ chính máy này. "
        "Hãy tạo khóa bằng `stt keys create` hoặc đặt API_KEY, rồi gửi khóa trong `X-API-Key`."
    )


class CrossSiteError(RequestError):
    code, http_status = "CROSS_SITE", 403
    en = (
        "A web page of another site sent this request. Add its origin to CORS_ORIGINS, "
        "or make a key with `stt keys create` or API_KEY and send it as `X-API-Key`."
    )
    vi = (
        "Yêu cầu này do một trang web khác gửi. Hãy thêm nguồn của trang vào CORS_ORIGINS, "
        "hoặc tạo khóa bằng `stt keys create` hay API_KEY và gửi trong `X-API-Key`."
    )


class UntrustedHostError(RequestError):
    code, http_status = "HOST_NOT_TRUSTED", 403
    en = "The service does not answer to this `Host`. Use the service's own name, or add this one to TRUSTED_HOSTS."
    vi = "`Host` của yêu cầu không thuộc dịch vụ này. Hãy dùng đúng tên, hoặc thêm tên này vào TRUSTED_HOSTS."


class RateLimitedError(RequestError):
    code, http_status = "RATE_LIMITED", 429
    en = "Too many requests. Wait for the seconds that `Retry-After` names."
    vi = "Quá nhiều yêu cầu. Hãy chờ số giây trong `Retry-After`."


class QuotaExceededError(RequestError):
    code, http_status = "QUOTA_EXCEEDED", 429
    en = "A limit of this key is reached. Wait for jobs to finish, or ask for a higher limit."
    vi = "Đã đạt giới hạn của khóa này. Hãy chờ các công việc hoàn thành."


class NothingUploadedError(RequestError):
    code, http_status = "NOTHING_UPLOADED", 409
    en = "Nothing has been uploaded yet. Send the recording to `upload_url` first."
    vi = "Chưa có tệp nào được tải lên. Hãy gửi bản ghi âm tới `upload_url` trước."


class LinkUsedError(RequestError):
    code, http_status = "LINK_USED", 409
    en = "The upload link was used up or has expired. Ask for a new one."
    vi = "Liên kết tải lên đã được dùng hoặc đã hết hạn. Hãy xin liên kết mới."


class TooManyStreamsError(RequestError):
    code, http_status, retry_after = "TOO_MANY_STREAMS", 429, 30.0
    en = "Too many of this key's requests are waiting for a job. Close some event streams, or poll instead."
    vi = "Khóa này có quá nhiều yêu cầu đang chờ công việc. Hãy đóng bớt luồng sự kiện hoặc hỏi trạng thái định kỳ."


class StreamsExhaustedError(RequestError):
    code, http_status, retry_after = "STREAMS_EXHAUSTED", 503, 30.0
    en = "Too many clients are waiting for jobs here. Poll instead, or try again later."
    vi = "Có quá nhiều máy khách đang chờ công việc. Hãy hỏi trạng thái định kỳ hoặc thử lại sau."


class BodyTooLargeError(RequestError):
    code, http_status = "BODY_TOO_LARGE", 413
    en = "The body is larger than 64 KiB. Recordings go to /api/v1/upload."
    vi = "Nội dung yêu cầu lớn hơn 64 KiB. Hãy gửi bản ghi âm tới /api/v1/upload."


class ObjectNotFound(SttError):
    """An object is not in storage: the caller says what that means for the sender."""

    code, http_status = "OBJECT_NOT_FOUND", 404
    en = "The object is not in storage."
    vi = "Không tìm thấy đối tượng trong kho lưu trữ."


class ShortRead(SttError):
    """A read returned other than the bytes asked for: the object is shorter than the caller's record of it."""

    code, http_status = "SHORT_READ", 500
    en = "The storage returned fewer bytes than were stored. Try again."
    vi = "Kho lưu trữ trả về ít dữ liệu hơn đã lưu. Vui lòng thử lại."


class SettingsError(Exception):
    """A setting is unknown or impossible; the text names it. Stops the start."""
