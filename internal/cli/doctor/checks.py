"""All checks of `stt doctor`, in the order in which they are printed."""

from __future__ import annotations

from internal.cli.doctor import machine, programs, stores
from internal.cli.doctor.findings import Check

CHECKS = (
    Check("ffmpeg", "ffmpeg", programs.ffmpeg),
    Check("models", "mô hình", programs.models, seconds=60),
    Check("engine", "bộ nhận dạng", programs.engine, seconds=180),
    Check("database", "cơ sở dữ liệu", stores.database),
    Check("broker", "hàng đợi", stores.broker),
    Check("storage", "kho lưu trữ", stores.storage),
    Check("keys", "khóa", stores.keys),
    Check("service", "dịch vụ", machine.service),
    Check("port", "cổng", machine.port),
    Check("clock", "đồng hồ", machine.clock),
    Check("memory", "bộ nhớ", machine.memory),
    Check("disk", "đĩa", machine.disk),
    Check("permissions", "quyền truy cập", machine.permissions),
)
