"""Vietnamese translations of what `stt` prints besides results and errors.

They are kept apart from those of `core/texts.py`, since a single word such as `all` may also be a value in an error.
"""

CLI_TEXTS = {
    # transcribe
    "upload": "tải lên",
    "waiting": "đang chờ",
    "all": "tất cả",
    "written": "đã ghi",
    "skipped": "đã bỏ qua",
    "detached": "chạy tiếp",
    "failed": "thất bại",
    "transcribed": "đã chuyển thành văn bản",
    "done before, {files}": "đã làm trước đó, {files}",
    "job {job} continues": "công việc {job} vẫn chạy tiếp",
    "{file}: job {job}": "{file}: công việc {job}",
    "{file}: job {job} continues. `stt jobs cancel {job}` ends it.": (
        "{file}: công việc {job} vẫn chạy tiếp. `stt jobs cancel {job}` sẽ dừng nó."
    ),
    "{done} of {count} files": "{done}/{count} tệp",
    "{done} of {total} chunks": "{done}/{total} đoạn",
    "{time} left": "còn {time}",
    "{seconds} s left": "còn {seconds} giây",
    "{count} jobs cancelled.": "Đã hủy {count} công việc.",
    "{value}: no recordings": "{value}: không có bản ghi âm nào",
    "{value}: no recordings (without --recursive)": "{value}: không có bản ghi âm nào (khi không dùng --recursive)",
    "--{name} has no effect: the service decides this.": "--{name} không có tác dụng: dịch vụ tự quyết định điều này.",
    "Interrupted. Cancel the jobs (c), leave them running (d), or go on (Enter)? Ctrl-C again quits: ": (
        "Đã ngắt. Hủy các công việc (c), để chúng chạy tiếp (d), hay tiếp tục (Enter)? Ctrl-C lần nữa để thoát: "
    ),
    "choosing the fastest engine for this machine, {number} of {count}": (
        "đang chọn bộ nhận dạng nhanh nhất cho máy này, {number}/{count}"
    ),
    # backup and restore
    "objects": "đối tượng",
    "rows": "dòng",
    "upgrading the schema": "đang nâng cấp lược đồ",
    "Interrupted. What was copied is kept; the same command continues.": (
        "Đã ngắt. Những gì đã sao chép được giữ lại; chạy lại lệnh này sẽ tiếp tục."
    ),
    "{rows} rows, {objects} objects ({size:.1f} MB), of which {copied} are new ({new_size:.1f} MB)": (
        "{rows} dòng, {objects} đối tượng ({size:.1f} MB), trong đó {copied} là mới ({new_size:.1f} MB)"
    ),
    "{count} objects that jobs need are not in the storage.": (
        "{count} đối tượng mà các công việc cần không có trong kho lưu trữ."
    ),
    "The folder has no finished backup.": "Thư mục chưa có bản sao lưu hoàn chỉnh nào.",
    "{name}: every byte is as it was written": "{name}: mọi byte đều đúng như khi ghi",
    "Interrupted. The database is as it was; the same command starts again.": (
        "Đã ngắt. Cơ sở dữ liệu vẫn như cũ; chạy lại lệnh này sẽ bắt đầu lại."
    ),
    "{rows} rows, {objects} objects, {jobs} jobs, {unfinished} of which continue ({again} from the recording)": (
        "{rows} dòng, {objects} đối tượng, {jobs} công việc, trong đó {unfinished} sẽ chạy tiếp ({again} từ bản ghi âm)"
    ),
    "OBJECT_NOT_FOUND: {count} objects had been lost before the backup was made.": (
        "OBJECT_NOT_FOUND: {count} đối tượng đã mất trước khi sao lưu."
    ),
    "SECRET_KEY is not that of the backup: its API keys and webhook secrets are not valid.": (
        "SECRET_KEY khác với của bản sao lưu: các khóa API và khóa webhook trong đó không có hiệu lực."
    ),
    "The database has schema {revision}.": "Cơ sở dữ liệu có lược đồ {revision}.",
    # models
    "writing": "đang ghi",
    "checking every value": "đang kiểm tra từng giá trị",
    "transcribing the samples": "đang nhận dạng bản ghi âm mẫu",
    "heard ({language}): {text}": "nghe được ({language}): {text}",
    "(checking)": "(đang kiểm tra)",
    "(waiting for another pull: {owner})": "(đang chờ một lượt tải khác: {owner})",
    "Interrupted. Nothing was installed.": "Đã ngắt. Chưa cài gì cả.",
    "Interrupted. What has arrived is kept; the same command continues it.": (
        "Đã ngắt. Phần đã tải được giữ lại; chạy lại lệnh này để tải tiếp."
    ),
    "No model is installed. Install one with `stt models pull base-q5_1`, for example.": (
        "Chưa cài mô hình nào. Hãy cài, ví dụ bằng `stt models pull base-q5_1`."
    ),
    "No models are installed.": "Chưa cài mô hình nào.",
    "{model}: trying {engine}": "{model}: đang thử {engine}",
    # other commands
    "No jobs.": "Không có công việc nào.",
    "No dead letters.": "Không có thư chết nào.",
    "{reopened} reopened for what is missing, {stale} stale dead letters removed.": (
        "Đã mở lại {reopened} để làm phần còn thiếu, đã xóa {stale} thư chết cũ."
    ),
    "{count} dead letters removed; their jobs stay FAILED.": (
        "Đã xóa {count} thư chết; các công việc đó vẫn ở trạng thái FAILED."
    ),
    "No keys: only requests from this machine are served, without a key.": (
        "Chưa có khóa: chỉ phục vụ yêu cầu từ máy này, không cần khóa."
    ),
    "The key is shown this once.": "Khóa chỉ được hiển thị lần này.",
    "{key} is revoked.": "Đã thu hồi {key}.",
    "The database has the newest schema.": "Cơ sở dữ liệu đã có cấu trúc mới nhất.",
    "{reason} ({variable}=1 shows where)": "{reason} ({variable}=1 cho biết vị trí lỗi)",
    "async-stt is running at {url}; uploading the samples …": (
        "async-stt đang chạy tại {url}; đang tải bản ghi mẫu lên …"
    ),
    "{audio} s of audio in {seconds} s, model {model}, confidence {confidence}": (
        "{audio} giây âm thanh trong {seconds} giây, mô hình {model}, độ tin cậy {confidence}"
    ),
    "result file: {path}": "tệp kết quả: {path}",
}
