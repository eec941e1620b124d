"""A worker does its work with the rights that docs/operating.md lists, and no others; what is refused is named and not
waited for. On Apache Kafka with SASL and its StandardAuthorizer."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from orderwatch.localservers.bundled import free_port
from streams.kafka.producer import apply_topics
from streams.topics import every
from tests.integration.conftest import Start
from tests.integration.test_kafka_accidents import orders
from tests.parts import ROOT, Kafka
from tests.system import System

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]
PASSWORD = "planted-password"
DOCUMENT = ROOT / "docs/operating.md"
TYPES = {"topic": ResourceType.TOPIC, "group": ResourceType.GROUP}


class Guarded(Kafka):
    """A node with a second listener, where clients have to log in; at the first one everything is allowed."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        client, controller = self._ports[1]
        self.port = free_port()
        self._settings |= {
            "listeners": f"PLAINTEXT://127.0.0.1:{client},SASL_PLAINTEXT://127.0.0.1:{self.port},"
            f"CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{client},SASL_PLAINTEXT://127.0.0.1:{self.port}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.sasl_plaintext.plain.sasl.jaas.config": "org.apache.kafka.common.security"
            ".plain.PlainLoginModule required "
            f'user_ow="{PASSWORD}";',
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
        }

    def admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.address})

    def allow(self, kind: ResourceType, name: str, pattern: ResourcePatternType, operation: AclOperation) -> None:
        binding = AclBinding(kind, name, pattern, "User:ow", "*", operation, AclPermissionType.ALLOW)
        admin = self.admin()
        admin.create_acls([binding])[binding].result(15)

    def forbid_everything(self) -> None:
        every_one = AclBindingFilter(
            ResourceType.ANY, None, ResourcePatternType.ANY, "User:ow", None, AclOperation.ANY, AclPermissionType.ANY
        )
        admin = self.admin()
        admin.delete_acls([every_one])[every_one].result(15)


@pytest.fixture(scope="module")
def guarded(parts_directory: Path) -> Iterator[Guarded]:
    with Guarded(parts_directory / "kafka-guarded") as running:
        yield running


def security(password: str = PASSWORD) -> dict[str, str]:
    return {"protocol": "SASL_PLAINTEXT", "mechanism": "PLAIN", "username": "ow", "password": password}


@pytest.fixture
def system(system_of: Start, guarded: Guarded) -> System:
    for kind in TYPES.values():
        guarded.allow(kind, "*", ResourcePatternType.LITERAL, AclOperation.ALL)
    running = system_of(f"127.0.0.1:{guarded.port}", settings={"kafka": {"security": security()}})
    guarded.forbid_everything()
    return running


def documented(who: str) -> list[tuple[str, str, list[str]]]:
    """(kind, name without prefix, operations) of the table in the document; a name may end with a star."""
    section = DOCUMENT.read_text("utf-8").partition("## Rights (Kafka)")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+) \| (topic|group) \| ([^|]+) \| ([^|]+) \|$", section, re.M)
    return [
        (kind, name, operations.split(", "))
        for by, kind, names, operations in rows
        if by == who
        for name in re.findall(r"`([^`]+)`", names)
    ]


def grant(guarded: Guarded, system: System, who: str) -> None:
    for kind, name, operations in documented(who):
        pattern = ResourcePatternType.PREFIXED if name.endswith("*") else ResourcePatternType.LITERAL
        for operation in operations:
            guarded.allow(TYPES[kind], system.prefix + name.rstrip("*"), pattern, AclOperation[operation])


def test_a_worker_needs_the_rights_of_the_document_and_no_more(guarded: Guarded, system: System) -> None:
    grant(guarded, system, "worker")
    system.start_worker()
    grant(guarded, system, "shop")
    system.send(orders("allowed", 20))
    system.wait_for_ends(90)
    assert "uthorization" not in system.log_tail()
    assert system.books().agree
    plain = subprocess.Popen(
        [sys.executable, "-m", "orderwatch", "worker", "--web-port", "0"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "ORDERWATCH_CONFIG": str(system.config_path), "ORDERWATCH_PIN_KEYS": system.pin_keys},
    )
    time.sleep(8)
    assert plain.poll() is None, "it starts where the topics exist, without a right to create or describe settings"
    plain.terminate()
    assert "uthorization" not in plain.communicate(timeout=60)[1]


def test_tail_needs_the_rights_of_the_document(guarded: Guarded, system: System) -> None:
    refused = system.command("tail", "orders.created", "--from-start", "--until-end")
    assert refused.returncode == 2
    grant(guarded, system, "reader")
    allowed = system.command("tail", "orders.created", "--from-start", "--until-end")
    assert (allowed.returncode, allowed.stderr) == (0, "")


def test_topics_are_applied_with_the_rights_of_the_document(guarded: Guarded, system: System) -> None:
    grant(guarded, system, "administrator")
    grown = system.config.model_copy(update={"kafka": system.config.kafka.model_copy(update={"partitions": 6})})
    said = apply_topics(grown.kafka, every(grown), fix=True, grow=True)
    assert said and all(item.applied for item in said), said


def test_a_right_that_is_missing_is_named_with_its_document(guarded: Guarded, system: System) -> None:
    grant(guarded, system, "worker")
    said = system.command("topics", "apply")
    assert said.returncode == 2
    assert "uthorization failed" in said.stderr and "docs/operating.md" in said.stderr
    assert "Traceback" not in said.stderr


@pytest.mark.parametrize("words", [("worker", "--wait", "90"), ("topics", "apply"), ("tail", "orders.created")])
def test_a_wrong_password_is_said_without_credentials(guarded: Guarded, system: System, words: tuple[str, ...]) -> None:
    system.config_path.write_text(system.config_path.read_text("utf-8").replace(PASSWORD, "planted-wrong"), "utf-8")
    began = time.monotonic()
    said = system.command(*words)
    assert said.returncode == 2
    assert "Authentication failed" in said.stderr or "uthenticat" in said.stderr
    assert "planted" not in said.stderr + said.stdout
    assert "waiting" not in said.stderr, f"nobody waits for it: {time.monotonic() - began:.0f} s"


def test_tls_to_a_broker_without_it_says_so(guarded: Guarded, system: System) -> None:
    text = system.config_path.read_text("utf-8").replace("SASL_PLAINTEXT", "SASL_SSL")
    system.config_path.write_text(text, "utf-8")
    said = system.command("worker", "--wait", "1")
    assert said.returncode == 2 and "SSL" in said.stderr
