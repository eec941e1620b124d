"""Which providers there are, and whether an integration or a mapping fits its provider.

A plug-in is a class that satisfies ``base.Provider`` behind an entry point of group ``orderwatch.providers``. It may
also have a static method ``option_problems(options) -> list[str]`` and a frozenset ``reserved`` of the wire parameters
that a mapping's ``params`` must leave alone.
"""

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from importlib import metadata
from typing import Any, cast

from agents.providers.base import Profile, Provider, Refusal, Setup
from agents.providers.codes import Codes
from agents.providers.wire import OURS
from agents.providers.zdk.adapter import Barakat
from agents.providers.znet.adapter import Znet
from streams.errors import ConfigError

GROUP = "orderwatch.providers"

#: Options of an integration that are not the adapter's.
_COMMON_OPTIONS = frozenset({"allow_http"})
#: Credentials of an integration that are not the adapter's: the secret behind POST /hooks/{integration}.
_COMMON_CREDENTIALS = frozenset({"callback_secret"})
_BUILT_IN: dict[str, type[Provider]] = {"apstore": Barakat, "barakat": Barakat, "codes": Codes, "znet": Znet}
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}?")
_KNOWN_PLACEHOLDERS = frozenset({"user_identifier", "extra_field", "customer_phone", "quantity", "order_id"})
_TEMPLATE_KEYS = ("player",)


@functools.cache
def providers() -> dict[str, type[Provider]]:
    """Every provider by name, in order of name. Raises ``ConfigError`` for a plug-in that cannot be loaded."""
    found = dict(_BUILT_IN)
    for point in metadata.entry_points(group=GROUP):
        try:
            adapter = point.load()
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"provider {point.name} ({point.value}) cannot be loaded: {error}") from error
        if found.get(point.name, adapter) is not adapter:
            raise ConfigError(f"provider {point.name} ({point.value}) is defined twice; expected a name of its own")
        lacking = [name for name in _members() if not hasattr(adapter, name)]
        if lacking:
            raise ConfigError(f"provider {point.name} ({point.value}) has no {', '.join(lacking)}; see base.Provider")
        found[point.name] = cast("type[Provider]", adapter)
    return dict(sorted(found.items()))


def build(provider_name: str, setup: Setup) -> Provider:
    """The adapter of one integration. Raises ``ConfigError`` for an unknown name."""
    return _adapter(provider_name)(setup)


def profile_of(provider_name: str, overrides: Mapping[str, Any]) -> Profile:
    """The adapter's profile with an integration's overrides. Raises ``ConfigError`` with one line per mistake."""
    adapter = _adapter(provider_name)
    mistakes = list(_profile_problems(overrides))
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    values: dict[str, Any] = dict(overrides)
    if "fallback_on" in values:
        values["fallback_on"] = frozenset(Refusal(item) for item in values["fallback_on"])
    return replace(adapter.profile, **values)


def check_integration(doc: Mapping[str, Any]) -> list[str]:
    """What is wrong with an integration block, one line each; values of credentials never appear."""
    where = f"integrations[{doc.get('id')}]"
    adapter = providers().get(str(doc.get("provider")))
    if adapter is None:
        return [f"{where}.provider is {doc.get('provider')!r}; expected one of {', '.join(providers())}"]
    return [f"{where}.{problem}" for problem in _integration_problems(doc, adapter)]


def check_mapping(doc: Mapping[str, Any], provider_name: str) -> list[str]:
    """What is wrong with a mapping block for this provider, one line each."""
    where = f"mappings[{doc.get('tenant_id')}/{doc.get('package_id')}/{doc.get('integration')}]"
    adapter = providers().get(provider_name)
    if adapter is None:
        return []  # said once, at the integration
    return [f"{where}.{problem}" for problem in _mapping_problems(doc, provider_name, adapter)]


def _integration_problems(doc: Mapping[str, Any], adapter: type[Provider]) -> Iterator[str]:
    name, credentials, options = doc.get("provider"), doc.get("credentials") or {}, doc.get("options") or {}
    expected = ", ".join(sorted(adapter.credentials)) or "none"
    for key in sorted(adapter.credentials):
        if not credentials.get(key):
            yield f"credentials.{key} is missing; expected a value, {name} needs {expected}"
    for key in sorted(set(credentials) - adapter.credentials - _COMMON_CREDENTIALS):
        yield f"credentials.{key} is not known to {name}; expected {expected}"
    if adapter is not Codes:
        if not doc.get("base_url"):
            yield "base_url is missing; expected the http(s) address of the account"
        yield from _currency_problems(doc.get("currency"), name, adapter)
    for key in sorted(set(options) - adapter.options - _COMMON_OPTIONS):
        expected = ", ".join(sorted(adapter.options | _COMMON_OPTIONS))
        yield f"options.{key} is not known to {name}; expected one of {expected}"
    yield from getattr(adapter, "option_problems", lambda _: [])(options)
    yield from _profile_problems(doc.get("profile") or {})


def _currency_problems(currency: Any, name: Any, adapter: type[Provider]) -> Iterator[str]:
    if adapter.currency is None and not currency:
        yield f"currency is missing; expected the account's currency, {name} does not tell it"
    elif adapter.currency is not None and currency not in (None, adapter.currency):
        yield f"currency is {currency!r}; expected {adapter.currency}, the only one of {name}"


def _mapping_problems(doc: Mapping[str, Any], name: str, adapter: type[Provider]) -> Iterator[str]:
    for key in sorted(adapter.mapping_keys):
        value = doc.get(key)
        if value is None or isinstance(value, bool) or not str(value).strip():
            yield f"{key} is missing; expected a value, {name} needs {', '.join(sorted(adapter.mapping_keys))}"
    reserved: frozenset[str] = getattr(adapter, "reserved", frozenset()) | adapter.credentials
    params = doc.get("params") or {}
    for key, template in params.items():
        if key in reserved or key.startswith(OURS):
            yield f"params.{key} is not allowed; expected a parameter that the adapter does not set itself"
        yield from _template_problems(f"params.{key}", template)
    for key in _TEMPLATE_KEYS:
        if key in doc:
            yield from _template_problems(key, doc[key])


def _template_problems(key: str, template: Any) -> Iterator[str]:
    if not isinstance(template, str) or not template.strip():
        yield f"{key} is {template!r}; expected text such as {{user_identifier}}"
        return
    for found in _PLACEHOLDER.finditer(template):
        name = found[1]
        if not found[0].endswith("}"):
            yield f"{key} is {template!r}; expected a closing brace after {{{name}"
        elif name not in _KNOWN_PLACEHOLDERS and not re.fullmatch(r"params\..+", name):
            expected = ", ".join(sorted(_KNOWN_PLACEHOLDERS))
            yield f"{key} has placeholder {{{name}}}; expected one of {expected}, params.<name>"


def _profile_problems(overrides: Mapping[str, Any]) -> Iterator[str]:
    known = [item.name for item in fields(Profile)]
    for name, value in overrides.items():
        if name not in known:
            yield f"profile.{name} is not known; expected one of {', '.join(known)}"
        elif not _fits(name, value):
            yield f"profile.{name} is {value!r}; expected {_EXPECTED.get(name, 'true or false')}"


_SECONDS = "a number of seconds, 0 or more"
_EXPECTED = {
    "batch": "a whole number above 0",
    "absent_answers": "a whole number above 0",
    "absent_settle_s": _SECONDS,
    "absent_window_s": _SECONDS,
    "repeat_safe_for_s": f"{_SECONDS}, or null for ever",
    "fallback_on": f"a list of {', '.join(Refusal)}",
}


def _fits(name: str, value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if name in ("batch", "absent_answers"):
        return number and isinstance(value, int) and value > 0
    if name in ("absent_settle_s", "absent_window_s"):
        return number and value >= 0
    if name == "repeat_safe_for_s":
        return value is None or (number and value >= 0)
    if name == "fallback_on":
        return isinstance(value, (list, tuple, set, frozenset)) and all(item in tuple(Refusal) for item in value)
    return isinstance(value, bool)


def _adapter(provider_name: str) -> type[Provider]:
    adapter = providers().get(provider_name)
    if adapter is None:
        raise ConfigError(f"provider is {provider_name!r}; expected one of {', '.join(providers())}")
    return adapter


def _members() -> tuple[str, ...]:
    attributes = ("profile", "credentials", "mapping_keys", "options", "currency")
    return (*attributes, "reference", "prepare", "place", "check", "look_up", "balance", "catalogue")
