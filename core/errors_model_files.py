"""Errors of model files: when they are loaded, checked, imported and quantised."""

from __future__ import annotations

from core.error_base import SttError


class ModelFileError(SttError):
    """Base of the errors of model files that are there but cannot be used."""

    http_status = 422


class ModelDamagedError(ModelFileError):
    code = "MODEL_DAMAGED"
    en = "The model file is incomplete or damaged. Delete it and get it again."
    vi = "Tệp mô hình không đầy đủ hoặc bị hỏng. Hãy xóa tệp rồi tải lại."


class ModelUnusableError(ModelFileError):
    code = "MODEL_UNUSABLE"
    en = "The model did not transcribe the sample recordings, so it is not offered."
    vi = "Mô hình không nhận dạng được bản ghi âm mẫu nên không được đưa vào sử dụng."


class ModelExistsError(ModelFileError):
    code, http_status = "MODEL_EXISTS", 409
    en = "A model of this name exists already. Use another name, or replace it explicitly."
    vi = "Đã có mô hình tên này. Hãy dùng tên khác hoặc yêu cầu thay thế."


class ModelLockedError(ModelFileError):
    code, http_status = "MODEL_LOCKED", 409
    en = "Another process is writing a model of this name. Wait for it."
    vi = "Một tiến trình khác đang ghi mô hình tên này. Hãy chờ tiến trình đó."


class ModelUnsupportedError(ModelFileError):
    code = "MODEL_UNSUPPORTED"
    en = "The model is in a format or of a kind that is not supported. docs/models.md lists those that are."
    vi = "Định dạng hoặc loại mô hình này không được hỗ trợ. docs/models.md liệt kê những loại được hỗ trợ."
