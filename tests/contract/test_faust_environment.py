"""Faust reads its settings from us alone, whatever variables other programs have set."""

import os
import subprocess
import sys

import pytest
from faust.types.settings import Settings

from streams.app import _port, build
from streams.config.loader import Config
from streams.errors import ConfigError

PLAIN = sorted({param.env_name for param in Settings.SETTINGS.values() if param.env_name})


def config() -> Config:
    return Config(kafka={"bootstrap_servers": "127.0.0.1:1"}, database={"url": "embedded"})


@pytest.mark.parametrize("name", PLAIN)
def test_a_variable_of_another_program_changes_no_setting(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for name_ in PLAIN:
        monkeypatch.delenv(name_, raising=False)
    before = settings()
    monkeypatch.setenv(name, "tcp://10.96.0.14:80")
    assert settings() == before


def settings() -> dict[str, str]:
    conf = build(config()).conf
    same = (
        "broker",
        "web_port",
        "web_bind",
        "web_host",
        "store",
        "processing_guarantee",
        "consumer_auto_offset_reset",
        "topic_partitions",
        "broker_session_timeout",
        "id",
        "broker_client_id",
        "cache",
        "debug",
    )
    return {name: str(getattr(conf, name)) for name in same}


def test_a_service_link_is_no_port() -> None:
    assert [_port(text) for text in ("", "tcp://10.96.0.12:6066", "udp://10.0.0.1:1", "6067", "0")] == [
        6066,
        6066,
        6066,
        6067,
        0,
    ]


@pytest.mark.parametrize("text", ["web", "-1", "65536", "60 66"])
def test_a_wrong_port_names_the_variable(text: str) -> None:
    with pytest.raises(ConfigError, match=r"ORDERWATCH_WORKER_PORT is .*; expected a port number, 0 to 65535"):
        _port(text)


def test_a_plain_faust_worker_whose_ca_file_is_missing_ends_with_one_line(tmp_path: object) -> None:
    path = f"{tmp_path}/config.yaml"
    with open(path, "w", encoding="utf-8") as file:
        file.write(
            'kafka: {bootstrap_servers: "127.0.0.1:1", security: {protocol: SSL, ca: /none/ca.pem}}\n'
            'database: {url: "postgresql://u@127.0.0.1:1/x"}\n'
        )
    done = subprocess.run(
        [sys.executable, "-c", "from streams.app import app"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "ORDERWATCH_CONFIG": path},
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "kafka.security: ca, cert or key cannot be read (No such file or directory)" in done.stderr
