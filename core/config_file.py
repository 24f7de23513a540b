"""The YAML file that STT_CONFIG names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic_settings import YamlConfigSettingsSource

from core.errors import SettingsError


class ConfigFile(YamlConfigSettingsSource):
    def _read_file(self, file_path: Any) -> dict[str, Any]:
        """Raises SettingsError where the file is no mapping of names to values."""
        try:
            data = super()._read_file(file_path)
        except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
            raise SettingsError(f"STT_CONFIG: {file_path} cannot be read: {error}") from error
        if not isinstance(data, dict):
            raise SettingsError(f"STT_CONFIG: {file_path} has to be lines of `name: value`")
        return data


def existing_file(config: str) -> Path:
    """Raises SettingsError where there is no such file."""
    path = Path(config).expanduser()
    if not path.is_file():
        raise SettingsError(f"STT_CONFIG: there is no file {path}")
    return path
