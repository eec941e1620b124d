"""What only the providers know about a configuration: their credentials, options and mapping keys."""

from collections.abc import Iterator

from agents.providers import registry
from streams.config.loader import Config


def problems(config: Config) -> list[str]:
    """Lines ``<key> is <value>; expected <what>``, without secrets: ``extra_checks`` of the loader."""
    return [*_of_integrations(config), *_of_mappings(config)]


def _of_integrations(config: Config) -> Iterator[str]:
    for integration in config.integrations:
        doc = integration.model_dump(exclude_none=True)
        doc["credentials"] = dict.fromkeys(integration.credentials, "***")
        for line in registry.check_integration(doc):
            yield f"{integration.key}.{line.removeprefix(f'integrations[{integration.id}].')}"


def _of_mappings(config: Config) -> Iterator[str]:
    for mapping in config.mappings:
        integration = config.integration(mapping.integration)
        if integration is not None:
            name = f"{mapping.tenant_id}/{mapping.package_id}/{mapping.integration}"
            for line in registry.check_mapping(mapping.model_dump(exclude_none=True), integration.provider):
                yield f"{mapping.key}.{line.removeprefix(f'mappings[{name}].')}"
