"""Settings from the YAML file that STT_CONFIG names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic_settings import YamlConfigSettingsSource

from core.errors import SettingsError


class ConfigFile(YamlConfigSettingsSource):
    """A settings source that reads a YAML file and names the file in its errors."""

    def _read_file(self, file_path: Any) -> dict[str, Any]:
        """Read the file. Raises SettingsError if it is not a mapping of names to values."""
        try:
            data = super()._read_file(file_path)
        except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
            raise SettingsError(f"STT_CONFIG: {file_path} cannot be read: {error}") from error
        if not isinstance(data, dict):
            raise SettingsError(f"STT_CONFIG: {file_path} must contain lines of `name: value`")
        return data


def existing_file(config: str) -> Path:
    """Return the path of the file. Raises SettingsError if it does not exist."""
    path = Path(config).expanduser()
    if not path.is_file():
        raise SettingsError(f"STT_CONFIG: the file {path} does not exist")
    return path
