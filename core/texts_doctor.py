"""Vietnamese translations of the findings of `stt doctor`, and of the faults of databases; see `core/texts.py`."""

DOCTOR_TEXTS = {
    "the check broke: {reason}": "bước kiểm tra gặp lỗi: {reason}",
    "See the log of the service.": "Hãy xem nhật ký của dịch vụ.",
    "no result within {seconds} s": "không có kết quả trong {seconds} giây",
    "Check the load of the machine.": "Hãy kiểm tra tải của máy.",
    "it cannot be used: {reason}": "không dùng được: {reason}",
    "{name} cannot be used: {reason}": "không dùng được {name}: {reason}",
    # programs
    "it does not start: {reason}": "không khởi động được: {reason}",
    "Install the package imageio-ffmpeg again, or ffmpeg itself.": "Hãy cài lại gói imageio-ffmpeg, hoặc chính ffmpeg.",
    "starts: {version}": "khởi động được: {version}",
    "Remove or replace {path}.": "Hãy xóa hoặc thay {path}.",
    "no model in {folder}": "không có mô hình nào trong {folder}",
    "`stt models pull` gets one; see docs/models.md.": "Hãy tải bằng `stt models pull`; xem docs/models.md.",
    "DEFAULT_MODEL={name} is not installed": "DEFAULT_MODEL={name} chưa được cài",
    "only the demo model, which knows the sentences of two small grammars": (
        "chỉ có mô hình thử, vốn chỉ biết các câu của hai bộ ngữ pháp nhỏ"
    ),
    "{names}; default: {name}": "{names}; mặc định: {name}",
    "not tried without a model": "chưa thử vì không có mô hình",
    "Check ENGINE and that its libraries are installed.": "Hãy kiểm tra ENGINE và các thư viện của nó.",
    "{engine} failed: {reason}": "{engine} bị lỗi: {reason}",
    "Set ENGINE=whisper_cpp_wheel, or build the engine again with `make engine`.": (
        "Hãy đặt ENGINE=whisper_cpp_wheel, hoặc dựng lại bằng `make engine`."
    ),
    "{engine}; {model}: {audio} s of audio in {cpu} s of CPU time": (
        "{engine}; {model}: {audio} giây âm thanh trong {cpu} giây CPU"
    ),
    # stores
    "SQLite, {file}, which the first start makes": "SQLite, {file}, sẽ được tạo ở lần khởi động đầu",
    "Check DATABASE_URL and the server.": "Hãy kiểm tra DATABASE_URL và máy chủ.",
    "the schema {current} is newer than this program ({newest})": (
        "cấu trúc {current} mới hơn chương trình này ({newest})"
    ),
    "Update the program.": "Hãy cập nhật chương trình.",
    "{kind}: it has no tables": "{kind}: chưa có bảng nào",
    "{kind}: the schema is {current}, not {newest}": "{kind}: cấu trúc là {current}, không phải {newest}",
    "Run `stt migrate`.": "Hãy chạy `stt migrate`.",
    "{kind}, schema {newest}": "{kind}, cấu trúc {newest}",
    "in memory, inside the service": "trong bộ nhớ, bên trong dịch vụ",
    "RabbitMQ cannot be used: {reason}": "không dùng được RabbitMQ: {reason}",
    "Check RABBITMQ_URL and the server.": "Hãy kiểm tra RABBITMQ_URL và máy chủ.",
    "a setting is wrong: {reason}": "một thiết lập bị sai: {reason}",
    "Follow the message.": "Hãy làm theo thông báo.",
    "RabbitMQ, queues {queues}": "RabbitMQ, các hàng đợi {queues}",
    "{place}, which the first start makes": "{place}, sẽ được tạo ở lần khởi động đầu",
    "Check STORAGE, the MINIO_ settings, and the permissions.": (
        "Hãy kiểm tra STORAGE, các thiết lập MINIO_ và quyền truy cập."
    ),
    "{place}: what was read differs from what was written": "{place}: dữ liệu đọc ra khác dữ liệu đã ghi",
    "Check the disk or the server.": "Hãy kiểm tra đĩa hoặc máy chủ.",
    "{place}: {count} of {total} objects of the newest jobs are missing, such as {key}": (
        "{place}: thiếu {count}/{total} đối tượng của các công việc mới nhất, chẳng hạn {key}"
    ),
    "Bring the objects back with `stt restore`, or from a copy of the bucket.": (
        "Hãy khôi phục các đối tượng bằng `stt restore`, hoặc từ một bản sao của bucket."
    ),
    "{place}: written, read and deleted": "{place}: đã ghi, đọc và xóa thử",
    "not known without the database": "không biết được khi thiếu cơ sở dữ liệu",
    "See the line of the database.": "Hãy xem dòng của cơ sở dữ liệu.",
    "no key: other machines are refused": "chưa có khóa: máy khác bị từ chối",
    "Run `stt keys create`, or set API_KEY.": "Hãy chạy `stt keys create`, hoặc đặt API_KEY.",
    "ALLOW_ANONYMOUS serves everybody who reaches the port": "ALLOW_ANONYMOUS phục vụ mọi người tới được cổng này",
    "Run `stt keys create` instead.": "Hãy dùng `stt keys create` thay vào đó.",
    "no keys: only this machine is served": "chưa có khóa: chỉ phục vụ máy này",
    "{count} keys": "{count} khóa",
    # machine
    "none runs on {folder}": "chưa có dịch vụ nào chạy trên {folder}",
    "{url} does not answer: {reason}": "{url} không trả lời: {reason}",
    "See its log; its process is {pid}.": "Hãy xem nhật ký của nó; tiến trình là {pid}.",
    "{url} is unhealthy: {faults}": "{url} đang có sự cố: {faults}",
    "See docs/operations.md.": "Hãy xem docs/operations.md.",
    "runs at {url}": "đang chạy tại {url}",
    "{name} is that of the running service": "{name} là của dịch vụ đang chạy",
    "Set API_PORT, or stop the other program.": "Hãy đặt API_PORT, hoặc dừng chương trình kia.",
    "{name} is free": "{name} còn trống",
    "the database was written in the future": "cơ sở dữ liệu được ghi ở thời điểm tương lai",
    "Check the date; was the clock set back?": "Hãy kiểm tra ngày giờ; đồng hồ có bị chỉnh lùi không?",
    "the time here is {time}": "giờ ở đây là {time}",
    "not compared without the database": "không so sánh được khi thiếu cơ sở dữ liệu",
    "{skew} s from the database's clock": "lệch {skew} giây so với đồng hồ của cơ sở dữ liệu",
    "Synchronise both machines (NTP).": "Hãy đồng bộ giờ của hai máy (NTP).",
    "{free} GB free": "còn trống {free} GB",
    "{processes} processes × {model} ({size} GB × {factor}) = {needed} GB, {free} GB free": (
        "{processes} tiến trình × {model} ({size} GB × {factor}) = {needed} GB, còn trống {free} GB"
    ),
    "Lower WORKER_CONCURRENCY, or use a smaller or quantised model.": (
        "Hãy giảm WORKER_CONCURRENCY, hoặc dùng mô hình nhỏ hơn hay đã lượng tử hóa."
    ),
    "Check its permissions and free space, or set DATA_DIR or TEMP_DIR.": (
        "Hãy kiểm tra quyền và chỗ trống, hoặc đặt DATA_DIR hay TEMP_DIR."
    ),
    "{folder}: {free} MB free": "{folder}: còn trống {free} MB",
    "Free some space.": "Hãy giải phóng bớt chỗ.",
    "{folder}: {free} GB free": "{folder}: còn trống {free} GB",
    "An hour of audio needs 115 MB while it runs.": "Một giờ âm thanh cần 115 MB trong lúc xử lý.",
    "free: {folders}": "còn trống: {folders}",
    "{names} can be read by other users": "người dùng khác đọc được {names}",
    "Run `chmod -R go= {folder}`.": "Hãy chạy `chmod -R go= {folder}`.",
    "nothing is there yet": "chưa có gì ở đó",
    "{folder} is private": "chỉ chủ sở hữu truy cập được {folder}",
    # databases
    "unreachable: start the server, and check host and port in DATABASE_URL": (
        "không kết nối được: hãy khởi động máy chủ, kiểm tra máy và cổng trong DATABASE_URL"
    ),
    "timed out: check the server's load, its locks and the network": (
        "quá thời gian chờ: hãy kiểm tra tải của máy chủ, các khóa của nó và mạng"
    ),
    "connection pool exhausted: all connections are in use; check for slow statements and locks": (
        "hết kết nối: mọi kết nối đều đang dùng; hãy tìm câu lệnh chậm và các khóa"
    ),
    "wrong user or password: check DATABASE_URL": "sai tên hoặc mật khẩu: hãy kiểm tra DATABASE_URL",
    "no such database: create it, or check the name in DATABASE_URL": (
        "không có cơ sở dữ liệu này: hãy tạo nó, hoặc kiểm tra tên trong DATABASE_URL"
    ),
    "the server has too many connections: raise its max_connections, or run fewer processes": (
        "máy chủ có quá nhiều kết nối: hãy tăng max_connections, hoặc chạy ít tiến trình hơn"
    ),
    "the server is starting or stopping: wait, or check its log": (
        "máy chủ đang khởi động hoặc đang dừng: hãy chờ, hoặc xem nhật ký của nó"
    ),
    "its disk is full: free some space": "đĩa đã đầy: hãy giải phóng bớt chỗ",
    "read-only: check the file's permissions, or if the server is a standby": (
        "chỉ đọc được: hãy kiểm tra quyền của tệp, hoặc xem máy chủ có phải là bản dự phòng"
    ),
    "locked by another process: check which process has the file open": (
        "bị tiến trình khác khóa: hãy kiểm tra tiến trình nào đang mở tệp"
    ),
    "the file is damaged or not a database: restore a backup": (
        "tệp bị hỏng hoặc không phải cơ sở dữ liệu: hãy khôi phục bản sao lưu"
    ),
    "the file cannot be opened: check DATA_DIR, DATABASE_URL and the file's permissions": (
        "không mở được tệp: hãy kiểm tra DATA_DIR, DATABASE_URL và quyền của tệp"
    ),
    "no schema, run `make migrate`": "chưa có bảng, hãy chạy `make migrate`",
    "its schema is of another version, run `make migrate`": "cấu trúc thuộc phiên bản khác, hãy chạy `make migrate`",
    "permission denied: grant the user access to the tables": (
        "bị từ chối: hãy cấp cho người dùng quyền truy cập các bảng"
    ),
    "unknown error: check the log": "lỗi không rõ: hãy xem nhật ký",
}
