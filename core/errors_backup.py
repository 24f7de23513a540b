"""Errors of `stt backup` and `stt restore`."""

from __future__ import annotations

from core.error_base import Kind, SttError
from core.errors_command import UsageError


class BackupKeyNeededError(UsageError):
    code = "BACKUP_KEY_NEEDED"
    en = (
        "A backup is encrypted with a key of at least 16 characters: STT_BACKUP_KEY, or --key-file. "
        "Make one with `openssl rand -hex 32`."
    )
    vi = (
        "Bản sao lưu được mã hóa bằng một khóa có ít nhất 16 ký tự: STT_BACKUP_KEY hoặc --key-file. "
        "Hãy tạo khóa bằng `openssl rand -hex 32`."
    )


class BackupKeyWrongError(UsageError):
    code = "BACKUP_KEY_WRONG"
    en = "The key is not that of this folder of backups."
    vi = "Khóa này không phải là khóa của thư mục sao lưu."


class BackupNotFoundError(UsageError):
    code = "BACKUP_NOT_FOUND"
    en = "The folder has no finished backup of this name. `stt restore FOLDER --list` lists all."
    vi = "Thư mục không có bản sao lưu hoàn chỉnh nào có tên này. `stt restore FOLDER --list` liệt kê tất cả."


class BackupDamagedError(SttError):
    """A file of the backup is not what was written. Nothing was restored from it."""

    code = "BACKUP_DAMAGED"
    en = "The backup is damaged. Use another one."
    vi = "Bản sao lưu bị hỏng. Hãy dùng bản khác."


class BackupIncompleteError(SttError):
    """The folder lacks a file that the backup refers to."""

    code = "BACKUP_INCOMPLETE"
    en = "The backup lacks a file. Copy the whole folder again, or use another backup."
    vi = "Bản sao lưu thiếu tệp. Hãy sao chép lại cả thư mục, hoặc dùng bản khác."


class BackupFolderError(SttError):
    code = "BACKUP_FOLDER"
    en = "The folder of backups cannot be used."
    vi = "Không dùng được thư mục sao lưu."


class BackupDiskFullError(SttError):
    code = "BACKUP_DISK_FULL"
    en = "The disk of the backups is full. Make room and run the command again: it continues."
    vi = "Đĩa chứa bản sao lưu đã đầy. Hãy giải phóng chỗ rồi chạy lại lệnh: việc sao lưu sẽ tiếp tục."


class BackupBusyError(SttError):
    code, http_status = "BACKUP_BUSY", 409
    en = "Another stt backup or restore uses this folder. Wait until it has ended."
    vi = "Một lệnh sao lưu hoặc khôi phục khác đang dùng thư mục này. Hãy chờ lệnh đó kết thúc."


class BackupVersionError(SttError):
    code = "BACKUP_VERSION"
    en = "The backup was made by a newer version of async-stt. Update this program."
    vi = "Bản sao lưu do phiên bản async-stt mới hơn tạo ra. Hãy cập nhật chương trình này."


class DatabaseNotEmptyError(UsageError):
    code = "DATABASE_NOT_EMPTY"
    en = "The database has rows, which a restore would delete. --replace allows it."
    vi = "Cơ sở dữ liệu đã có dữ liệu, và việc khôi phục sẽ xóa chúng. --replace cho phép điều đó."


class ServiceRunningError(SttError):
    kind, http_status = Kind.USAGE, 409
    code = "SERVICE_RUNNING"
    en = "The service runs on this database or DATA_DIR. Stop all its processes first."
    vi = "Dịch vụ đang chạy trên cơ sở dữ liệu hoặc DATA_DIR này. Hãy dừng mọi tiến trình của nó trước."
