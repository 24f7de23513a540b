"""Vietnamese translations of messages about listening and correcting, see `core/texts.py`."""

MEDIA_TEXTS = {
    "The media token is invalid or has expired. Request a new one with POST .../media-token.": (
        "Mã nghe không hợp lệ hoặc đã hết hạn. Hãy xin mã mới bằng POST .../media-token."
    ),
    "`text` must have at most {limit} characters and no control characters.": (
        "`text` có tối đa {limit} ký tự và không được chứa ký tự điều khiển."
    ),
    "The job was deleted for good: only a deletion with `undo` can be undone, for a while.": (
        "Công việc đã bị xóa hẳn: chỉ có thể hoàn tác lần xóa với `undo`, trong một lúc."
    ),
    "Send either `job_id` or `all`: true.": "Hãy gửi `job_id` hoặc `all`: true.",
    "Range Not Satisfiable": "Khoảng dữ liệu không hợp lệ",
    "Requested Range Not Satisfiable": "Khoảng dữ liệu không hợp lệ",
    "Precondition Failed": "Phiên bản đã thay đổi",
    "Precondition Required": "Thiếu phiên bản",
}
