"""`stt keys create [--owner NAME] [--name TEXT] [--days N] | list | revoke ID | webhook-secret [OWNER]`."""

from __future__ import annotations

import argparse
import asyncio
import re
from collections.abc import Awaitable, Callable

from rich.console import Console
from rich.table import Column, Table

from core.errors import InfrastructureError
from internal import bootstrap
from internal.bootstrap import Application
from internal.process import settings_or_exit
from internal.services.authentication import LOCAL_OWNER

console = Console(highlight=False)
COLUMNS = ("id", "owner", "name", "created", "expires", "revoked", "last used")
DAY = 86_400.0
OWNER = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""What fits into an object key: `inbox/{owner}/…`."""


async def create(parts: Application, words: argparse.Namespace) -> None:
    if words.owner and not OWNER.fullmatch(words.owner):
        raise SystemExit("An owner is 1 to 64 of A-Z, a-z, 0-9, dot, hyphen and underscore.")
    lifetime = words.days * DAY if words.days else None
    key, owner = await parts.services.api_keys.create(words.owner, words.name, lifetime)
    console.print(f"key: {key}", soft_wrap=True)
    console.print(f"owner: {owner}")
    console.print(f"webhook secret: {parts.services.api_keys.webhook_secret(owner)}", soft_wrap=True)
    console.print("The key is shown this once.")


async def show_all(parts: Application, _: argparse.Namespace) -> None:
    found = await parts.services.api_keys.list_all()
    table = Table(*(Column(name, no_wrap=name == "id") for name in COLUMNS))
    for key in found:
        times = (key.created_at, key.expires_at, key.revoked_at, key.last_used_at)
        table.add_row(key.key_id, key.owner, key.name or "", *(f"{at:%Y-%m-%d %H:%M}" if at else "" for at in times))
    console.print(table if found else "No keys: requests are served without one on loopback only.")


async def revoke(parts: Application, words: argparse.Namespace) -> None:
    if not await parts.services.api_keys.revoke(words.id):
        raise SystemExit(f"There is no valid key {words.id}; `stt keys list` shows them.")
    console.print(f"{words.id} is revoked.")


async def webhook_secret(parts: Application, words: argparse.Namespace) -> None:
    console.print(parts.services.api_keys.webhook_secret(words.owner), soft_wrap=True)


COMMANDS: dict[str, Callable[[Application, argparse.Namespace], Awaitable[None]]] = {
    "create": create,
    "list": show_all,
    "revoke": revoke,
    "webhook-secret": webhook_secret,
}


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "make, list and revoke API keys"
    what = commands.add_parser("keys", help=text, description=text).add_subparsers(dest="what", required=True)
    new = what.add_parser("create", help="make a key and show it once")
    new.add_argument("--owner", help="keys of one owner see the same jobs; by default a key is its own owner")
    new.add_argument("--name", help="for the list")
    new.add_argument("--days", type=float, help="until it expires; by default never")
    what.add_parser("list", help="every key, without its secret")
    what.add_parser("revoke", help="end a key at once").add_argument("id", help="the part between stt_ and the next _")
    secret = what.add_parser("webhook-secret", help="what an owner verifies his webhooks with")
    secret.add_argument("owner", nargs="?", default=LOCAL_OWNER, help="by default the one of calls without a key")
    for parser in what.choices.values():
        parser.set_defaults(run=run)


def run(words: argparse.Namespace) -> None:
    try:
        asyncio.run(_with_parts(bootstrap.build(settings_or_exit("keys")), words))
    except InfrastructureError as error:
        raise SystemExit(f"{error.code}: {error} (`stt migrate` makes the tables)") from None


async def _with_parts(parts: Application, words: argparse.Namespace) -> None:
    try:
        await COMMANDS[words.what](parts, words)
    finally:
        await parts.stop()
