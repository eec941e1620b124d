"""The configuration that the workers follow: integrations, routes and mappings out of the database."""

from db.control import stored_config
from orderwatch.dashboard.context import Parts
from orderwatch.dashboard.problems import Refused
from streams.config.loader import Config, with_catalog
from streams.errors import ConfigError


def followed(parts: Parts) -> Config:
    """Read again only when it changed. Blocks. Raises ``Refused`` when this process cannot read it."""
    revision = stored_config.revision(parts.engine)
    if parts.catalogue is None or parts.catalogue[0] != revision:
        docs = stored_config.read(parts.engine)
        try:
            config = with_catalog(parts.config, docs, parts.environ) if docs.integrations else parts.config
        except ConfigError as error:
            line = str(error).splitlines()[0]
            raise Refused(503, f"this dashboard cannot read the stored catalogue: {line}") from None
        parts.catalogue = (revision, config)
    return parts.catalogue[1]
