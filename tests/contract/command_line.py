"""The command line as a person meets it: arguments in; exit status, stdout and stderr out; real servers behind it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orderwatch.cli.main import main
from streams.seal import VARIABLE, new_key

CONFIG = """
kafka: {bootstrap_servers: "${KAFKA_BOOTSTRAP_SERVERS:-embedded}", topic_prefix: "${PREFIX:-}"}
database: {url: "${DATABASE_URL:-embedded}"}
integrations:
  - id: znet-main
    tenant_id: demo
    provider: znet
    base_url: ${PROVIDER:-http://127.0.0.1:1/znet-main}
    currency: TRY
    credentials: {kod: "${ZNET_KOD:-demo}", sifre: "${ZNET_SIFRE:-secret-word}"}
    limits: {connect_timeout: 1s, timeout: 2s}
routes:
  - {tenant_id: demo, package_id: pubg-60, mode: auto, provider_type: external, primary: znet-main}
mappings:
  - {tenant_id: demo, package_id: pubg-60, integration: znet-main, provider_package_id: "1", oyun: "1", kupur: UC60}
"""


@dataclass
class Said:
    """How one command ended."""

    status: int
    out: str
    err: str

    def document(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)


class CommandLine:
    """Runs commands in this process, in a directory of its own with a config.yaml."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory = directory
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        monkeypatch.chdir(directory)
        (directory / "config.yaml").write_text(CONFIG, encoding="utf-8")
        self.set(USER="ayse", **{VARIABLE: new_key()})

    def set(self, **environ: str) -> None:
        for name, value in environ.items():
            self._monkeypatch.setenv(name, value)

    def unset(self, name: str) -> None:
        self._monkeypatch.delenv(name)

    def __call__(self, *arguments: str) -> Said:
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        out, err = self._capsys.readouterr()
        assert "Traceback" not in err
        assert "secret-word" not in out + err
        return Said(int(ended.value.code or 0), out, err)
