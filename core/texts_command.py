"""Vietnamese translations of the messages of the command line and the client; see `core/texts.py`."""

COMMAND_TEXTS = {
    "The service at {server} cannot be reached: {reason}.": "Không kết nối được dịch vụ tại {server}: {reason}.",
    "The response (status {status}) is not that of an async-stt service. Check the address.": (
        "Câu trả lời (mã {status}) không phải của dịch vụ async-stt. Hãy kiểm tra địa chỉ."
    ),
    "The file became shorter while it was being sent. Send it again once it is complete.": (
        "Tệp bị ngắn đi trong lúc gửi. Hãy gửi lại khi tệp đã hoàn chỉnh."
    ),
}
