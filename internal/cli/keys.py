"""`stt keys`: create, list and revoke API keys."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from internal.cli import runner

if TYPE_CHECKING:
    from internal.bootstrap import Application

app = typer.Typer(help="Create, list and revoke API keys.", no_args_is_help=True)
COLUMNS = ("id", "owner", "name", "created", "expires", "revoked", "last used")
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


@app.command()
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
) -> None:
    """Create a key and print it. It is not shown again."""

    async def work(application: Application) -> None:
        lifetime = None if days is None else days * DAY
        key, key_owner = await application.services.api_keys.create(owner, name, lifetime)
        typer.echo(f"key: {key}")
        typer.echo(f"owner: {key_owner}")
        typer.echo(f"webhook secret: {application.services.api_keys.webhook_secret(key_owner)}")
        typer.echo("The key is shown this once.")

    runner.run("keys", work)


@app.command("list")
def list_keys() -> None:
    """List all keys, without their secrets."""

    async def work(application: Application) -> None:
        from rich.console import Console
        from rich.table import Column, Table

        rows = await application.services.api_keys.list_all()
        table = Table(*(Column(name, no_wrap=name == "id") for name in COLUMNS))
        for row in rows:
            times = (row.created_at, row.expires_at, row.revoked_at, row.last_used_at)
            cells = (f"{at:%Y-%m-%d %H:%M}" if at else "" for at in times)
            table.add_row(row.key_id, row.owner, row.name or "", *cells)
        empty = "No keys: only requests from this machine are served, without a key."
        Console(highlight=False).print(table if rows else empty)

    runner.run("keys", work)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The part between `stt_` and the next `_`.")],
) -> None:
    """Revoke a key: requests with it are refused from now on."""

    async def work(application: Application) -> None:
        if not await application.services.api_keys.revoke(key_id):
            raise SystemExit(f"There is no valid key {key_id}; `stt keys list` shows all keys.")
        typer.echo(f"{key_id} is revoked.")

    runner.run("keys", work)


@app.command("webhook-secret")
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

        typer.echo(application.services.api_keys.webhook_secret(owner or LOCAL_OWNER))

    runner.run("keys", work)
