"""`stt models`: install, list, check and remove models. `internal/cli/model_tools.py` has `import` and `quantize`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from internal.cli import model_tools, output
from internal.cli.exits import ExitStatus, status_of
from internal.cli.parameters import AsJson, examples

if TYPE_CHECKING:
    from core.error_base import SttError
    from worker.model_store.installed import InstalledModel
    from worker.model_store.registry import ModelEntry
    from worker.model_store.store import ModelStore

app = typer.Typer(
    help=(
        "Install, list, check and remove the models of this machine (MODELS_DIR).\n\n"
        "HF_ENDPOINT, HF_TOKEN, MODELS_MIRROR and the proxy variables are respected."
    ),
    no_args_is_help=True,
    rich_help_panel=output.OPERATING,
    epilog=examples(
        ("stt models list", "names, sizes, memory and languages"),
        ("stt models pull large-v3-turbo-q5_0", "the first choice for English and Vietnamese"),
        ("stt models import ~/PhoWhisper-small", "from a folder of this machine"),
    ),
)
COLUMNS = ("name", "state", "MB", "memory MB", "languages", "speed", "licence")
model_tools.add_to(app)
Names = Annotated[list[str], typer.Argument(metavar="NAME…", help="Names of installed models.")]


@app.command(
    "list",
    epilog=examples(
        ("stt models list --installed", "those on this machine"),
        ("stt models list --json | jq -r 'select(.memory_mb < 1000).name'", "those that need less than 1 GB"),
    ),
)
def list_models(
    installed: Annotated[bool, typer.Option("--installed", help="Only the models that are on this machine.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the models that are installed, and those that `pull` and `import` install by name.

    memory: estimate for one engine process.
    """
    from worker.model_store import registry

    here = {model.name: model for store in _stores() for model in store.installed()}
    rows = [_row(name, registry.entries().get(name), model) for name, model in here.items()]
    if not installed:
        rows += [_row(name, entry, None) for name, entry in registry.entries().items() if name not in here]
        rows += [_recipe_row(recipe) for recipe in registry.recipes().values()]
    if as_json:
        for row in rows:
            output.json_line(row)
        return
    cells = [[row[name.replace(" ", "_").lower()] for name in COLUMNS] for row in rows]
    output.table(COLUMNS, cells, "No model is installed. Install one with `stt models pull base-q5_1`, for example.")


@app.command(
    epilog=examples(
        ("stt models pull large-v3-turbo-q5_0", "again: continues what was interrupted, or does nothing"),
        ("stt models pull OWNER/REPO@REVISION:ggml-file.bin --as mine", "a file that is not in the list"),
        ("HF_TOKEN=hf_… stt models pull OWNER/REPO:ggml-file.bin", "from a gated repository"),
    )
)
def pull(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL…", help="Names of `stt models list`, or OWNER/REPO[@REVISION]:FILE.")
    ],
    name: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="Name here of a file that is not in the list.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Download models and print the names that jobs use for them.

    An interrupted download is continued by the next pull. A model that is there and valid needs no network.
    """
    if name is not None and len(models) > 1:
        raise typer.BadParameter("--as needs exactly one model.")
    store, *_ = _stores()
    _each(models, lambda model: _pull(store, model, name), as_json)


@app.command(epilog=examples(("stt models rm large-v3-turbo-q5_0", "what a pull or import wrote")))
def rm(names: Names, as_json: AsJson = False) -> None:
    """Remove models that `pull`, `import` or `quantize` wrote. What was put there by hand stays."""
    store, *_ = _stores()
    _each(names, lambda name: store.remove(_known(name)), as_json)


@app.command(epilog=examples(("stt models verify", "all of them"), ("stt models verify small-q5_1", "one")))
def verify(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME…", help="Names of installed models. Default: all of them.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Read model files: header, length, every value, and the published checksum, or else that of the download."""
    from internal.cli.model_progress import shown
    from worker.model_tools.verification import verify

    store, *_ = _stores()

    def check(name: str) -> InstalledModel:
        with shown(name) as report:
            model = store.verify(_known(name), report)
        if model.transcribes:
            with model_tools.shown(name) as phases:
                verify(model.path, phases)
        return model

    _each(names or [model.name for model in store.installed()], check, as_json)


@app.command(epilog=examples(("stt models show large-v3-turbo-q5_0", "also before it is installed")))
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name of `stt models list`.")], as_json: AsJson = False
) -> None:
    """Print what is known of a model: its file, checksums, source, licence, memory."""
    from core.errors_models import ModelNameError
    from worker.model_store import registry
    from worker.model_store.reference import shown

    entry, recipe = registry.find(name), registry.recipes().get(name)
    model = next((found for store in _stores() if (found := store.get(_known(name))) is not None), None)
    if entry is None and recipe is None and model is None:
        raise ModelNameError("{value} is neither a name of `stt models list` nor OWNER/REPO:FILE.", value=shown(name))
    facts = _recipe_row(recipe) if recipe and model is None else _row(entry.name if entry else name, entry, model)
    if as_json:
        output.json_line(facts)
        return
    for key, value in facts.items():
        if value not in ("", None):
            output.result(f"{key}: {value}")


def _stores() -> list[ModelStore]:
    """Return the store of MODELS_DIR, then those of the folders of the demo model."""
    import logging

    from internal.process import settings_or_exit
    from worker.model_store.hub import HubSettings
    from worker.model_store.store import ModelStore

    settings = settings_or_exit("models")
    logging.getLogger().setLevel(logging.WARNING)  # progress is shown instead
    hub = HubSettings(settings.hf_endpoint, settings.hf_token, settings.models_mirror)
    return [ModelStore(folder, hub) for folder in settings.model_dirs]


def _pull(store: ModelStore, text: str, name: str | None) -> InstalledModel:
    from internal.cli.model_progress import shown
    from worker.model_store.reference import parse

    reference = parse(text, name)
    with shown(reference.name) as report:
        return store.pull(reference, report)


def _known(name: str) -> str:
    """Return the name with its alias expanded. Raises ModelNameError for a text that is no name."""
    from core.domain.models import canonical
    from core.errors_models import ModelNameError
    from worker.model_store.reference import is_name, shown

    if not is_name(name):
        raise ModelNameError("{value} is not a model name.", value=shown(name))
    return canonical(name)


def _each(names: list[str], act: Any, as_json: bool) -> None:
    """Run `act` for each name and print the models. Exits with the status of the errors, 1 if they differ."""
    from core.error_base import SttError

    statuses = set()
    for name in dict.fromkeys(names):
        try:
            model = act(name)
        except SttError as error:
            statuses.add(status_of(error))
            _report_error(name, error, as_json)
        except KeyboardInterrupt:
            output.say("Interrupted. What has arrived is kept; the same command continues it.")
            raise typer.Exit(ExitStatus.INTERRUPTED) from None
        else:
            output.json_line(_row(model.name, None, model)) if as_json else output.result(model.name)
    if statuses:
        raise typer.Exit(statuses.pop() if len(statuses) == 1 else ExitStatus.FAILED)


def _report_error(name: str, error: SttError, as_json: bool) -> None:
    if as_json:
        output.json_line({"name": name, "code": error.code, "message": error.message(output.language())})
    output.note(f"{name}: {error.code}: {error.message(output.language())}")


def _row(name: str, entry: ModelEntry | None, model: InstalledModel | None) -> dict[str, Any]:
    """Return what is known of a model, with the columns of the list first."""
    from worker.model_store import registry

    entry = entry or registry.entries().get(name)
    size = model.size if model else entry.size if entry else 0
    record = model.record if model else None
    row: dict[str, Any] = {
        "name": name,
        "state": "installed" if model else "available",
        "mb": round(size / 1e6),
        "memory_mb": entry.memory if entry and entry.memory else "",
        "languages": entry.languages if entry else "",
        "speed": entry.speed if entry else "",
        "licence": entry.licence if entry else "",
        "kind": entry.kind if entry else "",
        "format": model.format if model else "ggml",
        "bytes": size,
        "path": str(model.path) if model else None,
        "source": record.source if record else None,
        "repository": entry.repository if entry else None,
        "file": entry.file if entry else None,
        "checked": record is not None,
        "written_by_pull": bool(model and model.removable),
    }
    return row | (record.checksums if record else entry.checksums if entry else {})


def _recipe_row(recipe: Any) -> dict[str, Any]:
    return {
        "name": recipe.name,
        "state": "import",
        "mb": "",
        "memory_mb": "",
        "languages": " ".join(recipe.languages),
        "speed": "",
        "licence": recipe.licence,
        "repository": recipe.repository,
        "format": recipe.format,
        "family": recipe.family,
        "word_error_rates": list(recipe.word_error_rates),
    }
