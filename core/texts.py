"""Every message in Vietnamese, by its English text.

A message is an English template with named values, `{limit}`; it is stored with its values and put into words where it
is read, in the language of the reader. A string value that is a message itself (the reason inside a failure, say) is
translated with it. A message that is missing here fails tests/unit/test_texts.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ENGLISH, VIETNAMESE = "en", "vi"


def format_template(template: str, language: str, values: Mapping[str, Any]) -> str | None:
    """The message in words; None where it has no translation, or its values do not fit."""
    pattern = template if language == ENGLISH else TEXTS.get(template)
    if pattern is None:
        return None
    try:
        return pattern.format(**{name: _value(value, language) for name, value in values.items()})
    except (KeyError, IndexError, ValueError):
        return None


def translate(text: str, language: str, **values: Any) -> str:
    """A message of the API itself; in English where it has no translation."""
    return format_template(text, language, values) or format_template(text, ENGLISH, values) or text


def validation_text(kind: str, language: str, english: str, context: Mapping[str, Any]) -> str:
    """Translate pydantic's message for a field. kind: its stable error type; english: its own message."""
    if language == ENGLISH:
        return english
    pattern = VALIDATION.get(kind, "Giá trị không hợp lệ.")
    try:
        return pattern.format(**context)
    except (KeyError, IndexError, ValueError):
        return "Giá trị không hợp lệ."


def _value(value: Any, language: str) -> Any:
    return TEXTS.get(value, value) if language == VIETNAMESE and isinstance(value, str) else value


TEXTS = {
    "The machine has a fault: {reason}. Nothing is lost; try again later.": (
        "Máy chủ đang gặp sự cố: {reason}. Dữ liệu không bị mất; vui lòng thử lại sau."
    ),
    # answers
    "File uploaded successfully. Processing started.": "Đã tải tệp lên. Đang bắt đầu xử lý.",
    "Job submitted successfully": "Đã gửi công việc",
    "Transcription in progress": "Đang chuyển giọng nói thành văn bản",
    "Transcription completed successfully": "Đã chuyển xong giọng nói thành văn bản",
    "Transcription failed": "Không chuyển được giọng nói thành văn bản",
    "No worker is running; the job waits until one starts.": (
        "Chưa có tiến trình xử lý nào đang chạy; công việc sẽ chờ đến khi có."
    ),
    # callers
    (
        "Without keys this service serves this machine only: {reason}. "
        "Make a key with `stt keys create`, or set API_KEY, and send it as `X-API-Key`."
    ): (
        "Khi chưa có khóa API, dịch vụ chỉ phục vụ chính máy này: {reason}. "
        "Hãy tạo khóa bằng `stt keys create` hoặc đặt API_KEY, rồi gửi khóa trong `X-API-Key`."
    ),
    "the request comes from another machine": "yêu cầu đến từ máy khác",
    "the request was forwarded by a proxy": "yêu cầu được chuyển tiếp qua proxy",
    "the request is HTTP/1.0, as reverse proxies send it": "yêu cầu dùng HTTP/1.0 như các reverse proxy thường gửi",
    "the request's `Host` is not a name of this machine": "`Host` của yêu cầu không phải là tên của máy này",
    "the host's name leads to no public address": "tên máy chủ không dẫn tới địa chỉ công khai nào",
    # fields
    "`priority` {value} is unknown. Use {allowed}.": "`priority` {value} không được hỗ trợ. Hãy dùng {allowed}.",
    "`language` {value} is not supported. Use {allowed}.": "`language` {value} không được hỗ trợ. Hãy dùng {allowed}.",
    "{value} is not a model name.": "{value} không phải là tên mô hình.",
    "No worker has the model {value}. There are: {allowed}.": "Không có mô hình {value}. Hiện có: {allowed}.",
    "none": "không có",
    "`prompt` has at most {limit} characters and no zero byte.": "`prompt` có tối đa {limit} ký tự và không có byte 0.",
    "`{name}` is true or false.": "`{name}` phải là true hoặc false.",
    "`temperature` is a number from 0 to 1.": "`temperature` phải là một số từ 0 đến 1.",
    "`callback_url`: {reason}.": "`callback_url`: {reason}.",
    "`callback_url` is longer than {limit} characters.": "`callback_url` dài hơn {limit} ký tự.",
    "`media_url`: {reason}.": "`media_url`: {reason}.",
    "`media_url` is longer than {limit} characters.": "`media_url` dài hơn {limit} ký tự.",
    "`media_url`: only {allowed} can be named.": "`media_url`: chỉ dùng được {allowed}.",
    "`metadata` is not valid JSON.": "`metadata` không phải JSON hợp lệ.",
    "`metadata` is a JSON object of at most {limit} characters.": (
        "`metadata` phải là một đối tượng JSON có tối đa {limit} ký tự."
    ),
    "`metadata` is nested deeper than {limit} levels.": "`metadata` lồng nhau quá {limit} cấp.",
    "`metadata` has more than {limit} keys.": "`metadata` có hơn {limit} khóa.",
    "`metadata` has a number that does not fit into 64 bits.": "`metadata` có một số không vừa trong 64 bit.",
    "`format` {value} is unknown. Use {allowed}.": "`format` {value} không được hỗ trợ. Hãy dùng {allowed}.",
    "`response_format` {value} is unknown. Use {allowed}.": (
        "`response_format` {value} không được hỗ trợ. Hãy dùng {allowed}."
    ),
    "`timestamp_granularities` are segment and word.": "`timestamp_granularities` chỉ nhận segment và word.",
    "`timestamp_granularities` need response_format=verbose_json.": (
        "`timestamp_granularities` cần có response_format=verbose_json."
    ),
    "`cursor` is invalid. Use the `next_cursor` of the previous page.": (
        "`cursor` không hợp lệ. Hãy dùng `next_cursor` của trang trước."
    ),
    "`Idempotency-Key` has 1 to {limit} printable characters.": (
        "`Idempotency-Key` phải có từ 1 đến {limit} ký tự in được."
    ),
    "The form has more than one `file` part. Send one recording per request.": (
        "Biểu mẫu có nhiều hơn một phần `file`. Mỗi yêu cầu chỉ gửi một bản ghi âm."
    ),
    "The field `{name}` is longer than {limit} bytes.": "Trường `{name}` dài hơn {limit} byte.",
    # uploads
    "The file is larger than {limit} MB. Use a smaller or more compressed one.": (
        "Tệp lớn hơn {limit} MB. Hãy dùng tệp nhỏ hơn hoặc nén nhiều hơn."
    ),
    "The format of {value} is not supported. Try {allowed}.": (
        "Định dạng của {value} không được hỗ trợ. Hãy thử {allowed}."
    ),
    "The form has more than {limit} parts. Send `file` and its fields only.": (
        "Biểu mẫu có hơn {limit} phần. Chỉ gửi `file` và các trường của nó."
    ),
    "A part of the form has no `Content-Disposition: form-data; name=…`.": (
        "Một phần của biểu mẫu thiếu `Content-Disposition: form-data; name=…`."
    ),
    "The upload ended before its last boundary. Send it again.": (
        "Dữ liệu tải lên kết thúc trước dấu phân cách cuối cùng. Hãy gửi lại."
    ),
    "`file` is a plain field. Send it as a file, with a file name.": (
        "`file` là trường văn bản thường. Hãy gửi dưới dạng tệp, có tên tệp."
    ),
    "The upload was not finished. Send it again.": "Việc tải lên chưa hoàn tất. Hãy gửi lại.",
    "The upload took too long. Send it again.": "Việc tải lên mất quá nhiều thời gian. Hãy gửi lại.",
    "The upload link is invalid or has expired. Ask for a new one with POST /api/v1/uploads.": (
        "Liên kết không hợp lệ hoặc đã hết hạn. Hãy xin liên kết mới bằng POST /api/v1/uploads."
    ),
    "The recording was replaced while the job was being started. Start it again.": (
        "Bản ghi âm đã bị thay thế trong lúc công việc bắt đầu. Hãy bắt đầu lại."
    ),
    "The job was started meanwhile; these bytes are not part of it.": (
        "Công việc đã được bắt đầu; dữ liệu này không được dùng."
    ),
    # jobs
    "Job not found: {value}": "Không tìm thấy công việc: {value}",
    "Job not completed. Current status: {status}": "Công việc chưa hoàn thành. Trạng thái hiện tại: {status}",
    "The job was deleted.": "Công việc đã bị xóa.",
    "The job has ended ({status}); there is nothing to cancel.": (
        "Công việc đã kết thúc ({status}); không còn gì để hủy."
    ),
    "Only a FAILED or CANCELLED job can be retried; this one is {status}.": (
        "Chỉ có thể chạy lại công việc FAILED hoặc CANCELLED; công việc này đang là {status}."
    ),
    "The job has no callback_url, or has not ended yet: there is nothing to deliver.": (
        "Công việc không có callback_url hoặc chưa kết thúc: không có gì để gửi."
    ),
    "The result file is gone from storage.": "Tệp kết quả không còn trong kho lưu trữ.",
    "The result file was damaged in storage. Submit the recording again.": (
        "Tệp kết quả trong kho lưu trữ đã bị hỏng. Hãy gửi lại bản ghi âm."
    ),
    "The prepared audio is gone from storage. Retry the job to prepare it again.": (
        "Âm thanh đã chuẩn bị không còn trong kho lưu trữ. Hãy thử lại công việc để chuẩn bị lại."
    ),
    "The prepared audio was damaged in storage. Retry the job to prepare it again.": (
        "Âm thanh đã chuẩn bị bị hỏng trong kho lưu trữ. Hãy thử lại công việc để chuẩn bị lại."
    ),
    "No worker has {name}. Put it back and retry the job, or submit it with a model that GET /health lists.": (
        "Không máy xử lý nào có {name}. Hãy khôi phục tệp rồi thử lại công việc, hoặc gửi lại với một mô hình có trong "
        "GET /health."
    ),
    "a model file": "tệp mô hình",
    "The webhook is being delivered, or was asked for a moment ago.": (
        "Webhook đang được gửi, hoặc vừa được yêu cầu gửi lại."
    ),
    "The stored recording is not as long as the one that was sent. Upload it again.": (
        "Bản ghi âm trong kho lưu trữ không dài bằng bản đã gửi. Hãy tải lên lại."
    ),
    # limits
    "More than {limit} requests a minute. Wait {seconds} s.": "Hơn {limit} yêu cầu mỗi phút. Hãy chờ {seconds} giây.",
    "Quota of unfinished jobs reached ({count} of {limit}). Wait for jobs to finish.": (
        "Đã đạt giới hạn công việc chưa xong ({count}/{limit}). Hãy chờ các công việc hoàn thành."
    ),
    "Quota of queued audio reached ({seconds} of {limit} seconds). Wait for jobs to finish.": (
        "Đã đạt giới hạn âm thanh đang chờ ({seconds}/{limit} giây). Hãy chờ các công việc hoàn thành."
    ),
    "Upload quota of 24 hours reached ({sent} of {limit} bytes, open upload links included). "
    "Try again in {seconds} seconds.": (
        "Đã đạt giới hạn tải lên trong 24 giờ ({sent}/{limit} byte, kể cả các liên kết tải lên đang mở). "
        "Hãy thử lại sau {seconds} giây."
    ),
    "Quota of open upload links reached ({count} of {limit}). Start them or let them expire.": (
        "Đã đạt giới hạn liên kết tải lên đang mở ({count}/{limit}). Hãy bắt đầu chúng hoặc chờ hết hạn."
    ),
    # failures of jobs
    "Failed to download audio file: {status} {phrase}": "Không tải được tệp âm thanh: máy chủ trả lời mã {status}",
    "Failed to download audio file: {reason}": "Không tải được tệp âm thanh: {reason}",
    "there is no such object in storage": "không có đối tượng này trong kho lưu trữ",
    "the job has ended": "công việc đã kết thúc",
    "The working audio is gone. Upload the recording again.": (
        "Dữ liệu âm thanh trung gian không còn. Hãy tải bản ghi âm lên lại."
    ),
    "The recording stopped the worker that read it, several times over.": (
        "Bản ghi âm đã nhiều lần làm dừng tiến trình xử lý nó."
    ),
    "The recording is longer than {limit} seconds. Cut it into shorter ones.": (
        "Bản ghi âm dài hơn {limit} giây. Hãy cắt thành các bản ngắn hơn."
    ),
    "The recording needs {count} chunks, the limit (MAX_CHUNKS_PER_JOB) is {limit}. Cut it into shorter recordings.": (
        "Bản ghi âm cần {count} đoạn, giới hạn (MAX_CHUNKS_PER_JOB) là {limit}. Hãy cắt thành các bản ngắn hơn."
    ),
    "The pool is stopped.": "Bộ xử lý đã dừng.",
    "The model {name} could not be loaded.": "Không nạp được mô hình {name}.",
    "The model file {name} cannot be read.": "Không đọc được tệp mô hình {name}.",
    "{name} is not a ggml model file.": "{name} không phải là tệp mô hình ggml.",
    "The engine could not read the sound.": "Bộ nhận dạng giọng nói không đọc được âm thanh.",
    "The engine gave up on this recording (status {status}).": (
        "Bộ nhận dạng giọng nói không xử lý được bản ghi âm này (mã {status})."
    ),
    "The model {name} is not on this machine.": "Mô hình {name} không có trên máy này.",
    "The file holds no sound. Choose a recording or a video with a sound track.": (
        "Tệp không có âm thanh. Hãy chọn bản ghi âm hoặc video có tiếng."
    ),
    "The file holds no sound at all. Record it again.": "Tệp hoàn toàn không có âm thanh. Hãy ghi âm lại.",
    # parts that are down
    "The broker is stopped.": "Hàng đợi đã dừng.",
    "RabbitMQ blocks publishing (memory or disk alarm).": "RabbitMQ tạm chặn gửi tin (cảnh báo bộ nhớ hoặc đĩa).",
    "The broker's client is stopped.": "Kết nối tới hàng đợi đã dừng.",
    # why an address is not fetched
    "the server compresses its answer although asked not to": "máy chủ nén câu trả lời dù được yêu cầu không nén",
    "the server redirects too many times": "máy chủ chuyển hướng quá nhiều lần",
    "the address holds white space or a backslash": "địa chỉ có khoảng trắng hoặc dấu gạch chéo ngược",
    "only http:// and https:// addresses are fetched": "chỉ hỗ trợ địa chỉ http:// và https://",
    "the address holds a user name or password": "địa chỉ có tên người dùng hoặc mật khẩu",
    "only the ports 80 and 443 are fetched from": "chỉ hỗ trợ cổng 80 và 443",
    "the host is neither a valid name nor a public address": ("máy chủ không phải là tên hợp lệ hay địa chỉ công khai"),
    "the host does not take connections": "máy chủ không nhận kết nối",
    "requests have been stopped": "đã ngừng gửi yêu cầu",
    "the host has no public address": "máy chủ không có địa chỉ công khai",
    "the address or a header cannot be sent": "không gửi được địa chỉ này",
    "the host's name is not known": "không tìm thấy tên máy chủ",
    "the server sends its answer too slowly": "máy chủ gửi nội dung trả lời quá chậm",
    "the server is too slow": "máy chủ quá chậm",
    "no secure connection that we trust": "không có kết nối an toàn đáng tin cậy",
    "the connection broke off": "kết nối bị ngắt",
    # titles of HTTP statuses
    "Bad Request": "Yêu cầu không hợp lệ",
    "Unauthorized": "Chưa xác thực",
    "Forbidden": "Không được phép",
    "Not Found": "Không tìm thấy",
    "Method Not Allowed": "Phương thức không được hỗ trợ",
    "Not Acceptable": "Không đáp ứng được",
    "Request Timeout": "Hết thời gian chờ yêu cầu",
    "Conflict": "Xung đột",
    "Gone": "Không còn nữa",
    "Length Required": "Thiếu độ dài",
    "Request Entity Too Large": "Yêu cầu quá lớn",
    "Content Too Large": "Yêu cầu quá lớn",
    "Unsupported Media Type": "Kiểu dữ liệu không được hỗ trợ",
    "Misdirected Request": "Yêu cầu sai máy chủ",
    "Unprocessable Entity": "Không xử lý được yêu cầu",
    "Unprocessable Content": "Không xử lý được yêu cầu",
    "Too Many Requests": "Quá nhiều yêu cầu",
    "Request Header Fields Too Large": "Phần đầu yêu cầu quá lớn",
    "Internal Server Error": "Lỗi máy chủ",
    "Not Implemented": "Chưa được hỗ trợ",
    "Service Unavailable": "Dịch vụ tạm ngừng",
    # of the framework
    "There was an error parsing the body": "Không đọc được nội dung yêu cầu",
}

VALIDATION = {
    "missing": "Trường này là bắt buộc.",
    "string_type": "Phải là một chuỗi ký tự.",
    "string_too_short": "Phải có ít nhất {min_length} ký tự.",
    "string_too_long": "Có tối đa {max_length} ký tự.",
    "string_pattern_mismatch": "Phải khớp với mẫu {pattern}.",
    "string_unicode": "Phải là văn bản Unicode hợp lệ.",
    "int_type": "Phải là một số nguyên.",
    "int_parsing": "Phải là một số nguyên.",
    "int_parsing_size": "Số nguyên quá lớn.",
    "int_from_float": "Phải là một số nguyên.",
    "float_type": "Phải là một số.",
    "float_parsing": "Phải là một số.",
    "finite_number": "Phải là một số hữu hạn.",
    "bool_type": "Phải là true hoặc false.",
    "bool_parsing": "Phải là true hoặc false.",
    "dict_type": "Phải là một đối tượng JSON.",
    "list_type": "Phải là một danh sách.",
    "model_type": "Phải là một đối tượng JSON.",
    "model_attributes_type": "Phải là một đối tượng JSON.",
    "greater_than": "Phải lớn hơn {gt}.",
    "greater_than_equal": "Phải lớn hơn hoặc bằng {ge}.",
    "less_than": "Phải nhỏ hơn {lt}.",
    "less_than_equal": "Phải nhỏ hơn hoặc bằng {le}.",
    "enum": "Chỉ nhận: {expected}.",
    "literal_error": "Chỉ nhận: {expected}.",
    "json_invalid": "Không phải JSON hợp lệ.",
    "recursion_loop": "Lồng nhau quá sâu.",
}
"""By pydantic's name of the fault; its context fills in the values."""
