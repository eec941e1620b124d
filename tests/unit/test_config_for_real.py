"""The file that "run it for real" starts from, and the refusal of a bundled server beside a real one."""

import re
from pathlib import Path

import pytest

from orderwatch.support.config_template import TEMPLATE
from streams.config.loader import Config, load, refuse_mixed
from streams.errors import ConfigError


@pytest.mark.parametrize(
    ("broker", "url", "found"),
    [
        ("kafka:9092", "embedded", "database.url is embedded, but kafka.bootstrap_servers is kafka:9092"),
        ("a:1,b:2", "embedded", "database.url is embedded"),
        ("embedded", "postgresql://u@h/n", "kafka.bootstrap_servers is embedded, but database.url is not"),
    ],
)
def test_a_bundled_server_never_stands_beside_a_real_one(broker: str, url: str, found: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(found)):
        refuse_mixed(Config(kafka={"bootstrap_servers": broker}, database={"url": url}))


@pytest.mark.parametrize(("broker", "url"), [("kafka:9092", "postgresql://u@h/n"), ("embedded", "embedded")])
def test_both_bundled_or_neither_is_right(broker: str, url: str) -> None:
    refuse_mixed(Config(kafka={"bootstrap_servers": broker}, database={"url": url}))


NEEDED = {
    "KAFKA_BOOTSTRAP_SERVERS": "k:9092",
    "DATABASE_URL": "postgresql://u@h/n",
    "ZNET_URL": "https://z.example",
    "ZNET_KOD": "k",
    "ZNET_SIFRE": "s",
}


@pytest.mark.parametrize("missing", NEEDED)
def test_the_file_for_real_servers_has_no_default_for_what_is_missing(tmp_path: Path, missing: str) -> None:
    path = tmp_path / "orderwatch.yaml"
    path.write_text(TEMPLATE, encoding="utf-8")
    assert load(path, NEEDED).integrations[0].id == "znet-main"
    with pytest.raises(ConfigError, match=f"expected the environment variable {missing} to be set"):
        load(path, {name: value for name, value in NEEDED.items() if name != missing})


@pytest.mark.parametrize("word", ["embedded", ":-", "demo\n", "127.0.0.1:9100"])
def test_the_file_for_real_servers_has_no_demo_in_it(word: str) -> None:
    assert word not in TEMPLATE
