"""The build files: a lock that pip can trust, and a compose file whose parts fit each other and the code."""

import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from orderwatch.simulator.scenario import load as load_scenario
from orderwatch.simulator.scenario import read
from streams.config.loader import load as load_config

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements.lock").read_text("utf-8")
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = sorted(name for name, service in SERVICES.items() if service["image"] == "orderwatch")


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def normal(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement)[0].lower().replace("_", "-").replace(".", "-")


class TestLock:
    def test_holds_every_dependency_with_one_version_and_its_hashes(self) -> None:
        blocks = re.split(r"\n(?=[a-z0-9])", LOCK.split("\n", 2)[2])
        assert all(re.match(r"[a-z0-9._-]+==\S+( ; .*)? \\\n    --hash=sha256:", block) for block in blocks)
        locked = {normal(block) for block in blocks}
        wanted = {normal(text) for text in project()["dependencies"] + project()["optional-dependencies"]["dev"]}
        assert wanted <= locked

    def test_names_no_registry_and_no_machine(self) -> None:
        assert not re.findall(r"(?im)^.*(?:https?:|file:|index-url|find-links|/home/|/root/|/work/).*$", LOCK)

    def test_holds_what_builds_the_project_without_a_further_download(self) -> None:
        assert re.search(r"(?m)^setuptools==", LOCK)


class TestMakefile:
    def test_a_python_that_is_too_old_is_refused_with_the_way_out(self, tmp_path: Path) -> None:
        old = tmp_path / "python3"
        old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.1 && exit 0\nexit 1\n')
        old.chmod(0o755)
        for name in ("Makefile", "pyproject.toml", "requirements.lock"):
            (tmp_path / name).write_bytes((ROOT / name).read_bytes())
        done = subprocess.run(["make", "test", f"PYTHON={old}"], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 2
        assert "needs Python 3.11 or newer" in done.stderr and "Python 3.9.1" in done.stderr
        assert not (tmp_path / ".venv").exists()

    @pytest.mark.parametrize("target", ["demo", "test", "check", "kafka", "chaos", "bench", "docs", "lock", "clean"])
    def test_every_target_is_explained_by_help(self, target: str) -> None:
        shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert re.search(rf"make {target} +\S", shown)


class TestCi:
    def test_runs_every_suite(self) -> None:
        script = (ROOT / ".ci" / "run").read_text("utf-8")
        run = re.findall(r'^section ".*" make (\w+)', script, re.MULTILINE)
        assert run[:5] == ["test", "check", "kafka", "chaos", "browser"]
        assert "docs" in run
        assert "set -euo pipefail" in script and os.access(ROOT / ".ci" / "run", os.X_OK)

    def test_a_failing_section_ends_it_with_an_error(self, tmp_path: Path) -> None:
        made = tmp_path / ".ci"
        made.mkdir()
        (made / "run").write_bytes((ROOT / ".ci" / "run").read_bytes())
        (tmp_path / "Makefile").write_text("test:\n\t@true\ncheck:\n\t@false\nkafka:\n\t@echo not reached\n")
        done = subprocess.run(["bash", str(made / "run")], capture_output=True, text=True)
        assert done.returncode == 1
        assert "lint and types FAILED" in done.stdout and "not reached" not in done.stdout


def environment(service: str) -> dict[str, str]:
    """As compose gives it: defaults filled in; what has to be exported stands for itself."""
    given = {
        name: re.sub(r"\$\{(\w+)(?::[-?]([^}]*))?\}", lambda found: found[2] or found[1], str(value))
        for name, value in SERVICES[service].get("environment", {}).items()
    }
    return {name: value for name, value in given.items() if "$" not in value}


def written(tmp_path: Path, name: str) -> Path:
    path = tmp_path / name
    path.write_text(COMPOSE["configs"][name]["content"].replace("$$", "$"), "utf-8")
    return path


def commands(app: typer.Typer) -> set[str]:
    """``worker``, ``topics apply``, ...: what a shell would be given after ``orderwatch``."""
    root = typer.main.get_command(app)
    found = set()
    for name, command in root.commands.items():  # type: ignore[attr-defined]
        below = getattr(command, "commands", None)
        found |= {f"{name} {sub}" for sub in below} if below else {name}
    return found


class TestCompose:
    def test_has_the_parts(self) -> None:
        assert set(SERVICES) == {"redpanda", "postgres", "simulator", "init", "worker-1", "worker-2", "dashboard"}
        assert SERVICES["postgres"]["image"].startswith("postgres:18")
        assert SERVICES["redpanda"]["image"].startswith("redpandadata/redpanda:")

    def test_everything_referred_to_exists(self) -> None:
        for service in SERVICES.values():
            for other, wanted in service.get("depends_on", {}).items():
                needs = {"service_healthy": "healthcheck", "service_completed_successfully": "command"}
                assert needs[wanted["condition"]] in SERVICES[other]
            assert {source["source"] for source in service.get("configs", ())} <= set(COMPOSE["configs"])
            named = {volume.split(":")[0] for volume in service.get("volumes", ())}
            assert named <= set(COMPOSE["volumes"])

    def test_ports_are_published_on_this_machine_only(self) -> None:
        ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
        assert ports and all(port.startswith("127.0.0.1:") for port in ports)

    def test_workers_start_after_the_one_shot_set_up_and_have_time_to_drain(self) -> None:
        for name in ("worker-1", "worker-2"):
            assert SERVICES[name]["depends_on"] == {"init": {"condition": "service_completed_successfully"}}
            assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) > 25

    def test_the_dashboard_starts_after_the_set_up_and_is_where_the_configuration_says(self, tmp_path: Path) -> None:
        config = load_config(written(tmp_path, "config.yaml"), environment("dashboard"))
        assert SERVICES["dashboard"]["depends_on"] == {"init": {"condition": "service_completed_successfully"}}
        assert SERVICES["dashboard"]["ports"] == [f"127.0.0.1:8080:{config.web.port}"]
        assert environment("dashboard") == environment("worker-1")

    def test_its_commands_exist(self) -> None:
        from orderwatch.cli.main import app

        lines = [" ".join(SERVICES[name]["command"]) for name in OURS]
        used = {found for line in lines for found in re.findall(r"orderwatch ([a-z]+(?: [a-z]+)?)", line)}
        assert used == {"worker", "dashboard", "db upgrade", "topics apply"}
        assert used <= commands(app)
        assert SERVICES["simulator"]["command"][:3] == ["python", "-m", "orderwatch.simulator"]

    def test_its_configuration_is_valid_and_speaks_to_the_other_services(self, tmp_path: Path) -> None:
        config = load_config(written(tmp_path, "config.yaml"), environment("worker-1"))
        assert config.kafka.bootstrap_servers.split(":")[0] in SERVICES
        assert "@postgres/" in config.database.url.get_secret_value()
        assert environment("init") == environment("worker-1") == environment("worker-2")

    def test_every_integration_is_an_account_of_the_simulator(self, tmp_path: Path) -> None:
        config = load_config(written(tmp_path, "config.yaml"), environment("worker-1"))
        accounts = {account.id: account for account in load_scenario(written(tmp_path, "scenario.yaml")).accounts}
        for integration in config.integrations:
            account = accounts[integration.id]
            assert integration.base_url == f"http://simulator:9001/{account.id}"
            assert integration.currency == account.currency
            plain = {name: value.get_secret_value() for name, value in integration.credentials.items()}
            assert read(plain, type(account.credentials), "credentials") == account.credentials
        for mapping in config.mappings:
            assert mapping.provider_package_id in {row.id for row in accounts[mapping.integration].catalogue}

    def test_a_pin_key_must_be_given_and_none_is_shipped(self) -> None:
        for name in ("worker-1", "worker-2"):
            assert SERVICES[name]["environment"]["ORDERWATCH_PIN_KEYS"].startswith("${ORDERWATCH_PIN_KEYS:?")


class TestImage:
    def test_installs_the_locked_packages_and_runs_as_nobody_special(self) -> None:
        lines = (ROOT / "Dockerfile").read_text("utf-8").splitlines()
        assert any("--require-hashes -r requirements.lock" in line for line in lines)
        assert [line for line in lines if line.startswith("USER ")] == ["USER 10001"]
        assert all(line.split()[1] == "python:3.13-slim" for line in lines if line.startswith("FROM "))

    def test_everything_it_copies_exists_and_is_not_ignored(self) -> None:
        kept = [line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")]
        assert all((ROOT / name).exists() for name in kept)
        packages = {
            text.rstrip("*")
            for text in tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["packages"][
                "find"
            ]["include"]
        }
        assert packages | {"config.yaml", "requirements.lock", "README.md", "LICENSE"} <= set(kept)
