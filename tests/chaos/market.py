"""What is sold in the chaos runs: accounts with their faults, routes, and orders whose end is known beforehand."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from streams.events import Created
from tests.planted import CREDENTIALS, PIN

TENANT = "shop"
#: What a znet shop may do with a reference that it knows already. The first one is the default: it sells again.
REPEATS = ("accept-again", "reject-4", "ok-8", "echo-first")


@dataclass(frozen=True)
class Ware:
    """One package: how often it is ordered (of 100), how many units, and how its order must end."""

    package: str
    weight: int
    ends: str = "completed"
    quantity: int = 1


WARES = (
    Ware("sixty", 44),  # znet, barakat when znet cannot
    Ware("batch", 24),  # barakat alone
    Ware("gone", 12),  # znet refuses, barakat delivers
    Ware("doomed", 7, ends="failed"),  # both refuse
    Ware("cancelled", 6, ends="failed"),  # accepted, then cancelled by the provider
    Ware("slow", 4),  # ends after a while only
    Ware("sixty", 3, quantity=3),  # three lines, three references
)

#: 5 % of the answers to placements are lost, nearly all of them after the provider has bought.
LOST = [
    {"kind": "hang_up_after", "probability": 0.02},
    {"kind": "timeout_after", "probability": 0.01},
    {"kind": "error_after", "probability": 0.01, "status": 502},
    {"kind": "hang_up_before", "probability": 0.01},
]
#: 5 % of the questions fail.
DEAF = [
    {"kind": "html", "probability": 0.02, "operation": "check"},
    {"kind": "error_before", "probability": 0.02, "status": 503, "operation": "check"},
    {"kind": "hang_up_before", "probability": 0.01, "operation": "check"},
]

#: 4 % of the answers to placements do not say what happened, nearly all of them after the provider has bought.
UNTRUE = [
    {"kind": "firewall", "probability": 0.004},
    {"kind": "firewall", "probability": 0.004, "executions": 1},
    {"kind": "error_after", "probability": 0.003, "status": 401, "text": "Unauthorized"},
    {"kind": "error_after", "probability": 0.003, "status": 403, "text": "<html><title>403</title></html>"},
    {"kind": "error_after", "probability": 0.003, "status": 409, "text": "Conflict"},
    {"kind": "unknown_word", "probability": 0.003},
    {"kind": "contradiction", "probability": 0.003},
    {"kind": "second_answer", "probability": 0.004, "text": "3|Yetersiz Bakiye"},
    {"kind": "late_408", "probability": 0.004},
    {"kind": "late_pin", "probability": 0.004},
    {"kind": "cost", "probability": 0.004},
]
#: 5 % of the answers to questions are of no use, or about something else.
DOUBTFUL = [
    {"kind": "unknown_word", "probability": 0.008, "operation": "check"},
    {"kind": "two_rows", "probability": 0.008, "operation": "check"},
    {"kind": "contradiction", "probability": 0.008, "operation": "check"},
    {"kind": "placeholder", "probability": 0.008, "operation": "check", "text": "Kod yok"},
    {"kind": "second_answer", "probability": 0.008, "operation": "check"},
    {"kind": "late_408", "probability": 0.004, "operation": "check"},
    {"kind": "stale", "probability": 0.004, "operation": "check"},
]
#: Texts of a shop that sold and says that it was sold before, or that it does not know.
SOLD_SAYS = (
    "Daha &Ouml;nce G&ouml;nderilmi&#351;",
    "Mu\u0308kerrer\u00a0is\u0327lem",
    "Duplicate order for this product",
    "الطلب مكرر",
    "Bilinmeyen hata",
)


def _sold_says(form: str) -> list[dict[str, Any]]:
    """``form`` is the shop's refusal with its text left open."""
    return [{"kind": "say", "probability": 0.002, "text": form.replace("{}", text)} for text in SOLD_SAYS]


#: What only one of the two protocols can say.
ZNET_SAYS = [
    *_sold_says("3|{}"),
    {"kind": "say", "probability": 0.005, "operation": "check", "text": "3|Sistem bakımda"},
    {
        "kind": "say",
        "probability": 0.005,
        "operation": "check",
        "text": "3|Çok sık sorgulama yaptınız, 10 sn bekleyiniz",
    },
]
ZDK_SAYS = [
    *_sold_says('{"status":"ERROR","message":"{}"}'),
    {"kind": "say", "probability": 0.002, "status": 409, "text": '{"success":false,"message":"Duplicate order_uuid"}'},
    *(
        {"kind": "stranger", "probability": 0.003, "operation": "check", "field": field}
        for field in ("player", "product", "quantity")
    ),
]

LOST_KINDS = {fault["kind"] for fault in LOST}
UNTRUE_KINDS = {fault["kind"] for fault in [*UNTRUE, *DOUBTFUL, *ZNET_SAYS, *ZDK_SAYS]} - LOST_KINDS


def orders(count: int, seed: int) -> Iterator[tuple[Created, str]]:
    """``count`` orders of the mix, each with the status that it must end with; the same for the same seed."""
    chance = random.Random(f"orders:{seed}")
    weights = [ware.weight for ware in WARES]
    for number in range(count):
        [ware] = chance.choices(WARES, weights)
        created = Created(
            order_id=f"c{seed}-{number}",
            tenant_id=TENANT,
            package_id=ware.package,
            quantity=ware.quantity,
            user_identifier=f"player-{number}-planted",
            created_at=datetime.now(UTC),
        )
        yield created, ware.ends


def scenario(latency_ms: float = 40.0, repeat: str = REPEATS[0]) -> dict[str, Any]:
    """Two accounts of the simulator; a placement that is sent twice to znet is bought twice, unless ``repeat``
    names another of ``REPEATS``."""
    latency = {"kind": "lognormal", "median_ms": latency_ms, "sigma": 0.6, "max_ms": 900}
    life = {"after_checks": 1, "pin": PIN}
    common = {"balance": 100_000_000, "latency": latency, "life": life}
    shared = [*LOST, *DEAF, *UNTRUE, *DOUBTFUL]
    return {
        "accounts": [
            {
                **common,
                "id": "znet-main",
                "kind": "znet",
                "faults": [*shared, *ZNET_SAYS],
                "switches": {"repeat": repeat},
                "currency": "TRY",
                "credentials": {"kod": CREDENTIALS["ZNET_KOD"], "sifre": CREDENTIALS["ZNET_SIFRE"]},
                "catalogue": [
                    {"id": "1", "name": "Sixty", "oyun": "1", "kupur": "60", "price": "10.00"},
                    {"id": "2", "name": "Gone", "oyun": "1", "kupur": "99", "price": "10.00", "available": False},
                    {"id": "3", "name": "Cancelled", "oyun": "1", "kupur": "30", "price": "5.00"},
                    {"id": "4", "name": "Slow", "oyun": "1", "kupur": "40", "price": "5.00"},
                ],
            },
            {
                **common,
                "id": "barakat-1",
                "kind": "zdk",
                "faults": [*shared, *ZDK_SAYS],
                "currency": "USD",
                "credentials": {"token": CREDENTIALS["BARAKAT_TOKEN"]},
                "catalogue": [
                    {"id": "10", "name": "Sixty", "price": "0.90", "qty_values": {"min": 1, "max": 9}},
                    {"id": "20", "name": "Gone", "price": "0.90"},
                    {"id": "30", "name": "Doomed", "price": "0.90", "available": False},
                ],
            },
        ],
        "lives": [
            {"account": "znet-main", "package": "3", "final": "fail", "after_checks": 1},
            {"account": "znet-main", "package": "4", "after_checks": 3, "after_ms": 4000},
        ],
    }


def catalogue(urls: dict[str, str]) -> dict[str, Any]:
    """Integrations, routes and mappings of config.yaml; ``urls`` gives the base URL of each account."""
    limits = {"rate": "500/s", "concurrency": 50, "connect_timeout": "1s", "timeout": "2s"}
    breaker = {"fail_max": 20, "reset_after": "2s", "slow_start": "3s", "refusals_max": 5000}
    common = {"tenant_id": TENANT, "limits": limits, "breaker": breaker}
    return {
        "integrations": [
            {
                **common,
                "id": "znet-main",
                "provider": "znet",
                "currency": "TRY",
                "base_url": urls["znet-main"],
                "credentials": {"kod": "${ZNET_KOD:-demo}", "sifre": "${ZNET_SIFRE:-demo}"},
                "profile": {"absent_settle_s": 3, "absent_answers": 3, "absent_window_s": 3},
            },
            {
                **common,
                "id": "barakat-1",
                "provider": "barakat",
                "currency": "USD",
                "base_url": urls["barakat-1"],
                "credentials": {"token": "${BARAKAT_TOKEN:-demo}"},
                "profile": {"absent_settle_s": 3, "absent_answers": 2, "absent_window_s": 2},
            },
        ],
        "routes": [
            _route("sixty", "znet-main", "barakat-1"),
            _route("batch", "barakat-1"),
            _route("gone", "znet-main", "barakat-1"),
            _route("doomed", "znet-main", "barakat-1"),
            _route("cancelled", "znet-main"),
            _route("slow", "znet-main"),
        ],
        "mappings": [
            _mapping("sixty", "znet-main", "1", oyun="1", kupur="60"),
            _mapping("sixty", "barakat-1", "10"),
            _mapping("batch", "barakat-1", "10"),
            _mapping("gone", "znet-main", "2", oyun="1", kupur="99"),
            _mapping("gone", "barakat-1", "20"),
            _mapping("doomed", "znet-main", "2", oyun="1", kupur="99"),
            _mapping("doomed", "barakat-1", "30"),
            _mapping("cancelled", "znet-main", "3", oyun="1", kupur="30"),
            _mapping("slow", "znet-main", "4", oyun="1", kupur="40"),
        ],
    }


def _route(package: str, primary: str, fallback: str | None = None) -> dict[str, Any]:
    route = {
        "tenant_id": TENANT,
        "package_id": package,
        "mode": "auto",
        "provider_type": "external",
        "primary": primary,
    }
    return {**route, "fallback": fallback} if fallback else route


def _mapping(package: str, integration: str, there: str, **wire: str) -> dict[str, Any]:
    return {
        "tenant_id": TENANT,
        "package_id": package,
        "integration": integration,
        "provider_package_id": there,
        "delivers_pin": True,
        **wire,
    }
