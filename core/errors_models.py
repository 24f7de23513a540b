"""Errors of installing, checking and removing model files."""

from __future__ import annotations

from typing import ClassVar

from core.error_base import Kind
from core.errors import RequestError


class ModelStoreError(RequestError):
    """Base of these errors. transient: a later attempt may succeed without anybody's help."""

    http_status = 502
    transient: ClassVar[bool] = False


class ModelNameError(ModelStoreError):
    kind, code, http_status = Kind.USAGE, "MODEL_NAME_INVALID", 422
    en = "This is neither a name of `stt models list` nor OWNER/REPO:FILE."
    vi = "Đây không phải là tên trong `stt models list`, cũng không có dạng OWNER/REPO:FILE."
    field = "model"


class ModelNotInstalledError(ModelStoreError):
    code, http_status = "MODEL_NOT_INSTALLED", 404
    en = "The model is not installed. `stt models list` shows the models, `stt models pull` installs one."
    vi = "Mô hình chưa được cài. `stt models list` liệt kê các mô hình, `stt models pull` cài một mô hình."


class TransientHubError(ModelStoreError):
    """Base of the errors that a later attempt may not meet. What has arrived is kept."""

    kind, http_status, transient = Kind.INFRASTRUCTURE, 503, True


class HubUnreachableError(TransientHubError):
    code = "HUB_UNREACHABLE"
    en = "The model hub cannot be reached. Check network, proxy variables and HF_ENDPOINT, or copy the file by hand."
    vi = "Không kết nối được tới kho mô hình. Hãy kiểm tra mạng, các biến proxy và HF_ENDPOINT, hoặc tự chép tệp."


class HubBusyError(TransientHubError):
    code = "HUB_BUSY"
    en = "The model hub is overloaded or limits requests. Try again later; what has arrived is kept."
    vi = "Kho mô hình đang quá tải hoặc giới hạn yêu cầu. Hãy thử lại sau; phần đã tải được giữ lại."


class HubInterruptedError(TransientHubError):
    code = "HUB_INTERRUPTED"
    en = "The download was interrupted. Run it again; it continues where it stopped."
    vi = "Việc tải bị gián đoạn. Hãy chạy lại; việc tải sẽ tiếp tục từ chỗ đã dừng."


class PullStoppedError(TransientHubError):
    code = "PULL_STOPPED"
    en = "The download was stopped. Run it again; it continues where it stopped."
    vi = "Việc tải đã bị dừng. Hãy chạy lại; việc tải sẽ tiếp tục từ chỗ đã dừng."


class PullLockLostError(TransientHubError):
    code = "PULL_LOCK_LOST"
    en = "Another process took over the lock of the models folder. Run it again."
    vi = "Một tiến trình khác đã chiếm khóa của thư mục mô hình. Hãy chạy lại."


class HubUnauthorizedError(ModelStoreError):
    code, http_status = "HUB_UNAUTHORIZED", 403
    en = "The hub requires a token for this model, or it does not exist. Check the name and set HF_TOKEN."
    vi = (
        "Kho mô hình yêu cầu token, hoặc mô hình không tồn tại. Hãy kiểm tra tên và đặt HF_TOKEN bằng một token hợp lệ."
    )


class HubForbiddenError(ModelStoreError):
    code, http_status = "HUB_FORBIDDEN", 403
    en = (
        "The hub denies access. Accept the model's conditions on its page, and set HF_TOKEN to a token of that account."
    )
    vi = (
        "Kho mô hình từ chối truy cập. Hãy chấp nhận điều kiện trên trang của mô hình và đặt HF_TOKEN bằng token của "
        "tài khoản đó."
    )


class HubNotFoundError(ModelStoreError):
    code = "HUB_NOT_FOUND"
    en = "The hub has no such file. Check owner, repository, revision and file name."
    vi = "Kho mô hình không có tệp này. Hãy kiểm tra tên chủ sở hữu, kho, phiên bản và tên tệp."


class HubRedirectError(ModelStoreError):
    code = "HUB_REDIRECT"
    en = "The hub redirects to an address that is not allowed. Check HF_ENDPOINT and the proxy."
    vi = "Kho mô hình chuyển hướng tới địa chỉ không được phép. Hãy kiểm tra HF_ENDPOINT và proxy."


class HubAnswerError(ModelStoreError):
    code = "HUB_ANSWER_INVALID"
    en = "The hub's response is not the file. Check HF_ENDPOINT and the proxy."
    vi = "Phản hồi của kho mô hình không phải là tệp cần tải. Hãy kiểm tra HF_ENDPOINT và proxy."


class ModelSizeError(ModelStoreError):
    code = "MODEL_SIZE_MISMATCH"
    en = "The file does not have the expected length."
    vi = "Tệp không có độ dài như mong đợi."


class ModelChecksumError(ModelStoreError):
    code = "MODEL_CHECKSUM_MISMATCH"
    en = "The file does not have the expected checksum."
    vi = "Tệp không có mã kiểm tra như mong đợi."


class NotAModelError(ModelStoreError):
    code = "MODEL_FORMAT_INVALID"
    en = "The file is not a ggml model. Other formats are installed with `stt models import`."
    vi = "Tệp không phải là mô hình ggml. Các định dạng khác được cài bằng `stt models import`."


class FileInTheWayError(ModelStoreError):
    code, http_status = "MODEL_FILE_IN_THE_WAY", 409
    en = "A file that `stt models pull` did not write has the model's name. Move it away, then pull again."
    vi = "Có một tệp trùng tên mô hình nhưng không do `stt models pull` ghi. Hãy dời tệp đó đi rồi tải lại."


class ModelNotManagedError(ModelStoreError):
    code, http_status = "MODEL_NOT_MANAGED", 409
    en = "The file was not written by `stt models pull`. Remove it by hand."
    vi = "Tệp không do `stt models pull` ghi. Hãy tự xóa tệp."


class ModelConfiguredError(ModelStoreError):
    code, http_status = "MODEL_CONFIGURED", 409
    en = "The model is in MODELS of a worker, which would install it again. Take it out of MODELS first."
    vi = "Mô hình có trong MODELS của một máy xử lý nên sẽ được cài lại. Hãy bỏ nó khỏi MODELS trước."


class ModelsFolderError(ModelStoreError):
    code, http_status = "MODELS_DIR_NOT_WRITABLE", 503
    en = "The models folder cannot be written. Check MODELS_DIR and its permissions."
    vi = "Không ghi được vào thư mục mô hình. Hãy kiểm tra MODELS_DIR và quyền truy cập."


class ModelDiskFullError(ModelStoreError):
    code, http_status = "MODEL_DISK_FULL", 507
    en = "The disk of the models folder is too full. Free space, then pull again."
    vi = "Đĩa chứa thư mục mô hình không đủ chỗ. Hãy giải phóng dung lượng rồi tải lại."


class AdminOnlyError(RequestError):
    code, http_status = "ADMIN_ONLY", 403
    en = "Only the operator may change models: use the key of API_KEY, or `stt models` on the machine."
    vi = "Chỉ người vận hành được thay đổi mô hình: hãy dùng khóa API_KEY, hoặc lệnh `stt models` trên máy chủ."
