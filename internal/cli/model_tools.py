"""`stt models import` and `stt models quantize`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from internal.cli import output
from internal.cli.exits import ExitStatus
from internal.cli.parameters import AsJson, examples

if TYPE_CHECKING:
    from core.config import Settings
    from worker.model_tools import Report
    from worker.model_tools.installation import Installed

Replace = Annotated[bool, typer.Option("--replace", help="Replace a model of this name.")]
Name = Annotated[str | None, typer.Option("--as", metavar="NAME", help="Name of the new model.")]
TEXTS = {"writing": "writing", "checking": "checking every value", "trying": "transcribing the samples"}


def add_to(app: typer.Typer) -> None:
    """Add the commands to the group."""
    imports = examples(
        ("stt models import ~/PhoWhisper-small", "a fine-tuned Whisper in Hugging Face's format"),
        ("stt models import ~/faster-whisper-medium --keep", "as it is, for the OpenVINO engine"),
        ("stt models import ~/ggml-model.bin --as mine", "a file, by another name"),
    )
    app.command("import", epilog=imports)(import_)
    quantisations = examples(
        ("stt models quantize PhoWhisper-small", "makes PhoWhisper-small-q5_0"),
        ("stt models quantize ~/ggml-large.bin q8_0 --as large-mine", "a file, by another name"),
    )
    app.command("quantize", epilog=quantisations)(quantize)


def import_(
    source: Annotated[Path, typer.Argument(metavar="PATH", help="A ggml file, or a folder of one of the formats.")],
    name: Name = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep a CTranslate2 folder as it is, for the OpenVINO engine.")
    ] = False,
    replace: Replace = False,
    as_json: AsJson = False,
) -> None:
    """Install a model that is on this machine, and print its name.

    Formats: a ggml file; a folder of Hugging Face's with config.json, vocab.json and model.safetensors, such as a
    fine-tuned Whisper; a folder of CTranslate2, such as faster-whisper's. Folders become a ggml file of 16 bits. The
    model is offered to jobs once all its values were read and it has transcribed the sample recordings.
    """
    from worker.model_tools.importing import import_model

    folder = _settings().models_dir
    with shown(source.name) as report, _interruptible():
        made = import_model(source, folder, name, report, keep=keep, replace=replace)
    _print(made, f"import of {source.resolve()}", as_json)


def quantize(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="An installed model, or a ggml file of 16 or 32 bits.")],
    kind: Annotated[str, typer.Argument(metavar="TYPE", help="q4_k, q5_0, q8_0, or another type of ggml.")] = "q5_0",
    name: Name = None,
    replace: Replace = False,
    as_json: AsJson = False,
) -> None:
    """Make a smaller and faster copy of a model, and print its name: that of the model and the type.

    The error of each matrix is checked, and the copy has to transcribe the sample recordings.
    """
    from worker.model_tools.quantising import quantise
    from worker.models import ModelCatalogue

    settings = _settings()
    source = Path(model)
    if not source.is_file():
        source = ModelCatalogue(settings.model_dirs).path(model)
    with shown(model) as report, _interruptible():
        made = quantise(source, settings.models_dir, kind, name, report, replace=replace)
    _print(made, f"{kind} of {source.resolve()}", as_json)


def _settings() -> Settings:
    import logging

    from internal.process import settings_or_exit

    settings = settings_or_exit("models")
    logging.getLogger().setLevel(logging.WARNING)  # progress is shown instead
    return settings


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        output.say("Interrupted. Nothing was installed.")
        raise typer.Exit(ExitStatus.INTERRUPTED) from None


def _print(made: Installed, source: str, as_json: bool) -> None:
    """Record where the model comes from, so that `rm` may remove it, and print it."""
    from worker.model_store.hub import HubSettings
    from worker.model_store.store import ModelStore

    ModelStore(made.path.parent, HubSettings()).remember_made(made.name, source)
    heard = {sample.language: sample.text for sample in made.heard}
    if as_json:
        output.json_line({"name": made.name, "path": str(made.path), "bytes": made.size, "heard": heard})
        return
    for language, text in heard.items():
        output.say("heard ({language}): {text}", language=language, text=text)
    output.result(made.name)


@contextlib.contextmanager
def shown(name: str) -> Iterator[Report]:
    """Show progress on standard error: a bar in a terminal, else a line for each phase."""
    if not sys.stderr.isatty():
        phases: list[str] = []

        def line(phase: str, _share: float) -> None:
            if phase not in phases[-1:]:
                phases.append(phase)
                output.note(f"{name}: {output.in_language(TEXTS[phase])}")

        yield line
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(name, total=1.0)

        def bar(phase: str, share: float) -> None:
            text = output.in_language(TEXTS[phase])
            progress.update(task, completed=share, description=f"{output.printable(name)}: {text}")

        yield bar
