"""What dispatch would do with an order: the same requests as a worker's, with no credential in them and no way out."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from agents.diagnosis.dry_run import MASK, DryRun, dry_routing, dry_run_order
from agents.domain.routing import Waiting
from agents.providers.base import OrderFacts
from streams.config.loader import Config, load
from streams.order import AttentionCode

ROOT = Path(__file__).parents[2]


def loaded(**changes: Any) -> Config:
    """The shipped configuration; ``changes`` per integration id."""
    document = yaml.safe_load((ROOT / "config.yaml").read_text("utf-8"))
    for integration in document["integrations"]:
        integration |= changes.get(integration["id"].replace("-", "_"), {})
    path = Path(changes["path"])
    path.write_text(yaml.safe_dump(document), "utf-8")
    return load(path, {"ZNET_KOD": "4711", "ZNET_SIFRE": "secret-word", "BARAKAT_TOKEN": "secret-token"})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config.yaml"


def facts(package: str, **fields: Any) -> OrderFacts:
    made = {"tenant_id": "demo", "order_id": "o-1", "quantity": 1, "user_identifier": "player 77"} | fields
    return OrderFacts(package_id=package, **made)


def steps(found: DryRun, integration: str | None = None) -> dict[str, bool | None]:
    return {step.name: step.ok for step in found.steps if integration is None or step.integration == integration}


async def test_every_route_of_the_shipped_configuration_shows_its_request_without_a_credential(path: Path) -> None:
    config = loaded(path=path)
    for route in config.routes:
        found = await dry_run_order(
            config, facts(route.package_id, tenant_id=route.tenant_id, customer_phone="5551112233")
        )
        text = repr(found)
        assert "secret" not in text and "4711" not in text
        if route.mode == "auto":
            assert found.integration == route.primary, found.says
            assert steps(found, route.primary)["request"], found
        else:
            assert (found.integration, found.code) == (None, "manual_route")


async def test_the_request_is_the_one_of_the_adapter(path: Path) -> None:
    config = loaded(path=path, znet_main={"base_url": "http://127.0.0.1:9/znet"})
    [route] = [r for r in config.routes if r.tenant_id == "demo" and r.primary == "znet-main" and r.mode == "auto"][:1]
    found = await dry_run_order(config, facts(route.package_id))
    [request] = [step for step in found.steps if (step.name, step.integration) == ("request", "znet-main")]
    assert request.shown["method"] == "GET"
    assert request.shown["url"].startswith(f"http://127.0.0.1:9/znet/servis/pin_ekle.php?kod={MASK}&sifre={MASK}&oyun=")
    assert "oyuncu_bilgi=player%2077" in request.shown["url"]
    attempts = dry_routing(config).first(facts(route.package_id))
    assert not isinstance(attempts, Waiting)
    assert f"referans={attempts[0].reference}" in request.shown["url"]


async def test_a_step_that_fails_says_why_and_the_rest_is_not_reached(path: Path) -> None:
    config = loaded(path=path, znet_main={"enabled": False})
    [route] = [r for r in config.routes if r.tenant_id == "demo" and r.primary == "znet-main" and r.mode == "auto"][:1]
    found = await dry_run_order(config, facts(route.package_id))
    assert steps(found, "znet-main") == {
        "integration": True,
        "enabled": False,
        "mapping": None,
        "parameters": None,
        "reference": None,
        "request": None,
    }
    assert found.integration == route.fallback


async def test_what_is_missing_is_told_as_dispatch_would_tell_it(path: Path) -> None:
    config = loaded(path=path)
    unknown = await dry_run_order(config, facts("no-such-package"))
    assert (unknown.code, steps(unknown)) == (AttentionCode.NO_ROUTING, {"route": False})
    [route] = [r for r in config.routes if r.tenant_id == "demo" and r.mode == "auto"][:1]
    lacking = await dry_run_order(config, facts(route.package_id, user_identifier=" "))
    assert lacking.code == AttentionCode.INVALID_ORDER and "user_identifier" in lacking.says
    assert steps(lacking, route.primary)["parameters"] is False
