"""`stt keys`: create, list and revoke API keys."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from internal.cli import output, runner
from internal.cli.parameters import AsJson, examples

if TYPE_CHECKING:
    from internal.bootstrap import Application

app = typer.Typer(
    help="Create, list and revoke API keys.",
    no_args_is_help=True,
    rich_help_panel=output.OPERATING,
    epilog=examples(
        ("stt keys create --owner crawler --name clips --days 90", "print a key, once"),
        ("stt keys revoke 4fa6580e8a2219b7", "by its id"),
    ),
)
COLUMNS = ("id", "owner", "name", "created", "expires", "revoked", "last used")
FIELDS = ("key_id", "owner", "name", "created_at", "expires_at", "revoked_at", "last_used_at")
DAY = 86_400.0
OWNER = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""A valid owner: it has to fit in an object key, `inbox/{owner}/…`."""


def _checked_owner(owner: str | None) -> str | None:
    if owner is not None and not OWNER.fullmatch(owner):
        raise typer.BadParameter("An owner is 1 to 64 of A-Z, a-z, 0-9, dot, hyphen and underscore.")
    return owner


def _checked_days(days: float | None) -> float | None:
    if days is not None and not 0 < days <= 36_500:
        raise typer.BadParameter("The number of days is more than 0 and at most 36500.")
    return days


@app.command(
    epilog=examples(
        ("stt keys create --owner crawler --name clips --days 90", "a key that sees the crawler's jobs"),
        ("export STT_API_KEY=$(stt keys create --json | jq -r .key)", "for this shell"),
    )
)
def create(
    owner: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", callback=_checked_owner, help="Keys of one owner see the same jobs. Default: the key's id."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="TEXT", help="A name to show in the list.")] = None,
    days: Annotated[
        float | None,
        typer.Option(metavar="N", callback=_checked_days, help="Days until the key expires. Default: never."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Create a key and print it. It is not shown again."""

    async def work(application: Application) -> None:
        lifetime = None if days is None else days * DAY
        key, key_owner = await application.services.api_keys.create(owner, name, lifetime)
        secret = application.services.api_keys.webhook_secret(key_owner)
        if as_json:
            output.json_line({"key": key, "owner": key_owner, "webhook_secret": secret})
        else:
            output.result(f"key: {key}\nowner: {key_owner}\nwebhook secret: {secret}")
        output.say("The key is shown this once.")

    runner.run("keys", work)


@app.command("list", epilog=examples(("stt keys list", "with the time of the last use")))
def list_keys(as_json: AsJson = False) -> None:
    """List all keys, without their secrets."""

    async def work(application: Application) -> None:
        rows = await application.services.api_keys.list_all()
        if as_json:
            for row in rows:
                output.json_line({name: getattr(row, name) for name in FIELDS})
            return
        cells = [[_shown(getattr(row, name)) for name in FIELDS] for row in rows]
        output.table(COLUMNS, cells, "No keys: only requests from this machine are served, without a key.")

    runner.run("keys", work)


def _shown(value: object) -> str:
    return f"{value:%Y-%m-%d %H:%M}" if isinstance(value, datetime) else str(value or "")


@app.command(epilog=examples(("stt keys revoke 4fa6580e8a2219b7", "by the id of `stt keys list`")))
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The part between `stt_` and the next `_`.")],
) -> None:
    """Revoke a key: requests with it are refused from now on."""

    async def work(application: Application) -> None:
        from core.errors_command import KeyNotFoundError

        if not await application.services.api_keys.revoke(key_id):
            raise KeyNotFoundError
        output.result(output.in_language("{key} is revoked.", key=key_id))

    runner.run("keys", work)


@app.command("webhook-secret", epilog=examples(("stt keys webhook-secret crawler", "for the receiver of its webhooks")))
def webhook_secret(
    owner: Annotated[
        str | None,
        typer.Argument(
            metavar="OWNER", callback=_checked_owner, help="Default: the owner of jobs submitted without a key."
        ),
    ] = None,
) -> None:
    """Print the secret that verifies an owner's webhooks."""

    async def work(application: Application) -> None:
        from internal.services.authentication import LOCAL_OWNER

        output.result(application.services.api_keys.webhook_secret(owner or LOCAL_OWNER))

    runner.run("keys", work)
