"""``orderwatch codes``: the stock of the ``codes`` provider. Codes are sealed before they are stored, never shown."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from orderwatch.support.codes import fingerprint, new_key
from orderwatch.support.terminal import CONFIG, AsJson, By, ConfigPath, actor, fail, say, say_json, show, warn

app = typer.Typer(no_args_is_help=True, help="The stock of codes.")


@app.command("add")
def add(
    tenant: Annotated[str, typer.Argument(help="Whose codes.")],
    group: Annotated[str, typer.Argument(help="The `code_group` of a mapping.")],
    file: Annotated[Path | None, typer.Argument(help="One code per line; default: standard input.")] = None,
    by: By = None,
    config: ConfigPath = CONFIG,
    as_json: AsJson = False,
) -> None:
    """Add codes to the stock. A code that was ever loaded into this group is reported and not loaded again."""
    who = actor(by)
    lines = _lines(file)

    import os

    from db.control import integration_state
    from orderwatch.support.session import configured, database
    from streams.seal import Sealer

    sealer = Sealer.from_environ(os.environ)
    first: dict[str, int] = {}
    repeated: list[int] = []
    with database(configured(config)) as engine:
        key = sealer.open(integration_state.fingerprint_key(engine, sealer.seal, new_key))
        numbered: list[tuple[int, integration_state.SealedCode]] = []
        for number, code in lines:
            mark = fingerprint(key, code)
            if mark in first:
                repeated.append(number)
                continue
            first[mark] = number
            numbered.append((number, integration_state.SealedCode(sealer.seal(code), mark)))
        added = integration_state.load_codes(engine, tenant, group, [code for _, code in numbered], who)
    repeated += [number for number, code in numbered if code.fingerprint not in added]
    repeated.sort()
    if as_json:
        say_json({"tenant_id": tenant, "code_group": group, "added": len(added), "duplicate_lines": repeated})
    else:
        for number in repeated:
            warn(f"line {number}: this code was loaded before; not loaded again")
        say(f"{len(added)} codes added to {group} of {tenant}, {len(repeated)} duplicates")


@app.command("list")
def list_(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant.")] = None,
    config: ConfigPath = CONFIG,
    as_json: AsJson = False,
) -> None:
    """How many codes of each group are available and taken."""
    from db.reads import queries
    from orderwatch.support.session import configured, database

    with database(configured(config)) as engine:
        rows = queries.code_stock(engine, tenant)
    if as_json:
        say_json({"codes": rows})
        return
    show(
        ("tenant", "group", "available", "taken", "last loaded"),
        ((row["tenant_id"], row["code_group"], row["available"], row["taken"], row["last_loaded_at"]) for row in rows),
        empty="no codes were ever loaded",
    )


def _lines(file: Path | None) -> list[tuple[int, str]]:
    """Line number and code; blank lines are left out, blanks around a code too."""
    try:
        content = sys.stdin.buffer.read() if file is None else file.read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        fail(f"{file} cannot be read ({error.strerror})", 2)
    except UnicodeDecodeError as error:
        fail(f"byte {error.start} is not UTF-8; expected one code per line", 2)
    found = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    if not found:
        fail("there is no code in the input; expected one code per line", 2)
    return found
