"""Vietnamese translations of the messages of the command line and the client; see `core/texts.py`."""

COMMAND_TEXTS = {
    "The service at {server} cannot be reached: {reason}.": "Không kết nối được dịch vụ tại {server}: {reason}.",
    "The response (status {status}) is not that of an async-stt service. Check the address.": (
        "Câu trả lời (mã {status}) không phải của dịch vụ async-stt. Hãy kiểm tra địa chỉ."
    ),
    "The file became shorter while it was being sent. Send it again once it is complete.": (
        "Tệp bị ngắn đi trong lúc gửi. Hãy gửi lại khi tệp đã hoàn chỉnh."
    ),
    "The address of the server is not valid: {reason}.": "Địa chỉ máy chủ không hợp lệ: {reason}.",
    "DATA_DIR cannot be used: {reason}.": "Không dùng được DATA_DIR: {reason}.",
    "The previous service does not end. Its log is {path}.": "Dịch vụ trước chưa kết thúc. Nhật ký của nó là {path}.",
    "The service did not start. Its log {path} ends with: {reason}": (
        "Dịch vụ không khởi động. Nhật ký {path} kết thúc bằng: {reason}"
    ),
    "{value}: there is no such file or folder.": "{value}: không có tệp hoặc thư mục nào như vậy.",
    "{value}: the link leads nowhere.": "{value}: liên kết không dẫn đến đâu.",
    "{value} is a device, not a recording.": "{value} là một thiết bị, không phải bản ghi âm.",
    "{value} is not a valid URL.": "{value} không phải là URL hợp lệ.",
    "{value} is not valid UTF-8.": "{value} không phải là UTF-8 hợp lệ.",
    "{value} exists and is not what stt wrote for this recording. Use --overwrite or --output_dir.": (
        "{value} đã tồn tại và không phải do stt ghi cho bản ghi âm này. Hãy dùng --overwrite hoặc --output_dir."
    ),
    "{value} cannot be written: {reason}. Use --output_dir.": (
        "Không ghi được {value}: {reason}. Hãy dùng --output_dir."
    ),
    "The recording cannot be read: {reason}.": "Không đọc được bản ghi âm: {reason}.",
    "{path} of the backup is damaged. Use another backup.": (
        "{path} của bản sao lưu bị hỏng. Hãy dùng bản sao lưu khác."
    ),
    "The backup lacks {path}.": "Bản sao lưu thiếu {path}.",
    "{path} cannot be used: {reason}.": "Không dùng được {path}: {reason}.",
    "The backup was made by version {version} with the schema {revision}, newer than this program. Update it.": (
        "Bản sao lưu do phiên bản {version} với lược đồ {revision} tạo ra, mới hơn chương trình này. "
        "Hãy cập nhật chương trình."
    ),
    "The key file {path} cannot be read: {reason}.": "Không đọc được tệp khóa {path}: {reason}.",
    "`stt` reads the key from STT_API_KEY.": "`stt` đọc khóa từ biến STT_API_KEY.",
}
