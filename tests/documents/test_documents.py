"""README.md, CONTRIBUTING.md and docs/: commands run, answers have the fields shown, links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import time
from itertools import pairwise
from pathlib import Path

import pytest

from tests.clients.external_server import ExternalServer
from tests.documents import commands, elsewhere
from tests.documents.blocks import COMMANDS, DOCUMENTS, blocks
from tests.documents.replay import DEMO, NEWCOMER, Session, compare_text, copied_environment
from tests.e2e.service import ROOT, Service

pytestmark = [pytest.mark.speech, pytest.mark.timeout(300)]
NOTES = {"", "after the job has ended", "after the webhook has arrived", "webhook", DEMO, NEWCOMER}
ROUTE = re.compile(r"### (GET|POST|PUT|DELETE) (\S+) → (\d+)")
LINK = re.compile(r"\]\(([^)\s]+)\)")
FOLDERS = {path.name for path in ROOT.iterdir() if path.is_dir()}
CODE = ("core", "internal", "repositories", "worker")
MESSAGE_WORDS = 4
"""Quoted texts of so many words are messages of the program, unless they are commands."""
COMMAND_LINES = ("docker compose ", "stt ")
GENERATED = {"deploy/.env"}
PATH = re.compile(r"`([A-Za-z_.][\w.-]*/[\w./-]*)`")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_its_commands_run_and_print_what_it_shows(
    path: Path,
    embedded_service: Service,
    external_server: ExternalServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(min(seconds, 0.2)))
    monkeypatch.chdir(ROOT)
    session = Session(embedded_service, external_server, tmp_path)
    for block in blocks(path):
        try:
            session.replay(block)
        except AssertionError as error:
            raise AssertionError(f"{block.place}: {error}") from error


def test_the_demo_prints_what_the_quickstart_shows(tmp_path: Path) -> None:
    shown = [block for block in blocks(ROOT / "docs" / "quickstart.md") if block.note == DEMO]
    command = ["make", f"VENV={copied_environment(tmp_path)}", "demo"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=200)
    assert len(shown) == 1
    compare_text(shown[0].text, done.stdout)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_a_block_that_is_not_run_says_why(path: Path) -> None:
    for block in blocks(path):
        assert block.language, f"{block.place}: a block without a language"
        assert block.reason or block.note in NOTES or block.language not in COMMANDS, block.place
    for command in elsewhere.of_document(path):
        assert command.valid, (
            f"{command}: name a test that exists, or begin the reason as in {elsewhere.REASON.pattern}"
        )


def test_the_table_of_commands_is_that_of_the_documents() -> None:
    assert elsewhere.PAGE.read_text() == elsewhere.page(), "run `make docs`"


def test_targets_that_documents_name_are_those_of_the_makefile() -> None:
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {name for path in DOCUMENTS for name in re.findall(r"`make ([a-z-]+)", path.read_text())}
    assert named | set(elsewhere.TARGETS) | set(elsewhere.IN_PLACE) <= known


def test_every_route_is_documented_with_an_example(embedded_service: Service) -> None:
    schema = embedded_service.client.get("/openapi.json").json()
    routes = {
        (method.upper(), path, min(code for code in operation["responses"] if code.startswith("2")))
        for path, item in schema["paths"].items()
        for method, operation in item.items()
    }
    document = ROOT / "docs" / "api.md"
    lines = document.read_text().splitlines()
    headings = [number for number, line in enumerate(lines, 1) if line.startswith("#")] + [len(lines)]
    documented = set()
    for start, end in pairwise(headings):
        if match := ROUTE.fullmatch(lines[start - 1]):
            documented.add(match.groups())
            assert any(start < block.line < end and block.language in COMMANDS for block in blocks(document)), match[0]
    assert documented == routes


@pytest.mark.parametrize("path", [*DOCUMENTS, ROOT / "ARCHITECTURE.md"], ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for link in LINK.findall(path.read_text()):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_messages_and_log_actions_of_the_operations_page_are_in_the_code() -> None:
    code = "".join(path.read_text() for name in CODE for path in (ROOT / name).rglob("*.py"))
    quoted = re.findall(r"`([^`\n]+)`", (ROOT / "docs" / "operations.md").read_text())
    messages = {part.strip(" :") for text in quoted for part in text.split("…") if len(part.split()) >= MESSAGE_WORDS}
    messages -= {text for text in messages if text.startswith(COMMAND_LINES)}
    assert not {text for text in messages if text not in code}
    actions = {text for text in quoted if text.startswith(("webhook_", "pool_")) or text == "quarantined"}
    assert len(actions) >= 3
    assert not {text for text in actions if f'action="{text}"' not in code}


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub gives to the headings."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", [*DOCUMENTS, ROOT / "ARCHITECTURE.md"], ids=lambda path: path.name)
def test_files_that_are_named_exist(path: Path) -> None:
    names = {name for name in PATH.findall(path.read_text()) if name.split("/")[0] in FOLDERS - {".venv"}}
    assert not {name for name in names - GENERATED if not (ROOT / name).exists()}


def test_the_reference_is_that_of_the_program() -> None:
    assert commands.PAGE.read_text() == commands.page(), "run `make docs`"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 100
