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


class ModelUnsupportedError(ModelFileError):
    code = "MODEL_UNSUPPORTED"
    en = "The model is in a format or of a kind that is not supported. docs/models.md lists those that are."
    vi = "Định dạng hoặc loại mô hình này không được hỗ trợ. docs/models.md liệt kê những loại được hỗ trợ."
