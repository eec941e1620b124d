"""``orderwatch token``: who may use the dashboard and the HTTP API, and for what."""

import re
from datetime import timedelta
from typing import Annotated

import typer

from orderwatch.support.terminal import CONFIG, AsJson, By, ConfigPath, actor, fail, say, say_json, show

app = typer.Typer(no_args_is_help=True, help="Tokens of the dashboard and the HTTP API.")

_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}\Z")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


@app.command("create")
def create(
    scope: Annotated[list[str], typer.Option(help="What it may do; give it several times, or `all`.")],
    name: Annotated[str, typer.Option(help="Who or what will have it; the actor of its acts.")],
    tenant: Annotated[str | None, typer.Option(help="Only this tenant; without it: every tenant.")] = None,
    expires: Annotated[str | None, typer.Option(help="When it is over, like 12h or 90d; without: never.")] = None,
    by: By = None,
    config: ConfigPath = CONFIG,
    as_json: AsJson = False,
) -> None:
    """Make a token and show it, once: only its hash is kept."""
    who = actor(by)

    from db.control import api_tokens
    from orderwatch.support.session import configured, database

    scopes = set(api_tokens.SCOPES) if scope == ["all"] else set(scope)
    for unknown in sorted(scopes - api_tokens.SCOPES.keys()):
        fail(f"--scope is {unknown}; expected all, or one of {', '.join(api_tokens.SCOPES)}", 2)
    if not 1 <= len(name.strip()) <= api_tokens.NAME_LENGTH or not name.isprintable():
        fail(f"--name is not usable; expected 1 to {api_tokens.NAME_LENGTH} printable characters", 2)
    if tenant is not None and not _ID.match(tenant):
        fail(f"--tenant is {tenant}; expected 1 to 64 characters of A-Z a-z 0-9 . _ : -", 2)
    lasts = None if expires is None else _lasting(expires)
    with database(configured(config)) as engine:
        made = api_tokens.create(engine, name.strip(), scopes, tenant, who, lasts)
    if as_json:
        shown = {"name": name.strip(), "tenant_id": tenant, "scopes": sorted(scopes)}
        say_json({"id": made.id, "token": made.text, **shown})
    else:
        say(made.text)


@app.command("list")
def list_(config: ConfigPath = CONFIG, as_json: AsJson = False) -> None:
    """Every token there ever was, without its text."""
    from dataclasses import asdict

    from db.control import api_tokens
    from orderwatch.support.session import configured, database

    with database(configured(config)) as engine:
        found = api_tokens.listing(engine)
    if as_json:
        say_json({"tokens": [asdict(token) | {"scopes": sorted(token.scopes)} for token in found]})
        return
    show(
        ("id", "name", "tenant", "scopes", "created", "by", "expires", "revoked", "last used"),
        (
            (
                item.id,
                item.name,
                item.tenant_id or "all",
                " ".join(sorted(item.scopes)),
                item.created_at,
                item.created_by,
                item.expires_at,
                item.revoked_at,
                item.last_used_at,
            )
            for item in found
        ),
        empty="no tokens: make one with `orderwatch token create`",
    )


@app.command("revoke")
def revoke(
    number: Annotated[str, typer.Argument(metavar="ID", help="As `token list` shows it.")],
    by: By = None,
    config: ConfigPath = CONFIG,
) -> None:
    """End a token, and every log-in made with it, within seconds."""
    who = actor(by)

    from db.control import api_tokens
    from orderwatch.support.session import configured, database

    with database(configured(config)) as engine:
        if not api_tokens.revoke(engine, number, who):
            fail(f"no token {number} that could be revoked: see `orderwatch token list`")
    say(f"token {number} is revoked")


def _lasting(text: str) -> timedelta:
    number, unit = text[:-1], _UNITS.get(text[-1:])
    if unit is None or not number.isascii() or not number.isdigit() or not 0 < int(number) <= 100_000:
        fail(f"--expires is {text}; expected a time like 30m, 12h or 90d", 2)
    return timedelta(**{unit: int(number)})
