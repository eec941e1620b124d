"""What a benchmark may be told, and the configuration and scenario that follow from it. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from streams.errors import ConfigError
from streams.events import Created

TENANT = "shop"
PACKAGES = {"znet": "sixty", "barakat": "batch"}
#: The rate of a lane that is not to be in the way.
_NO_LIMIT = "100000/s"


@dataclass(frozen=True, slots=True)
class Options:
    """One load. ``rate`` is orders per second, 0 for as fast as the broker takes them; ``checks`` until completed."""

    orders: int = 20_000
    checks: int = 1
    latency_ms: float = 50.0
    mix: Mapping[str, float] = field(default_factory=lambda: {"znet": 1.0})
    workers: int = 1
    concurrency: int = 200
    rate: float = 0.0
    check_after_s: float = 1.0
    first_after_s: float = 0.0  # 0: as check_after_s
    warm_up: int = 300
    limit_s: float = 300.0
    check_rate: float = 0.0  # of every lane, per second; 0: no limit


def mix_of(text: str) -> dict[str, float]:
    """``znet`` or ``znet=8,barakat=2`` as shares. Raises ``ConfigError`` naming what was expected."""
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, _, weight = part.partition("=")
        try:
            shares[name.strip()] = float(weight or 1)
        except ValueError:
            raise ConfigError(f"--mix: {part!r} has no number; expected like znet=8,barakat=2") from None
    if unknown := sorted(set(shares) - set(PACKAGES)):
        raise ConfigError(f"--mix: {unknown[0]!r} is no provider of the benchmark; expected {' or '.join(PACKAGES)}")
    if min(shares.values()) < 0 or sum(shares.values()) <= 0:
        raise ConfigError("--mix: the shares add up to nothing; expected at least one above 0")
    return shares


def orders(options: Options, prefix: str, count: int) -> Iterator[Created]:
    """The shop's orders, the providers mixed evenly."""
    total = sum(options.mix.values())
    owed = dict.fromkeys(options.mix, 0.0)
    for number in range(count):
        for name, share in options.mix.items():
            owed[name] += share / total
        chosen = max(owed, key=lambda name: owed[name])
        owed[chosen] -= 1
        yield Created(
            order_id=f"{prefix}{number}",
            tenant_id=TENANT,
            package_id=PACKAGES[chosen],
            user_identifier=f"5{number:09d}",
            created_at=datetime.now(UTC),
        )


def scenario(options: Options) -> dict[str, Any]:
    """The simulator's accounts: enough money, a constant answer time, an end after so many checks."""
    common = {
        "balance": "1000000000",
        "latency": {"kind": "constant", "ms": options.latency_ms},
        "life": {"after_checks": options.checks},
    }
    return {
        "accounts": [
            {
                **common,
                "id": "znet-1",
                "kind": "znet",
                "currency": "TRY",
                "credentials": {"kod": "k", "sifre": "s"},
                "catalogue": [{"id": "1", "name": "Sixty", "oyun": "1", "kupur": "60", "price": "10.00"}],
            },
            {
                **common,
                "id": "barakat-1",
                "kind": "zdk",
                "currency": "USD",
                "credentials": {"token": "t"},
                "catalogue": [{"id": "10", "name": "Sixty", "price": "0.90"}],
            },
        ]
    }


def config(options: Options, broker: str, prefix: str, database: str, provider_url: str) -> dict[str, Any]:
    """An operator's config.yaml: defaults everywhere but for the addresses, the schedule and lanes without a limit."""
    every = f"{options.check_after_s * 1000:.0f}ms"
    first = f"{(options.first_after_s or options.check_after_s) * 1000:.0f}ms"
    limits: dict[str, Any] = {"rate": _NO_LIMIT, "concurrency": options.concurrency}
    if options.check_rate > 0:
        limits["check_rate"] = f"{options.check_rate:g}/s"
    wire = {"znet": {"provider_package_id": "1", "oyun": "1", "kupur": "60"}, "barakat": {"provider_package_id": "10"}}
    return {
        "kafka": {"bootstrap_servers": broker, "topic_prefix": prefix},
        "database": {"url": database},
        "checks": {"first_after": first, "backoff": {"base": every, "factor": 1, "max": every}, "requeue_after": every},
        "integrations": [
            {
                "id": "znet-1",
                "tenant_id": TENANT,
                "provider": "znet",
                "currency": "TRY",
                "limits": limits,
                "base_url": f"{provider_url}/znet-1",
                "credentials": {"kod": "${BENCH_KOD}", "sifre": "${BENCH_SIFRE}"},
            },
            {
                "id": "barakat-1",
                "tenant_id": TENANT,
                "provider": "barakat",
                "currency": "USD",
                "limits": limits,
                "base_url": f"{provider_url}/barakat-1",
                "credentials": {"token": "${BENCH_TOKEN}"},
            },
        ],
        "routes": [
            {
                "tenant_id": TENANT,
                "package_id": package,
                "mode": "auto",
                "provider_type": "external",
                "primary": f"{name}-1",
            }
            for name, package in PACKAGES.items()
        ],
        "mappings": [
            {"tenant_id": TENANT, "package_id": package, "integration": f"{name}-1", "delivers_pin": True, **wire[name]}
            for name, package in PACKAGES.items()
        ],
    }


ACCESS = {"BENCH_KOD": "k", "BENCH_SIFRE": "s", "BENCH_TOKEN": "t"}
