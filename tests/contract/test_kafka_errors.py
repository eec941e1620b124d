"""A broker that cannot be used is named in the client's own words, without credentials, and at once where waiting
cannot help."""

import datetime
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from orderwatch.localservers.bundled import Broker, free_port
from orderwatch.support import doctor
from orderwatch.worker.startup import _answered
from streams.config.loader import Config, KafkaConfig, load
from streams.errors import BrokerRefused, BrokerUnavailable, ConfigError
from streams.kafka.producer import Emitter, apply_topics, ping
from tests.contract.command_line import CommandLine

SASL = {"mechanism": "PLAIN", "username": "planted-user", "password": "planted-password"}


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(tmp_path, monkeypatch, capsys)


@pytest.fixture
def tls_server(tmp_path: Path) -> Iterator[str]:
    """A TLS server whose certificate no authority signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "server.pem"
    pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            try:
                context.wrap_socket(client, server_side=True).close()
            except OSError:
                client.close()

    thread = threading.Thread(target=accept)
    thread.start()
    yield f"127.0.0.1:{server.getsockname()[1]}"
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join(5)


def test_a_certificate_that_nobody_vouches_for_is_named_and_not_waited_for(tls_server: str) -> None:
    kafka = KafkaConfig(bootstrap_servers=tls_server, security={"protocol": "SSL"})
    with pytest.raises(BrokerRefused, match="certificate verify failed"):
        _answered(lambda: ping(kafka, 20), time.monotonic() + 60)


def test_a_host_that_does_not_resolve_is_named() -> None:
    with pytest.raises(BrokerUnavailable, match=r"Failed to resolve 'nowhere\.invalid:9092'"):
        ping(KafkaConfig(bootstrap_servers="nowhere.invalid:9092"), 2)


def test_a_port_where_nobody_listens_is_named() -> None:
    with pytest.raises(BrokerUnavailable, match="Connection refused"):
        ping(KafkaConfig(bootstrap_servers=f"127.0.0.1:{free_port()}"), 1)


@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SASL_SSL"])
def test_no_error_text_has_a_credential(broker: Broker, protocol: str) -> None:
    kafka = KafkaConfig(bootstrap_servers=broker.address, security={**SASL, "protocol": protocol})
    with pytest.raises(BrokerUnavailable) as raised:
        ping(kafka, 1)
    assert "planted" not in str(raised.value)


async def test_a_ca_file_that_is_missing_is_a_mistake_of_the_configuration_everywhere() -> None:
    security = {**SASL, "protocol": "SASL_SSL", "ca": "/none/ca.pem"}
    kafka = KafkaConfig(bootstrap_servers="127.0.0.1:1", security=security)
    for use in (ping, lambda wire: apply_topics(wire, [])):
        with pytest.raises(ConfigError, match=r"ssl\.ca\.location") as raised:
            use(kafka)
        assert "planted" not in str(raised.value)
    with pytest.raises(ConfigError):
        await Emitter(kafka).start()


@pytest.mark.parametrize("name", ["ca", "cert", "key"])
def test_config_check_refuses_a_file_that_is_not_there(command: CommandLine, name: str) -> None:
    path = command.directory / "config.yaml"
    here = path.as_posix()
    files = {"ca": here} if name == "ca" else {"cert": here, "key": here}
    security = json.dumps({"protocol": "SSL", **files, name: f"/none/{name}.pem"})
    text = path.read_text("utf-8").replace('topic_prefix: "${PREFIX:-}"', f"topic_prefix: x, security: {security}")
    path.write_text(text, encoding="utf-8")
    command.set(KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
    said = command("config", "check")
    assert said.status == 2
    assert f"kafka.security.{name} is /none/{name}.pem, which is no file; expected a PEM file" in said.err
    assert command("worker").status == 2
    load(path, {})  # who reads the file elsewhere may not have it


def test_the_doctor_names_an_advertised_listener_that_does_not_resolve(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "brokers", lambda kafka: {1: ("127.0.0.1", 9092), 2: ("kafka.invalid", 9092)})
    config = Config(kafka={"bootstrap_servers": broker.address}, database={"url": "embedded"})
    [finding] = doctor._broker(config)
    assert finding.verdict == "fail" and "broker 2 advertises kafka.invalid:9092" in finding.finding
    assert "advertised.listeners" in finding.remedy
