"""The stored catalogue on real PostgreSQL, and the commands that move it."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import sqlalchemy as sa
import yaml

from db import models as m
from db.control import stored_config
from db.engine import connect
from streams.config.loader import CatalogueDocs, load, with_catalog
from streams.errors import ConfigError, StoreUnavailable

TOP = Path(__file__).parents[2]
SHIPPED = TOP / "config.yaml"


@pytest.fixture
def engine(database: str) -> Iterator[sa.Engine]:
    engine = connect(database, 4)
    yield engine
    engine.dispose()


@pytest.fixture
def docs() -> CatalogueDocs:
    return load(SHIPPED, {}).docs


def contents(docs: stored_config.Docs) -> list[list[str]]:
    """Content without its order."""
    lists = (docs.integrations, docs.routes, docs.mappings)
    return [sorted(json.dumps(block, sort_keys=True) for block in blocks) for blocks in lists]


COMMAND = "from orderwatch.cli.config import app; app(prog_name='orderwatch config')"


def config_command(database: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`orderwatch config ...` on this database, in a process of its own."""
    environ = {"PATH": os.environ["PATH"], "USER": "ayse", "DATABASE_URL": database, "KAFKA_BOOTSTRAP_SERVERS": "x:1"}
    return subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments],
        capture_output=True,
        text=True,
        cwd=TOP,
        env=environ,
        timeout=60,
        check=False,
    )


def test_the_starting_set_is_stored_once_unexpanded(engine: sa.Engine, docs: CatalogueDocs) -> None:
    assert stored_config.revision(engine) == "0"
    assert stored_config.seed(engine, docs, "worker")
    assert contents(stored_config.read(engine)) == contents(docs)
    assert stored_config.read(engine).integrations[-1]["credentials"] == {
        "kod": "${ZNET_B_KOD:-demo-b}",
        "sifre": "${ZNET_B_SIFRE:-demo-b}",
    }
    before = stored_config.revision(engine)
    assert not stored_config.seed(engine, CatalogueDocs([], [], []), "worker")
    assert stored_config.revision(engine) == before


def test_an_import_replaces_everything_and_bumps_the_revision(engine: sa.Engine, docs: CatalogueDocs) -> None:
    stored_config.seed(engine, docs, "worker")
    before = stored_config.revision(engine)
    changed = CatalogueDocs([{**docs.integrations[0], "enabled": False}], [], [])
    stored_config.replace(engine, changed, "ayse")
    assert stored_config.revision(engine) != before
    assert contents(stored_config.read(engine)) == contents(changed)
    with engine.connect() as connection:
        assert connection.scalar(sa.select(m.integrations.c.updated_by)) == "ayse"
        audited = connection.execute(sa.select(m.audit.c.actor, m.audit.c.action, m.audit.c.details)).one()
    assert tuple(audited) == ("ayse", "config.import", {"integrations": 1, "routes": 0, "mappings": 0})


def test_a_catalogue_emptied_on_purpose_stays_empty(engine: sa.Engine, docs: CatalogueDocs) -> None:
    stored_config.seed(engine, docs, "worker")
    stored_config.replace(engine, CatalogueDocs([], [], []), "ayse")
    assert not stored_config.seed(engine, docs, "worker")
    assert stored_config.read(engine) == stored_config.CatalogDocs([], [], [])


def test_an_import_that_fails_half_way_leaves_everything_as_it_was(engine: sa.Engine, docs: CatalogueDocs) -> None:
    stored_config.seed(engine, docs, "worker")
    before = stored_config.revision(engine)
    with pytest.raises(sa.exc.IntegrityError):
        stored_config.replace(engine, CatalogueDocs(docs.integrations, [], [docs.mappings[0]] * 2), "ayse")
    assert contents(stored_config.read(engine)) == contents(docs)
    assert stored_config.revision(engine) == before


def test_of_workers_that_start_together_one_stores_the_starting_set(engine: sa.Engine, docs: CatalogueDocs) -> None:
    together = threading.Barrier(4)
    answers: list[bool] = []

    def start() -> None:
        together.wait()
        answers.append(stored_config.seed(engine, docs, "worker"))

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [False, False, False, True]
    assert stored_config.revision(engine) == "1"


@pytest.mark.parametrize("write", [stored_config.seed, stored_config.replace])
@pytest.mark.parametrize("literal", ["hunter2", "x${KOD}", "${KOD}hunter2", "$KOD", ""])
def test_a_literal_credential_is_refused_and_not_shown(engine: sa.Engine, write: object, literal: str) -> None:
    block = {"id": "a", "tenant_id": "t", "provider": "znet", "credentials": {"kod": "${KOD}", "sifre": literal}}
    with pytest.raises(ConfigError) as caught:
        write(engine, CatalogueDocs([block], [], []), "ayse")  # type: ignore[operator]
    assert str(caught.value) == (
        "integrations[0].credentials.sifre is ***; expected ${NAME}, as the catalogue never stores a secret"
    )
    assert stored_config.revision(engine) == "0"


def test_the_stored_catalogue_makes_the_same_configuration_as_the_file(engine: sa.Engine) -> None:
    config = load(SHIPPED, {})
    stored_config.seed(engine, config.docs, "worker")
    followed = with_catalog(config, stored_config.read(engine), {})
    assert followed.fingerprint() == config.fingerprint()
    for account in config.integrations:
        stored = followed.integration(account.id)
        assert stored is not None
        assert stored.model_dump() == account.model_dump()
    assert followed.tiers() == config.tiers()


def test_a_database_that_is_not_there_is_said_so(docs: CatalogueDocs) -> None:
    engine = connect("postgresql+psycopg2://u:p@127.0.0.1:1/none", 1)
    for ask in (stored_config.revision, stored_config.read):
        with pytest.raises(StoreUnavailable):
            ask(engine)
    with pytest.raises(StoreUnavailable):
        stored_config.seed(engine, docs, "worker")


def test_what_export_writes_import_takes(database: str, engine: sa.Engine, docs: CatalogueDocs, tmp_path: Path) -> None:
    imported = config_command(database, "import", "--json")
    assert (imported.returncode, imported.stderr) == (0, "")
    counts = {"integrations": 5, "routes": 8, "mappings": 12}
    assert json.loads(imported.stdout) == {"ok": True, **counts, "revision": "1", "still_off": []}
    assert contents(stored_config.read(engine)) == contents(docs)

    copy = tmp_path / "copy.yaml"
    assert config_command(database, "export", "-o", str(copy)).returncode == 0
    written = copy.read_text(encoding="utf-8")
    assert "postgresql" not in written, "only the file's own text belongs into an export"
    printed = config_command(database, "export").stdout
    assert yaml.safe_load(printed) == yaml.safe_load(written)

    stored_config.replace(engine, CatalogueDocs([], [], []), "ayse")
    assert config_command(database, "import", "--config", str(copy)).returncode == 0
    assert contents(stored_config.read(engine)) == contents(docs)


def test_a_secret_that_is_text_in_the_file_is_not_exported(database: str, engine: sa.Engine, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    text = SHIPPED.read_text(encoding="utf-8").replace("${DATABASE_URL:-embedded}", database)
    secured = "{protocol: SASL_SSL, mechanism: PLAIN, username: u, password: hunter2}"
    path.write_text(text.replace("security: {}", f"security: {secured}"), encoding="utf-8")
    answer = config_command("unused", "export", "--config", str(path))
    assert answer.returncode == 0
    assert database not in answer.stdout + answer.stderr
    assert "hunter2" not in answer.stdout + answer.stderr
    exported = yaml.safe_load(answer.stdout)
    assert exported["database"]["url"] == "${DATABASE_URL}"
    assert exported["kafka"]["security"]["password"] == "${KAFKA_PASSWORD}"


def test_check_says_what_is_there_or_every_mistake(database: str, tmp_path: Path) -> None:
    good = config_command(database, "check")
    assert (good.returncode, good.stderr) == (0, "")
    assert "config.yaml is valid: 5 integrations, 8 routes, 12 mappings" in good.stdout

    bad = tmp_path / "config.yaml"
    text = SHIPPED.read_text(encoding="utf-8")
    for right, wrong in (
        ("sweep_every: 5m", "sweep_every: 5"),
        ("/barakat-b\n    currency: USD\n", "/barakat-b\n"),
        (", kupur: ML86", ""),
    ):
        assert right in text
        text = text.replace(right, wrong)
    bad.write_text(text, encoding="utf-8")
    answer = config_command(database, "check", "--config", str(bad), "--json")
    assert answer.returncode == 2
    lines = answer.stderr.splitlines()
    assert lines == [
        "config.yaml: checks.sweep_every is 5; expected a duration like 30s (ms, s, m or h)",
        "config.yaml: integrations[4].currency is missing; expected the account's currency, barakat does not tell it",
        "config.yaml: mappings[6].kupur is missing; expected a value, znet needs kupur, oyun",
    ]
    assert json.loads(answer.stdout) == {"ok": False, "problems": lines}


@pytest.mark.parametrize("arguments", [("import",), ("check",)])
def test_a_wrong_file_stops_a_command_without_a_traceback(
    database: str, engine: sa.Engine, tmp_path: Path, arguments: Sequence[str]
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(SHIPPED.read_text(encoding="utf-8").replace("primary: znet-b", "primary: znet-x"), encoding="utf-8")
    answer = config_command(database, *arguments, "--config", str(path))
    assert answer.returncode == 2
    assert answer.stderr == "config.yaml: routes[6].primary is znet-x; expected the id of an integration\n"
    assert stored_config.revision(engine) == "0"


def test_import_refuses_a_literal_credential_and_names_its_key(database: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(SHIPPED.read_text(encoding="utf-8").replace("${BARAKAT_TOKEN:-demo}", "hunter2"), encoding="utf-8")
    answer = config_command(database, "import", "--config", str(path))
    assert answer.returncode == 2
    assert answer.stderr.startswith("config.yaml: integrations[1].credentials.token is ***; expected ${NAME}")
    assert "hunter2" not in answer.stdout + answer.stderr


def test_reference_is_printed_for_people_and_for_programs(database: str) -> None:
    committed = (TOP / "docs/configuration.md").read_text(encoding="utf-8")
    assert config_command(database, "reference").stdout == committed
    rows = json.loads(config_command(database, "reference", "--json").stdout)
    assert {"key", "type", "default", "meaning"} == set(rows[0])
