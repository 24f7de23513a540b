"""Vietnamese translations of all messages, keyed by their English text.

A message is an English template with named values such as `{limit}`. It is stored with its values and formatted in the
reader's language when it is read. A string value that is itself a message, such as the reason of a failure, is
translated too. tests/unit/test_texts.py finds messages without a translation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.texts_command import COMMAND_TEXTS
from core.texts_doctor import DOCTOR_TEXTS
from core.texts_media import MEDIA_TEXTS
from core.texts_models import MODEL_TEXTS

ENGLISH, VIETNAMESE = "en", "vi"


def format_template(template: str, language: str, values: Mapping[str, Any]) -> str | None:
    """Return the formatted message, or None if it has no translation or a value is missing or unsuitable."""
    pattern = template if language == ENGLISH else TEXTS.get(template)
    if pattern is None:
        return None
    try:
        return pattern.format(**{name: _translated(value, language) for name, value in values.items()})
    except (KeyError, IndexError, ValueError):
        return None


def translate(text: str, language: str, **values: Any) -> str:
    """Return the message in this language, or in English if it has no translation."""
    return format_template(text, language, values) or format_template(text, ENGLISH, values) or text


def validation_text(kind: str, language: str, english: str, context: Mapping[str, Any]) -> str:
    """Translate a validation error. kind: pydantic's error type; english: its message; context: its values."""
    if language == ENGLISH:
        return english
    pattern = VALIDATION.get(kind, "Giá trị không hợp lệ.")
    try:
        return pattern.format(**context)
    except (KeyError, IndexError, ValueError):
        return "Giá trị không hợp lệ."


def _translated(value: Any, language: str) -> Any:
    return TEXTS.get(value, value) if language == VIETNAMESE and isinstance(value, str) else value


TEXTS = COMMAND_TEXTS | {
    "The server has a fault: {reason}. No data is lost; try again later.": (
        "Máy chủ đang gặp sự cố: {reason}. Dữ liệu không bị mất; vui lòng thử lại sau."
    ),
    # responses
    "File uploaded successfully. Processing started.": "Đã tải tệp lên. Đang bắt đầu xử lý.",
    "Job submitted successfully": "Đã gửi công việc",
    "Transcription in progress": "Đang chuyển giọng nói thành văn bản",
    "Transcription completed successfully": "Đã chuyển xong giọng nói thành văn bản",
    "Transcription failed": "Không chuyển được giọng nói thành văn bản",
    "No worker is running; the job waits until one starts.": (
        "Chưa có tiến trình xử lý nào đang chạy; công việc sẽ chờ đến khi có."
    ),
    # access
    (
        "Without API keys this service accepts requests from this machine only: {reason}. "
        "Create a key with `stt keys create`, or set API_KEY, and send it as `X-API-Key`."
    ): (
        "Khi chưa có khóa API, dịch vụ chỉ nhận yêu cầu từ chính máy này: {reason}. "
        "Hãy tạo khóa bằng `stt keys create` hoặc đặt API_KEY, rồi gửi khóa trong `X-API-Key`."
    ),
    "the request comes from another machine": "yêu cầu đến từ máy khác",
    "the request was forwarded by a proxy": "yêu cầu được chuyển tiếp qua proxy",
    "the request uses HTTP/1.0, as reverse proxies do": "yêu cầu dùng HTTP/1.0 như các reverse proxy thường gửi",
    "`Host` is not a name of this machine": "`Host` của yêu cầu không phải là tên của máy này",
    "the host name does not resolve to a public address": "tên máy chủ không phân giải thành địa chỉ công khai",
    # fields
    "`priority` {value} is unknown. Use {allowed}.": "`priority` {value} không được hỗ trợ. Hãy dùng {allowed}.",
    "`language` {value} is not supported. Use {allowed}.": "`language` {value} không được hỗ trợ. Hãy dùng {allowed}.",
    "{value} is not a model name.": "{value} không phải là tên mô hình.",
    "No worker has the model {value}. Available models: {allowed}.": (
        "Không máy xử lý nào có mô hình {value}. Các mô hình hiện có: {allowed}."
    ),
    "none": "không có",
    "`prompt` must have at most {limit} characters and no NUL character.": (
        "`prompt` phải có tối đa {limit} ký tự và không có ký tự NUL."
    ),
    "`{name}` must be true or false.": "`{name}` phải là true hoặc false.",
    "`temperature` must be a number from 0 to 1.": "`temperature` phải là một số từ 0 đến 1.",
    "`callback_url`: {reason}.": "`callback_url`: {reason}.",
    "`callback_url` is longer than {limit} characters.": "`callback_url` dài hơn {limit} ký tự.",
    "`media_url`: {reason}.": "`media_url`: {reason}.",
    "`media_url` is longer than {limit} characters.": "`media_url` dài hơn {limit} ký tự.",
    "`media_url`: only {allowed} is allowed.": "`media_url`: chỉ cho phép {allowed}.",
    "`metadata` is not valid JSON.": "`metadata` không phải JSON hợp lệ.",
    "`metadata` must be a JSON object of at most {limit} characters.": (
        "`metadata` phải là một đối tượng JSON có tối đa {limit} ký tự."
    ),
    "`metadata` is nested deeper than {limit} levels.": "`metadata` lồng nhau quá {limit} cấp.",
    "`metadata` has more than {limit} keys.": "`metadata` có hơn {limit} khóa.",
    "`metadata` contains a number that does not fit in 64 bits.": "`metadata` chứa một số vượt quá 64 bit.",
    "`format` {value} is unknown. Use {allowed}.": "`format` {value} không được hỗ trợ. Hãy dùng {allowed}.",
    "`response_format` {value} is unknown. Use {allowed}.": (
        "`response_format` {value} không được hỗ trợ. Hãy dùng {allowed}."
    ),
    "`timestamp_granularities` must be segment or word.": "`timestamp_granularities` phải là segment hoặc word.",
    "`timestamp_granularities` requires response_format=verbose_json.": (
        "`timestamp_granularities` yêu cầu response_format=verbose_json."
    ),
    "`cursor` is not valid. Use the `next_cursor` of the previous page.": (
        "`cursor` không hợp lệ. Hãy dùng `next_cursor` của trang trước."
    ),
    "`Idempotency-Key` must have 1 to {limit} printable characters.": (
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
    "The format of {value} is not supported. Use {allowed}.": (
        "Định dạng của {value} không được hỗ trợ. Hãy dùng {allowed}."
    ),
    "The form has more than {limit} parts. Send only `file` and its fields.": (
        "Biểu mẫu có hơn {limit} phần. Chỉ gửi `file` và các trường của nó."
    ),
    "A form part has no `Content-Disposition: form-data; name=…` header.": (
        "Một phần của biểu mẫu thiếu phần đầu `Content-Disposition: form-data; name=…`."
    ),
    "The upload ended before the final boundary. Send it again.": (
        "Dữ liệu tải lên kết thúc trước dấu phân cách cuối cùng. Hãy gửi lại."
    ),
    "`file` is a text field. Send it as a file part with a file name.": (
        "`file` là trường văn bản. Hãy gửi dưới dạng tệp, có tên tệp."
    ),
    "The upload was not completed. Send it again.": "Việc tải lên chưa hoàn tất. Hãy gửi lại.",
    "The upload took too long. Send it again.": "Việc tải lên mất quá nhiều thời gian. Hãy gửi lại.",
    "The upload link is invalid or has expired. Request a new one with POST /api/v1/uploads.": (
        "Liên kết tải lên không hợp lệ hoặc đã hết hạn. Hãy xin liên kết mới bằng POST /api/v1/uploads."
    ),
    "The recording was replaced while the job was being started. Start the job again.": (
        "Bản ghi âm đã bị thay thế trong lúc công việc bắt đầu. Hãy bắt đầu lại công việc."
    ),
    "The job has already been started; this upload is not part of it.": (
        "Công việc đã được bắt đầu; lượt tải lên này không thuộc về nó."
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
    "The result file is no longer in storage.": "Tệp kết quả không còn trong kho lưu trữ.",
    "The result file was damaged in storage. Submit the recording again.": (
        "Tệp kết quả trong kho lưu trữ đã bị hỏng. Hãy gửi lại bản ghi âm."
    ),
    "The prepared audio is no longer in storage. Retry the job to prepare it again.": (
        "Âm thanh đã chuẩn bị không còn trong kho lưu trữ. Hãy thử lại công việc để chuẩn bị lại."
    ),
    "The prepared audio was damaged in storage. Retry the job to prepare it again.": (
        "Âm thanh đã chuẩn bị bị hỏng trong kho lưu trữ. Hãy thử lại công việc để chuẩn bị lại."
    ),
    "No worker has {name}. Restore it and retry the job, or resubmit it with a model listed by GET /health.": (
        "Không máy xử lý nào có {name}. Hãy khôi phục tệp rồi thử lại công việc, hoặc gửi lại với một mô hình có trong "
        "GET /health."
    ),
    "a model file": "tệp mô hình",
    "The webhook is being delivered, or its redelivery was requested less than a minute ago.": (
        "Webhook đang được gửi, hoặc đã được yêu cầu gửi lại chưa đầy một phút trước."
    ),
    "The stored recording's size differs from the uploaded size. Upload it again.": (
        "Kích thước bản ghi âm đã lưu khác với bản đã gửi. Hãy tải lên lại."
    ),
    # limits
    "Rate limit of {limit} requests per minute exceeded. Retry in {seconds} s.": (
        "Đã vượt giới hạn {limit} yêu cầu mỗi phút. Hãy thử lại sau {seconds} giây."
    ),
    "Limit reached: {count} unfinished jobs. Wait for jobs to finish.": (
        "Đã đến giới hạn: {count} công việc chưa xong. Hãy chờ các công việc hoàn thành."
    ),
    "Limit reached: {seconds} s of audio are queued. Wait for jobs to finish.": (
        "Đã đến giới hạn: {seconds} giây âm thanh đang chờ. Hãy chờ các công việc hoàn thành."
    ),
    "Limit reached: {sent} of {limit} bytes in 24 hours, open upload links included. Retry in {seconds} s.": (
        "Đã đến giới hạn: {sent}/{limit} byte trong 24 giờ, kể cả các liên kết tải lên đang mở. "
        "Hãy thử lại sau {seconds} giây."
    ),
    "Limit reached: {count} open upload links. Start some of them or wait until they expire.": (
        "Đã đến giới hạn: {count} liên kết tải lên đang mở. Hãy bắt đầu một số liên kết hoặc chờ hết hạn."
    ),
    # failures of jobs
    "Failed to download audio file: {status} {phrase}": "Không tải được tệp âm thanh: máy chủ trả lời mã {status}",
    "Failed to download audio file: {reason}": "Không tải được tệp âm thanh: {reason}",
    "the object does not exist in storage": "đối tượng không tồn tại trong kho lưu trữ",
    "the job has ended": "công việc đã kết thúc",
    "The recording repeatedly crashed the worker that processed it.": (
        "Bản ghi âm đã nhiều lần làm hỏng tiến trình xử lý nó."
    ),
    "The recording is longer than {limit} seconds. Split it into shorter recordings.": (
        "Bản ghi âm dài hơn {limit} giây. Hãy cắt thành các bản ngắn hơn."
    ),
    "The recording needs {count} chunks, the limit (MAX_CHUNKS_PER_JOB) is {limit}. Cut it into shorter recordings.": (
        "Bản ghi âm cần {count} đoạn, giới hạn (MAX_CHUNKS_PER_JOB) là {limit}. Hãy cắt thành các bản ngắn hơn."
    ),
    "The model {name} could not be loaded.": "Không nạp được mô hình {name}.",
    "The model file {name} cannot be read.": "Không đọc được tệp mô hình {name}.",
    "{name} is not a model in a known format ({formats}).": (
        "{name} không phải là mô hình ở định dạng đã biết ({formats})."
    ),
    "The model {name} has {size} bytes, but its tensors need {expected}. Delete it and get it again.": (
        "Mô hình {name} có {size} byte, nhưng các tensor của nó cần {expected}. Hãy xóa rồi tải lại."
    ),
    "The model {name} is damaged, or no Whisper model: {part} is not valid. Delete it and get it again.": (
        "Mô hình {name} bị hỏng hoặc không phải mô hình Whisper: {part} không hợp lệ. Hãy xóa rồi tải lại."
    ),
    "The engine failed on the model {name}: {reason}.": "Bộ nhận dạng gặp lỗi với mô hình {name}: {reason}.",
    "The model {name} loads, but does not recognise speech; it heard: {text}": (
        "Nạp được mô hình {name} nhưng mô hình không nhận dạng được giọng nói; kết quả: {text}"
    ),
    "The name {value} is not valid. Use letters, digits, `.`, `_` and `-`.": (
        "Tên {value} không hợp lệ. Hãy dùng chữ cái, chữ số, `.`, `_` và `-`."
    ),
    "{name} exists already.": "{name} đã tồn tại.",
    "Another process is installing a model in {folder} ({owner}).": (
        "Một tiến trình khác đang cài mô hình vào {folder} ({owner})."
    ),
    "{folder} has {free} MB free, the model needs {needed} MB. Free some space.": (
        "{folder} còn trống {free} MB, mô hình cần {needed} MB. Hãy giải phóng dung lượng."
    ),
    "{name} has an output layer of its own, which Whisper models have not.": (
        "{name} có lớp đầu ra riêng, khác với mô hình Whisper."
    ),
    "The type {value} is unknown. Use {allowed}.": "Kiểu {value} không được hỗ trợ. Hãy dùng {allowed}.",
    "{name} is quantised already. Quantise the file of 16 bits that it was made from.": (
        "{name} đã được lượng tử hóa. Hãy lượng tử hóa tệp 16 bit gốc của nó."
    ),
    "{kind} needs a width that is a multiple of {block}; that of {name} is {width}. Use q5_0, q8_0 or q4_0.": (
        "{kind} cần độ rộng là bội số của {block}; độ rộng của {name} là {width}. Hãy dùng q5_0, q8_0 hoặc q4_0."
    ),
    "Quantising the tensor {part} of {name} gave wrong values. The disk or the memory may be faulty.": (
        "Lượng tử hóa tensor {part} của {name} cho giá trị sai. Đĩa hoặc bộ nhớ có thể bị lỗi."
    ),
    "header": "phần đầu",
    "mel filters": "bộ lọc mel",
    "vocabulary": "bộ từ vựng",
    "The engine could not process the audio.": "Bộ nhận dạng giọng nói không xử lý được âm thanh.",
    "The engine failed on this recording (status {status}).": (
        "Bộ nhận dạng giọng nói không xử lý được bản ghi âm này (mã {status})."
    ),
    "The model {name} is not installed on this machine.": "Mô hình {name} chưa được cài trên máy này.",
    "The file has no audio track. Upload a recording, or a video with sound.": (
        "Tệp không có rãnh âm thanh. Hãy tải lên bản ghi âm hoặc video có tiếng."
    ),
    "The file's audio track is empty. Record it again.": "Rãnh âm thanh của tệp trống. Hãy ghi âm lại.",
    # dependencies
    "The broker is stopped.": "Hàng đợi đã dừng.",
    "RabbitMQ is blocking publishers (memory or disk alarm).": "RabbitMQ đang chặn gửi tin (cảnh báo bộ nhớ hoặc đĩa).",
    "The broker's client is stopped.": "Kết nối tới hàng đợi đã dừng.",
    # outgoing requests
    "the server sent a compressed response although none was requested": (
        "máy chủ gửi nội dung nén dù không được yêu cầu nén"
    ),
    "too many redirects": "chuyển hướng quá nhiều lần",
    "the URL contains white space or a backslash": "URL có khoảng trắng hoặc dấu gạch chéo ngược",
    "only http:// and https:// URLs are allowed": "chỉ cho phép URL http:// và https://",
    "the URL contains a user name or password": "URL có tên người dùng hoặc mật khẩu",
    "only ports 80 and 443 are allowed": "chỉ cho phép cổng 80 và 443",
    "the host is neither a valid name nor a public address": ("máy chủ không phải là tên hợp lệ hay địa chỉ công khai"),
    "the host does not accept connections": "máy chủ không nhận kết nối",
    "outbound requests are stopped": "đã ngừng gửi yêu cầu",
    "the URL or a header is not valid": "URL hoặc phần đầu yêu cầu không hợp lệ",
    "the server sends data too slowly": "máy chủ gửi dữ liệu quá chậm",
    "the server did not respond in time": "máy chủ không trả lời kịp thời",
    "no trusted TLS connection could be made": "không thiết lập được kết nối TLS đáng tin cậy",
    "the connection was closed": "kết nối bị đóng",
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
    # Starlette
    "There was an error parsing the body": "Không đọc được nội dung yêu cầu",
    **MEDIA_TEXTS,
    **MODEL_TEXTS,
    **DOCTOR_TEXTS,
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
"""Vietnamese messages by pydantic's error type. Their values are those of the error's context."""
