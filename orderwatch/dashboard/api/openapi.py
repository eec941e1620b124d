"""The OpenAPI 3.1 document of the application, and what its generator does not see by itself."""

from importlib.metadata import version
from inspect import cleandoc
from typing import Any

import msgspec
import yaml
from litestar import Litestar, Request, Router
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme

from orderwatch.dashboard.api.endpoints import Strict
from orderwatch.dashboard.api.webhooks import Called
from orderwatch.dashboard.auth import PUBLIC


def settings() -> OpenAPIConfig:
    """Served at /api/openapi.json."""
    return OpenAPIConfig(
        title="Orderwatch",
        version=version("orderwatch"),
        description="Orders, what they wait for, and what a person may do about it. docs/http-api.md has examples.",
        operation_id_creator=lambda handler, method, path: handler.handler_name,
        openapi_router=Router("/api/openapi.json", route_handlers=[], opt={"needs": PUBLIC}, include_in_schema=False),
        render_plugins=[Described(path=["/", "/openapi.json"])],
        components=Components(
            security_schemes={
                "token": SecurityScheme(type="http", scheme="bearer", description="of `orderwatch token create`")
            }
        ),
        security=[{"token": []}],
    )


class Described(JsonRenderPlugin):
    """The generator's document, completed."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        return super().render(request, completed(openapi_schema))


def completed(made: dict[str, Any]) -> dict[str, Any]:
    """Request bodies as msgspec itself describes them: the generator drops limits of fields that may be null, names of
    mappings, and that there are no further fields. Docstrings lose their indentation, as Python 3.13 takes it off."""
    bodies: tuple[type[msgspec.Struct], ...] = (*Strict.__subclasses__(), Called)
    _, components = msgspec.json.schema_components(bodies, ref_template="#/components/schemas/{name}")
    described = {
        kind.__name__: components[kind.__name__] | {"description": cleandoc(kind.__doc__ or "")} for kind in bodies
    }
    schemas = made["components"]["schemas"] | described
    return made | {"components": made["components"] | {"schemas": schemas}}


def document(app: Litestar) -> dict[str, Any]:
    """As plain data."""
    return completed(app.openapi_schema.to_schema())


def text(made: dict[str, Any]) -> str:
    """As docs/openapi.yaml has it."""
    return "# Written by `orderwatch openapi`; a test compares it with the application.\n" + yaml.safe_dump(
        made, sort_keys=False, allow_unicode=True, width=120
    )
