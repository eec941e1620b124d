"""A Turkish locale, a terminal that is not UTF-8, a read-only directory, no home: everything works.

The Turkish locale is made from its sources with localedef, into a directory of the test. Where the sources are missing
(Debian: apt install locales) these tests are skipped; with ORDERWATCH_CI set, as in .ci/run, they fail.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from orderwatch.localservers.bundled import Broker
from streams.events import Created
from tests.integration.conftest import Start
from tests.system import ROOT, System

SOURCES = Path("/usr/share/i18n/locales/tr_TR")


@pytest.fixture(scope="session")
def turkish(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """Environment of a Turkish user."""
    if shutil.which("localedef") is None or not SOURCES.exists():
        reason = "the sources of the locale tr_TR are not installed (Debian: apt install locales)"
        if "ORDERWATCH_CI" in os.environ:
            pytest.fail(reason)
        pytest.skip(reason)
    directory = tmp_path_factory.mktemp("locales")
    subprocess.run(
        ["localedef", "-i", "tr_TR", "-f", "UTF-8", str(directory / "tr_TR.UTF-8")], check=True, capture_output=True
    )
    return {"LOCPATH": str(directory), "LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8", "TZ": "Europe/Istanbul"}


@pytest.fixture(scope="module")
def system(system_of: Start, broker: Broker) -> Iterator[System]:
    yield system_of(broker.address)


def run(
    system: System, environ: Mapping[str, str], *words: str, cwd: Path = ROOT, **more: str
) -> "subprocess.CompletedProcess[bytes]":
    names = {"ORDERWATCH_CONFIG": str(system.config_path), "ORDERWATCH_PIN_KEYS": system.pin_keys}
    return subprocess.run(
        [sys.executable, "-m", "orderwatch", *words],
        cwd=cwd,
        capture_output=True,
        check=False,
        timeout=100,
        env={**os.environ, **names, **environ, **more},
    )


def test_the_locale_is_the_one_that_breaks_upper_case_words(turkish: Mapping[str, str]) -> None:
    program = (
        "from confluent_kafka import Producer\n"
        "try: Producer({'bootstrap.servers': '127.0.0.1:1', 'security.protocol': 'PLAINTEXT'})\n"
        "except Exception: print('refused')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={**os.environ, **turkish}
    )
    assert done.stdout == "refused\n"


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"])
@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_every_client_can_be_made_of_every_security_setting(
    turkish: Mapping[str, str], protocol: str, mechanism: str
) -> None:
    security = {"protocol": protocol, "mechanism": mechanism, "username": "u", "password": "p"}
    program = f"""
import asyncio
from streams.clients import OrderProducer, StatusChanges
from streams.config.loader import KafkaConfig
from streams.errors import BrokerUnavailable
from streams.kafka.producer import ping
kafka = KafkaConfig(bootstrap_servers="127.0.0.1:1", security={security!r})
OrderProducer(kafka, timeout_s=0.1).close()
StatusChanges(kafka, "g").close()
try: ping(kafka, 0.1)
except BrokerUnavailable as error: print(type(error).__name__)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, **turkish},
    )
    assert done.stdout == "BrokerUnavailable\n", done.stderr


def test_the_demo_agrees_with_its_books(turkish: Mapping[str, str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "orderwatch", "demo", "--orders", "20", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
        env={**os.environ, **turkish, "ORDERWATCH_STATE_DIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def test_a_worker_and_the_commands_work(turkish: Mapping[str, str], system: System, tmp_path: Path) -> None:
    worker = system.start_worker(cwd=Path("/proc"), HOME="", **turkish)
    system.send(
        [
            Created(
                order_id=f"I-{n}",
                tenant_id="shop",
                package_id="sixty",
                user_identifier="İI",
                created_at=datetime.now(UTC),
            )
            for n in range(4)
        ]
    )
    system.wait_for_ends(60)
    order = tmp_path / "orders.jsonl"
    order.write_text(
        json.dumps(
            {
                "order_id": "I-9",
                "tenant_id": "shop",
                "package_id": "sixty",
                "user_identifier": "ı",
                "created_at": "2026-01-01T00:00:00Z",
            }
        ),
        "utf-8",
    )
    for words in (
        ("topics", "apply"),
        ("produce", str(order)),
        ("tail", "orders.created", "--from-start", "--limit", "1"),
        ("order", "show", "shop", "I-0"),
        ("orders", "list"),
        ("config", "check"),
    ):
        done = run(system, turkish, *words)
        assert (done.returncode, b"Traceback" in done.stderr) == (0, False), (words, done.stderr)
    report = json.loads(run(system, turkish, "doctor", "--json").stdout)
    found = {item["check"]: item["verdict"] for item in report["findings"]}
    assert (found["broker"], found["topics"], found["consumer lag"]) == ("ok", "ok", "ok")
    system.sent.add(("shop", "I-9"))
    system.wait_for_ends(60)
    system.stop_worker(worker)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "iso8859-9"])
@pytest.mark.parametrize(
    "words",
    [
        ("tail", "orders.created", "--from-start", "--until-end"),
        ("tail", "orders.created", "--from-start", "--until-end", "--json"),
    ],
)
def test_a_terminal_that_is_not_utf_8_gets_escapes(system: System, encoding: str, words: tuple[str, ...]) -> None:
    system.send(
        [
            Created(
                order_id="terminal",
                tenant_id="shop",
                package_id="İşlem-的",
                user_identifier="i",
                created_at=datetime.now(UTC),
            )
        ]
    )
    system.sent.discard(("shop", "terminal"))
    done = run(system, {}, *words, PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\\u7684" in done.stdout


@pytest.mark.parametrize("as_first_process", [False, True])
def test_a_stop_ends_a_worker_that_waits_for_its_servers(tmp_path: Path, as_first_process: bool) -> None:
    """The first process of a container has no default action for SIGTERM; unshare makes one where it may."""
    config = tmp_path / "config.yaml"
    config.write_text(
        'kafka: {bootstrap_servers: "127.0.0.1:1"}\ndatabase: {url: "postgresql://u@127.0.0.1:1/x"}\n', "utf-8"
    )
    command = [sys.executable, "-m", "orderwatch", "worker", "--wait", "100", "--config", str(config)]
    if as_first_process:
        wrapper = ["unshare", "--pid", "--fork", "--kill-child", "--forward-signals"]
        if subprocess.run([*wrapper, "true"], capture_output=True, check=False).returncode:
            pytest.skip("unshare cannot make a process namespace here")
        command = [*wrapper, *command]
    worker = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert worker.stderr is not None
    assert "waiting" in worker.stderr.readline()
    worker.send_signal(signal.SIGTERM)
    worker.communicate(timeout=15)
    assert worker.returncode != 0


@pytest.mark.parametrize("directory", ["/proc/none", "/proc/1/none"])
def test_bundled_servers_where_nothing_can_be_written_say_so(tmp_path: Path, directory: str) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("kafka: {bootstrap_servers: embedded}\ndatabase: {url: embedded}\n", "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "orderwatch", "worker", "--config", str(config)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "ORDERWATCH_STATE_DIR": directory},
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "set ORDERWATCH_STATE_DIR" in done.stderr
