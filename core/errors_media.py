"""Errors of listening to a recording."""

from __future__ import annotations

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

    def __init__(self, size: int) -> None:
        """size: bytes of the recording."""
        self.size = size
        super().__init__()

    @property
    def headers(self) -> dict[str, str]:
        return {"Content-Range": f"bytes */{self.size}", "Accept-Ranges": "bytes"}


class PeaksMissingError(RequestError):
    code, http_status = "PEAKS_MISSING", 404
    en = "This job has no peaks: it is not prepared yet, or an earlier version prepared it."
    vi = "Công việc này không có dữ liệu dạng sóng: chưa được chuẩn bị, hoặc do phiên bản cũ chuẩn bị."
