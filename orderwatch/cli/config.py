"""`orderwatch config`: check the file, move the catalogue between file and database, print the reference."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from orderwatch.support.config_check import loaded_with_checks
from orderwatch.support.terminal import CONFIG, AsJson, By, ConfigPath, actor, fail, say, say_json, show, warn
from streams.errors import ConfigError

app = typer.Typer(help="Check, import, export and explain the configuration.", no_args_is_help=True)

_REFERENCE = re.compile(r"\$\{[^{}]*\}\Z")
_EXPORTED = "# Integrations, routes and mappings as stored in the database, for `orderwatch config import`.\n"


@app.command()
def check(config: ConfigPath = CONFIG, as_json: AsJson = False) -> None:
    """Read the file and tell every mistake in it. Exit status 2 when there is one."""
    from streams.config.loader import refuse_mixed

    with _told(as_json):
        loaded = loaded_with_checks(config)
        refuse_mixed(loaded)
    counts = {name: len(getattr(loaded, name)) for name in ("integrations", "routes", "mappings")}
    tiers = [loaded.tier_name(seconds) for seconds in loaded.tiers()]
    if as_json:
        say_json({"ok": True, "file": str(config), **counts, "tiers": tiers, "fingerprint": loaded.fingerprint()})
        return
    rows = [
        (item.id, item.tenant_id, item.provider, f"{item.limits.rate:g}/s", f"{loaded.lease_s(item):g} s", item.enabled)
        for item in loaded.integrations
    ]
    columns = ("integration", "tenant", "provider", "rate", "lease", "enabled")
    show(columns, rows, empty="no integrations")
    say(f"{config} is valid: " + ", ".join(f"{count} {name}" for name, count in counts.items()))
    say("retry topics: " + ", ".join(tiers))


@app.command()
def init(
    output: Annotated[Path, typer.Argument(metavar="[FILE]", help="Where to write it.")] = Path("orderwatch.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a configuration for real servers and providers: commented, with no default for any of them."""
    from orderwatch.support.config_template import TEMPLATE

    try:
        with output.open("w" if force else "x", encoding="utf-8") as file:
            file.write(TEMPLATE)
    except FileExistsError:
        fail(f"{output} exists already; name another file, or give --force", 2)
    except OSError as error:
        fail(f"{output} cannot be written ({error.strerror})", 2)
    if as_json:
        say_json({"ok": True, "file": str(output)})
        return
    say(f"wrote {output}; next: set its variables, then `orderwatch config check --config {output}`")


@app.command(name="import")
def import_(config: ConfigPath = CONFIG, by: By = None, as_json: AsJson = False) -> None:
    """Replace the stored integrations, routes and mappings by those of the file. Workers follow within 10 s."""
    from db.control import stored_config
    from orderwatch.support.session import database, with_parts

    with _told(as_json):
        loaded = loaded_with_checks(config)
        try:
            stored_config.refuse_literal_credentials(loaded.docs)
        except ConfigError as error:
            raise ConfigError("\n".join(f"{config.name}: {line}" for line in str(error).splitlines())) from None
        with database(with_parts(loaded, None)) as engine:
            kept_off = stored_config.replace(engine, loaded.docs, actor(by))
            revision = stored_config.revision(engine)
    counts = {name: len(docs) for name, docs in loaded.docs._asdict().items()}
    if as_json:
        say_json({"ok": True, **counts, "revision": revision, "still_off": kept_off})
    else:
        say("stored " + ", ".join(f"{count} {name}" for name, count in counts.items()) + f" as revision {revision}")
    for name in kept_off:
        warn(f"{name} was switched off by hand and stays off: `orderwatch integration on {name} --reason ...`")


@app.command()
def export(
    config: ConfigPath = CONFIG,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write to this file, not to stdout.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print the stored integrations, routes and mappings as a configuration file that `import` accepts."""
    from db.control import stored_config
    from orderwatch.support.session import database, with_parts
    from streams.config.loader import load

    with _told(as_json):
        loaded = load(config, os.environ)
        with database(with_parts(loaded, None)) as engine:
            docs = stored_config.read(engine)
    stored = {"integrations": docs.integrations, "routes": docs.routes, "mappings": docs.mappings}
    if as_json:
        say_json(stored)
        return
    text = exported(config, stored)
    if output is None:
        say(text.rstrip())
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        fail(f"{output} cannot be written ({error.strerror})", 2)
    say(f"wrote {output}: " + ", ".join(f"{len(blocks)} {name}" for name, blocks in stored.items()))


@app.command()
def reference(as_json: AsJson = False) -> None:
    """Print docs/configuration.md: every key, its type, default and meaning."""
    from streams.config.reference import markdown, rows

    if as_json:
        say_json([row._asdict() for row in rows()])
    else:
        say(markdown().rstrip())


def exported(config: Path, stored: dict[str, list[dict[str, Any]]]) -> str:
    """The sections of the file itself, unexpanded, with the stored catalogue in place of its own.

    A secret that stands in the file as text leaves as the name of a variable; stderr says which.
    """
    import yaml

    from streams.config.yaml_reader import read

    raw, _ = read(config.read_text(encoding="utf-8-sig"))
    for block, key, variable in (
        (raw.get("database", {}), "url", "DATABASE_URL"),
        (raw.get("kafka", {}).get("security", {}), "password", "KAFKA_PASSWORD"),
    ):
        if key in block and block[key] != "embedded" and not _REFERENCE.match(block[key]):
            block[key] = f"${{{variable}}}"
            warn(f"{key} is text in {config.name}; the export reads the environment variable {variable} instead")
    document = {name: block for name, block in raw.items() if name not in stored} | stored
    return _EXPORTED + str(yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120))


@contextmanager
def _told(as_json: bool) -> Iterator[None]:
    """Mistakes in the configuration also go to stdout when that is for a program."""
    try:
        yield
    except ConfigError as error:
        if as_json:
            say_json({"ok": False, "problems": str(error).splitlines()})
        fail(str(error), 2)
