"""The list of the packages in the image, `make sbom`."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.deploy.tools import ROOT, missing, run

TOOL = ROOT / ".venv-sbom" / "bin" / "cyclonedx-py"
LOCK = ROOT / "requirements-openvino.lock"


def test_every_package_of_the_image_is_listed_with_its_checksums(tmp_path: Path) -> None:
    if not TOOL.exists():
        missing("cyclonedx-py", "make .venv-sbom/.installed")
    recipe = (ROOT / "Makefile").read_text().partition("\nsbom:")[2].partition("\n\n")[0].replace("\\\n", " ")
    (command,) = re.findall(r"@PYTHONWARNINGS=ignore (.*)", recipe)
    output = tmp_path / "sbom.json"
    done = run(*command.replace("dist/sbom.cdx.json", str(output)).split(), cwd=ROOT)
    assert done.returncode == 0, done.stderr
    listed = json.loads(output.read_text())
    assert listed["metadata"]["component"]["name"] == "async-stt"
    found = {
        (item["name"], item["version"]): {value["content"] for value in item["externalReferences"][0]["hashes"]}
        for item in listed["components"]
    }
    locked = re.findall(r"^([\w.-]+)==(\S+)(.*?)(?=^\S|\Z)", LOCK.read_text(), re.MULTILINE | re.DOTALL)
    assert len(locked) > 50
    expected = {(name, version): set(re.findall(r"sha256:(\w{64})", rest)) for name, version, rest in locked}
    assert found == expected


def test_the_image_names_its_version_and_revision() -> None:
    labels = re.findall(r"org\.opencontainers\.image\.(\w+)", (ROOT / "deploy" / "Dockerfile").read_text())
    assert {"title", "description", "licenses", "version", "revision"} <= set(labels)
