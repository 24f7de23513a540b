"""Vietnamese translations of messages about installing models, see `core/texts.py`."""

MODEL_TEXTS = {
    "{name} is in MODELS of a worker, which would install it again.": (
        "{name} có trong MODELS của một máy xử lý nên sẽ được cài lại."
    ),
    "No worker has the model {value}.": "Không máy xử lý nào có mô hình {value}.",
    "No worker has the model {value}. Install it with `stt models pull {name}`, or use one of: {allowed}.": (
        "Không máy xử lý nào có mô hình {value}. Hãy cài bằng `stt models pull {name}`, hoặc dùng: {allowed}."
    ),
    "The model is being installed; the job waits for it.": "Mô hình đang được cài; công việc sẽ chờ đến khi cài xong.",
    "{value} is not OWNER/REPO:FILE.": "{value} không có dạng OWNER/REPO:FILE.",
    "{value} is neither a name of `stt models list` nor OWNER/REPO:FILE.": (
        "{value} không phải là tên trong `stt models list`, cũng không có dạng OWNER/REPO:FILE."
    ),
    "{value} is not published as a ggml file: use `stt models import {repository}`.": (
        "{value} không được phát hành dưới dạng ggml: hãy dùng `stt models import {repository}`."
    ),
    "The model {value} of the table keeps its name.": "Mô hình {value} trong bảng giữ nguyên tên của nó.",
    "The hub redirects too often.": "Kho mô hình chuyển hướng quá nhiều lần.",
    "The hub redirects to an address that is not https, or that contains a password: {value}.": (
        "Kho mô hình chuyển hướng tới địa chỉ không phải https hoặc có chứa mật khẩu: {value}."
    ),
    "The hub redirects into the local network: {value}. Set HF_ENDPOINT if this is a mirror of yours.": (
        "Kho mô hình chuyển hướng vào mạng nội bộ: {value}. Nếu đó là máy chủ bản sao của bạn, hãy đặt HF_ENDPOINT."
    ),
    "The hub requires a token for {file}, or it does not exist. Check the name and set HF_TOKEN.": (
        "Kho mô hình yêu cầu token cho {file}, hoặc tệp không tồn tại. Hãy kiểm tra tên và đặt HF_TOKEN."
    ),
    "The hub denies access to {file}. Accept the model's conditions on its page, and set HF_TOKEN.": (
        "Kho mô hình từ chối truy cập {file}. Hãy chấp nhận điều kiện trên trang của mô hình và đặt HF_TOKEN."
    ),
    "The hub has no file {file}.": "Kho mô hình không có tệp {file}.",
    "The address of the file has expired (status {status}).": "Địa chỉ của tệp đã hết hạn (mã {status}).",
    "The hub responds with status {status}.": "Kho mô hình trả lời mã {status}.",
    "The hub responds to {file} with status {status}.": "Với {file}, kho mô hình trả lời mã {status}.",
    "The hub sends {file} compressed although this was not requested.": (
        "Kho mô hình gửi {file} ở dạng nén dù không được yêu cầu."
    ),
    "No trusted TLS connection to the hub could be made. Check SSL_CERT_FILE.": (
        "Không thiết lập được kết nối TLS đáng tin cậy tới kho mô hình. Hãy kiểm tra SSL_CERT_FILE."
    ),
    "The hub sends no more data.": "Kho mô hình không gửi thêm dữ liệu.",
    "The hub sends data too slowly.": "Kho mô hình gửi dữ liệu quá chậm.",
    "The hub closed the connection.": "Kho mô hình đã đóng kết nối.",
    "The hub sent {received} of {expected} bytes.": "Kho mô hình đã gửi {received}/{expected} byte.",
    "The hub sent another part of the file than requested.": "Kho mô hình gửi một phần khác của tệp so với yêu cầu.",
    "The hub's response is not the file {file}.": "Phản hồi của kho mô hình không phải là tệp {file}.",
    "The disk of the models folder has {free} MB free; {name} needs {needed} MB.": (
        "Đĩa chứa thư mục mô hình còn trống {free} MB; {name} cần {needed} MB."
    ),
    "{name} is longer than {expected} bytes.": "{name} dài hơn {expected} byte.",
    "{name} has {received} bytes, expected {expected}.": "{name} có {received} byte, trong khi cần {expected} byte.",
    "{name} has the {algorithm} checksum {received}, expected {expected}.": (
        "{name} có mã kiểm tra {algorithm} là {received}, trong khi cần {expected}."
    ),
    "{name} is not a ggml model.": "{name} không phải là mô hình ggml.",
    "{name} was not written by `stt models pull`. Remove it by hand.": (
        "{name} không do `stt models pull` ghi. Hãy tự xóa tệp."
    ),
    "The model {name} is not installed in {folder}.": "Mô hình {name} chưa được cài trong {folder}.",
    "The name {name} is taken by a file from {source}. Remove it, or pull with another name.": (
        "Tên {name} đã được dùng cho một tệp từ {source}. Hãy xóa tệp đó, hoặc tải với tên khác."
    ),
    "{path} ({received} bytes) is not the published {name} ({expected} bytes). Move it away, then pull again.": (
        "{path} ({received} byte) không phải là {name} đã phát hành ({expected} byte). Hãy dời tệp đi rồi tải lại."
    ),
    "{path} is not a file. Move it away, then pull again.": "{path} không phải là tệp. Hãy dời nó đi rồi tải lại.",
    "{folder} cannot be written ({reason}). Check MODELS_DIR and its permissions.": (
        "Không ghi được vào {folder} ({reason}). Hãy kiểm tra MODELS_DIR và quyền truy cập."
    ),
}
