"""English and Vietnamese texts: every message exists in both, with the same values."""

from __future__ import annotations

import ast
import importlib
import string
from collections.abc import Iterator
from http import HTTPStatus

import pytest
from starlette.requests import Request

import internal.services.transcriptions  # noqa: F401  brings its own error in
from core import database_errors
from core.errors import InvalidFieldError, SourceNotFoundError, SttError
from core.failure_text import failure_text
from core.texts import TEXTS, VALIDATION, format_template, translate, validation_text
from core.texts_cli import CLI_TEXTS
from internal.api.dependencies import get_language
from tests.e2e.service import ROOT
from tests.error_classes import error_classes

SOURCES = ("core", "internal", "repositories", "worker")
CLASSES = {kind.__name__ for kind in error_classes()} | {"Refused", "Unreachable"}
LETTERS = set("ăâđêôơưáàảãạắằẳẵặấầẩẫậéèẻẽẹếềểễệíìỉĩịóòỏõọốồổỗộớờởỡợúùủũụứừửữựýỳỷỹỵ")


def vietnamese(text: str) -> bool:
    return bool(LETTERS & set(text.lower()))


def calls() -> Iterator[tuple[str, ast.Call]]:
    """Yield each call that creates an error; the first argument of InvalidFieldError is the field's name."""
    for folder in SOURCES:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and (isinstance(node.func, ast.Name | ast.Attribute)):
                    name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
                    if name in CLASSES:
                        yield f"{path.relative_to(ROOT)}:{node.lineno} {name}", node


def texts() -> list[tuple[str, str | None]]:
    """Return place and text of each message; None for a text built at run time, which cannot be translated."""
    entries: list[tuple[str, str | None]] = []
    for place, call in calls():
        arguments = call.args[1:] if place.endswith("InvalidFieldError") else call.args
        for argument in arguments[:1]:
            options = (argument.body, argument.orelse) if isinstance(argument, ast.IfExp) else (argument,)
            for option in options:
                if isinstance(option, ast.Constant) and isinstance(option.value, str):
                    entries.append((place, option.value))
                elif isinstance(option, ast.JoinedStr | ast.BinOp):
                    entries.append((place, None))
    return entries


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_every_raised_text_is_translated() -> None:
    """A new text is a template with values, `Error("… {limit} …", limit=5)`, and a line in core/texts.py."""
    everything = texts()
    assert len(everything) > 60
    assert [place for place, text in everything if text is None] == [], "f-strings cannot be translated"
    assert [(place, text) for place, text in everything if text is not None and text not in TEXTS] == []


@pytest.mark.parametrize(("english", "translation"), sorted([*TEXTS.items(), *CLI_TEXTS.items()]))
def test_a_translation_has_the_same_placeholders(english: str, translation: str) -> None:
    assert placeholders(translation) <= placeholders(english)
    assert vietnamese(translation) or english in ("`callback_url`: {reason}.", "`media_url`: {reason}.")


def command_texts() -> Iterator[tuple[str, list[str]]]:
    """Yield place and texts of each call in `internal/cli` that prints a message or makes a finding of `stt doctor`.

    A text may be a constant of its module.
    """
    arguments = {"say": (0,), "in_language": (0,), "table": (2,), "ok": (0,), "warning": (0, 1), "failed": (0, 1)}
    for path in (ROOT / "internal" / "cli").rglob("*.py"):
        module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
                name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
                for index in arguments.get(name, ()):
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", list(constants(node.args[index], module))


def constants(node: ast.expr, module: object) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.Name) and isinstance(value := getattr(module, node.id, None), str):
        yield value


def test_every_message_of_a_command_is_translated() -> None:
    """Findings of `stt doctor` are templates with values, `failed("{name} is …", "Do …", name=…)`."""
    everything = list(command_texts())
    assert len(everything) > 100
    known = TEXTS.keys() | CLI_TEXTS.keys()
    assert [(place, text) for place, found in everything for text in found if text not in known] == []
    assert [place for place, found in everything if not found and "/doctor/" in place and "findings" not in place] == []


def test_faults_of_databases_are_translated() -> None:
    names = [name for name in vars(database_errors) if name.isupper() and not name.startswith("_")]
    assert len(names) > 10
    assert [name for name in names if getattr(database_errors, name) not in TEXTS] == []


@pytest.mark.parametrize("kind", list(error_classes()), ids=lambda kind: kind.__name__)
def test_every_error_class_has_both_languages(kind: type[SttError]) -> None:
    assert kind.general("en") == kind.en
    assert vietnamese(kind.general("vi"))


@pytest.mark.parametrize("kind", sorted(VALIDATION))
def test_pydantic_messages_are_translated(kind: str) -> None:
    context = dict.fromkeys(placeholders(VALIDATION[kind]), 5)
    assert vietnamese(validation_text(kind, "vi", "English", context))
    assert validation_text(kind, "en", "English", context) == "English"
    assert vietnamese(validation_text(kind, "vi", "English", {}))


def test_an_unknown_field_error_is_not_shown_in_english() -> None:
    assert vietnamese(validation_text("something_new", "vi", "Something new", {}))


@pytest.mark.parametrize("status", [400, 401, 404, 405, 408, 409, 413, 422, 429, 500, 503])
def test_titles_are_translated(status: int) -> None:
    assert vietnamese(translate(HTTPStatus(status).phrase, "vi"))


def test_a_reason_within_a_message_is_translated() -> None:
    error = SourceNotFoundError("Failed to download audio file: {reason}", reason="the server did not respond in time")
    assert error.message() == "Failed to download audio file: the server did not respond in time"
    assert error.message("vi") == "Không tải được tệp âm thanh: máy chủ không trả lời kịp thời"
    translated = failure_text(error.code, error.details, str(error), "vi")
    assert translated == error.message("vi")


def test_values_are_not_treated_as_templates() -> None:
    error = InvalidFieldError(
        "priority", "`priority` {value} is unknown. Use {allowed}.", value="{allowed!r:{x}}", allowed="a"
    )
    assert error.message() == "`priority` {allowed!r:{x}} is unknown. Use a."
    assert (error.field, str(error)) == ("priority", error.message())


@pytest.mark.parametrize(
    ("code", "details", "stored"),
    [
        ("NETWORK", None, "an older row"),
        ("NETWORK", {"detail": "a text of another release", "values": {}}, "an older row"),
        ("NETWORK", {"detail": "Failed to download audio file: {reason}", "values": {}}, "an older row"),
        ("NETWORK", {}, "an older row"),
        ("A_CODE_OF_ANOTHER_RELEASE", None, "an older row"),
    ],
)
def test_stored_failures_without_a_usable_text(code: str, details: dict[str, object] | None, stored: str) -> None:
    assert vietnamese(failure_text(code, details, stored, "vi") or "")
    assert failure_text(code, details, stored, "en") in (stored, "a text of another release")


def test_a_job_without_a_failure_has_no_text() -> None:
    assert failure_text(None, None, None, "vi") is None
    assert format_template("nobody said this", "vi", {}) is None
    assert translate("nobody said this", "vi") == "nobody said this"


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("vi", "vi"),
        ("vi-VN,vi;q=0.9,en;q=0.8", "vi"),
        ("en;q=0.5, vi;q=0.9", "vi"),
        ("vi;q=0.5, en;q=0.9", "en"),
        ("fr, vi;q=0.3", "vi"),
        ("fr, en;q=0.3, vi;q=0.2", "en"),
        ("vi;q=0, en;q=0", "en"),
        ("vi;q=0", "en"),
        ("VI", "vi"),
        ("vie", "en"),
        ("vi;q=nan", "en"),
        ("vi;q=99", "en"),
        ("*", "en"),
        (";;;,,,=", "en"),
        ("x," * 100_000 + "vi", "en"),
    ],
)
def test_the_language_is_negotiated(header: str, language: str) -> None:
    assert get_language(Request({"type": "http", "headers": [(b"accept-language", header.encode())]})) == language
