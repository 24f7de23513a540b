"""Rules of the code base: layout, size of files and functions, lock files, compose."""

from __future__ import annotations

import ast
import importlib.metadata
import statistics
import subprocess
from pathlib import Path

import pytest
import yaml

from core.config import Settings

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("core", "internal", "repositories", "worker", "cmd")
TOP = {"cmd", "internal", "core", "repositories", "worker", "migrations", "deploy", "tests", "assets", "docs", ".ci"}


def sources() -> list[Path]:
    return [path for name in SOURCES for path in (ROOT / name).rglob("*.py")]


def test_cmd_is_not_a_package() -> None:
    assert not list((ROOT / "cmd").rglob("__init__.py")), "it would shadow the standard library's cmd"


@pytest.mark.parametrize("path", sorted((ROOT / "cmd").glob("*/main.py")), ids=lambda path: path.parent.name)
def test_cmd_is_thin_and_imports_only_internal(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 20
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            modules.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.Import):
            modules |= {alias.name.split(".")[0] for alias in node.names}
    assert modules <= {"sys", "pathlib", "internal"}


def test_files_are_short() -> None:
    long_files = {str(path): count for path in sources() if (count := len(path.read_text().splitlines())) > 400}
    assert not long_files


def test_functions_are_short() -> None:
    lengths = sorted(
        (node.end_lineno or 0) - node.lineno + 1
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    assert statistics.median(lengths) <= 10
    assert lengths[len(lengths) * 9 // 10] <= 35


def test_repositories_build_no_api_urls() -> None:
    assert not [path for path in (ROOT / "repositories").rglob("*.py") if "/api/" in path.read_text()]


def test_there_are_no_other_top_level_folders() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    folders = {line.split("/")[0] for line in listed.stdout.splitlines() if "/" in line}
    assert folders <= TOP


def test_no_dependency_uses_our_package_names() -> None:
    owners = importlib.metadata.packages_distributions()
    for name in ("core", "internal", "repositories", "worker", "migrations"):
        assert set(owners.get(name, ["async-stt"])) == {"async-stt"}, name


def test_lock_files_name_no_registry() -> None:
    for path in ROOT.glob("requirements*.lock"):
        text = path.read_text()
        assert "--hash=sha256:" in text
        assert "://" not in text
        assert "index-url" not in text


def compose() -> dict[str, object]:
    data: dict[str, object] = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
    return data


def services() -> dict[str, dict[str, object]]:
    containers = compose()["services"]
    assert isinstance(containers, dict)
    return containers


def test_compose_has_every_service() -> None:
    ours, stores = {"migrate", "api", "consumer", "scheduler"}, {"postgres", "rabbitmq", "minio"}
    assert set(services()) == ours | stores | {"prometheus", "alertmanager", "grafana", "proxy"}


def test_compose_publishes_on_loopback_only() -> None:
    ports = [port for service in services().values() for port in service.get("ports", [])]  # type: ignore[attr-defined]
    assert ports
    # the proxy's address is that of TLS_ADDRESS, if it is set
    assert all(str(port).startswith(("127.0.0.1:", "${TLS_ADDRESS:-127.0.0.1}:")) for port in ports)


def test_compose_uses_settings_that_exist() -> None:
    settings = {name.upper() for name in Settings.model_fields}
    for name in ("migrate", "api", "consumer", "scheduler"):
        environment = services()[name]["environment"]
        assert isinstance(environment, dict)
        assert set(environment) <= settings


def test_compose_contains_no_password() -> None:
    text = (ROOT / "deploy" / "compose.yaml").read_text()
    assert text.count("${POSTGRES_PASSWORD:?") == 2
    assert text.count("${MINIO_SECRET_KEY:?") == 2
    assert text.count("${RABBITMQ_PASSWORD:?") == 2


def test_compose_enables_the_rabbitmq_plugins() -> None:
    assert "./rabbitmq-plugins:/etc/rabbitmq/enabled_plugins:ro" in str(services()["rabbitmq"]["volumes"])
    plugins = (ROOT / "deploy" / "rabbitmq-plugins").read_text()
    assert all(name in plugins for name in ("rabbitmq_management", "rabbitmq_shovel", "rabbitmq_shovel_management"))
