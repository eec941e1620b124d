"""How the engine sees an integration of the configuration: its adapter, what it can do, its delays."""

from collections.abc import Mapping

from agents.domain.routing import Account
from agents.domain.schedule import Schedule
from agents.providers import registry
from agents.providers.base import Http, Provider, Seal, Setup, Stock
from streams.config.loader import Config, IntegrationConfig


def adapter(
    integration: IntegrationConfig, http: Http, seal: Seal, stock: Stock, credentials: Mapping[str, str] | None = None
) -> Provider:
    """The adapter of an integration, with ``credentials`` in place of the configured ones if given.

    Raises ``ConfigError`` for an unknown provider.
    """
    if credentials is None:
        credentials = {name: value.get_secret_value() for name, value in integration.credentials.items()}
    return registry.build(
        integration.provider,
        Setup(
            integration_id=integration.id,
            tenant_id=integration.tenant_id,
            currency=integration.currency or "",
            http=http,
            seal=seal,
            stock=stock,
            credentials=credentials,
            options=integration.options,
        ),
    )


def account(config: Config, integration: IntegrationConfig, adapter: Provider, tiers: tuple[float, ...]) -> Account:
    """How the engine sees an integration."""
    return Account(
        integration_id=integration.id,
        provider=integration.provider,
        enabled=integration.enabled,
        adapter=adapter,
        profile=registry.profile_of(integration.provider, integration.profile),
        schedule=schedule_of(config, integration, tiers),
        lease_s=config.lease_s(integration),
        call_s=integration.limits.timeout + integration.limits.connect_timeout,
    )


def schedule_of(config: Config, integration: IntegrationConfig, tiers: tuple[float, ...]) -> Schedule:
    """The delays of an integration."""
    return Schedule(
        first_after_s=config.first_after(integration),
        backoff_steps_s=config.backoff(integration).steps,
        requeue_s=config.checks.requeue_after,
        watch_every_s=config.checks.after_final.every,
        watch_for_s=config.checks.after_final.until,
        tiers=tiers,
    )
