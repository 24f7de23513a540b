"""Errors of listening to a recording and correcting its transcript."""

from __future__ import annotations

from typing import Any

from core.errors import RequestError


class MediaNotReadyError(RequestError):
    code, http_status, retry_after = "MEDIA_NOT_READY", 409, 5.0
    en = "The recording has not been fetched from its URL yet. Try again in a few seconds."
    vi = "Bản ghi âm chưa được tải về từ URL. Vui lòng thử lại sau vài giây."


class MediaGoneError(RequestError):
    code, http_status = "MEDIA_GONE", 410
    en = "The recording is no longer stored. Its transcript stays available."
    vi = "Bản ghi âm không còn được lưu. Bản chép lời vẫn xem được."


class RangeNotSatisfiableError(RequestError):
    code, http_status = "RANGE_NOT_SATISFIABLE", 416
    en = "The requested range begins after the end of the recording."
    vi = "Khoảng được yêu cầu bắt đầu sau điểm cuối của bản ghi âm."

    def __init__(self, detail: str | None = None, *, size: int = 0) -> None:
        """size: bytes of the recording."""
        self.size = size
        super().__init__(detail)

    @property
    def headers(self) -> dict[str, str]:
        return {"Content-Range": f"bytes */{self.size}", "Accept-Ranges": "bytes"}


class SegmentNotFoundError(RequestError):
    code, http_status = "SEGMENT_NOT_FOUND", 404
    en = "The transcript has no segment with this number."
    vi = "Bản chép lời không có đoạn mang số này."


class CorrectionConflictError(RequestError):
    """Somebody else changed the segment. `current` is its present form, which is part of the response."""

    code, http_status = "CORRECTION_CONFLICT", 412
    en = "The segment was changed meanwhile. Read its present text, then correct it again."
    vi = "Đoạn này vừa được thay đổi. Hãy xem nội dung hiện tại rồi sửa lại."

    def __init__(self, detail: str | None = None, *, current: dict[str, Any] | None = None) -> None:
        """current: the segment as in the response of the result."""
        self.current = current or {"version": 0}
        super().__init__(detail)

    @property
    def headers(self) -> dict[str, str]:
        return {"ETag": f'"{self.current["version"]}"'}

    @property
    def members(self) -> dict[str, Any]:
        return {"current": self.current}


class PreconditionRequiredError(RequestError):
    code, http_status = "PRECONDITION_REQUIRED", 428
    en = 'Send the segment\'s version in `If-Match`, such as "0", so that no other correction is lost.'
    vi = 'Hãy gửi phiên bản của đoạn trong `If-Match`, ví dụ "0", để không làm mất bản sửa của người khác.'


class TooManyCorrectionsError(RequestError):
    code = "TOO_MANY_CORRECTIONS"
    en = "Too many segments of this job are corrected. Export the transcript and edit the file instead."
    vi = "Công việc này đã có quá nhiều đoạn được sửa. Hãy xuất bản chép lời rồi sửa trong tệp."


class PeaksMissingError(RequestError):
    code, http_status = "PEAKS_MISSING", 404
    en = "This job has no peaks: it is not prepared yet, or an earlier version prepared it."
    vi = "Công việc này không có dữ liệu dạng sóng: chưa được chuẩn bị, hoặc do phiên bản cũ chuẩn bị."
