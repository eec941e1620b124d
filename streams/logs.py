"""Structured logs: one JSON object per line for machines, aligned text for people.

A line says of itself what it is about: the order, the attempt, the integration, and the trace when there is one. What
is known to be a secret cannot be printed by it, whichever library wrote it and wherever in the line it stands.
"""

import re
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import Any, Literal
from urllib.parse import quote, quote_plus

import structlog

from streams import traces

#: Shorter secrets would be found in ordinary words. Those of the simulator ("demo") are no secrets.
LEAST_SECRET = 8
MASK = "***"

_OURS = {"timestamp", "level", "logger"}

#: How secrets look that nobody told us: credentials in an address, named values, bearer tokens.
_LOOKS = re.compile(
    r"(?P<address>://)[^/\s@:]*:[^/\s@]*@"
    r"|(?P<named>\b(?:password|passwd|secret|token|sifre|api[-_]?key)[\"']?\s*[=:]\s*[\"']?)(?!None\b|\*\*\*)[^\s&\"',;)}]+"
    r"|(?P<bearer>\b(?:Bearer|Basic)\s+)[A-Za-z0-9._~+/=-]{8,}",
    re.IGNORECASE,
)
#: What may stand in the place of a secret and is none.
_WORDS = {"embedded"}
#: Every form of every secret, the longest first.
_secrets: tuple[str, ...] = ()
_about: list[Callable[[], Mapping[str, object]]] = []


def hide(secrets: Iterable[str]) -> None:
    """From now on none of these is printed, also not percent-encoded. Callable from any thread."""
    global _secrets
    known = set(_secrets)
    for secret in secrets:
        if len(secret) >= LEAST_SECRET and secret not in _WORDS:
            known.update((secret, quote(secret, safe=""), quote_plus(secret), ascii(secret)[1:-1]))
    _secrets = tuple(sorted(known, key=len, reverse=True))


def tell_also(about: Callable[[], Mapping[str, object]]) -> None:
    """Every line says what ``about()`` knows in that moment, besides what it says itself."""
    if about not in _about:
        _about.append(about)


def masked(text: str) -> str:
    """The text without secrets."""
    if len(text) < LEAST_SECRET:
        return text
    for secret in _secrets:
        if secret in text:
            text = text.replace(secret, MASK)
    if "=" not in text and ":" not in text and " " not in text:
        return text
    return _LOOKS.sub(
        lambda found: (
            (found["address"] or found["named"] or found["bearer"]) + MASK + ("@" if found["address"] else "")
        ),
        text,
    )


def _mask(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {masked(str(name)): _mask(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_mask(item) for item in value]
    return masked(value if isinstance(value, str) else repr(value))


def _redact(logger: Any, name: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {key: value if key in _OURS else _mask(value) for key, value in line.items()}


def _describe(logger: Any, name: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for about in _about:
        for key, value in about().items():
            line.setdefault(key, value)
    if traces.tracer is not None and (trace_id := traces.current_id()) is not None:
        line.setdefault("trace_id", trace_id)
    return line


_SHARED: list[Any] = [
    structlog.contextvars.merge_contextvars,
    _describe,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def logging_config(level: str, form: Literal["json", "console"]) -> dict[str, Any]:
    """A ``logging.config`` dictionary that every line of this process goes through, Faust's own included."""
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    renderer: Any = (
        structlog.processors.JSONRenderer() if form == "json" else structlog.dev.ConsoleRenderer(colors=False)
    )
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "lines": {
                "()": structlog.stdlib.ProcessorFormatter,
                "processors": [
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    structlog.processors.format_exc_info,
                    _redact,
                    renderer,
                ],
                "foreign_pre_chain": [structlog.stdlib.ExtraAdder(), *_SHARED],
            }
        },
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "lines"}},
        "root": {"handlers": ["stderr"], "level": level.upper()},
        "loggers": {
            "faust": {"level": "WARNING"},
            "mode": {"level": "WARNING"},
            "aiokafka": {"level": "WARNING"},
            "aiohttp.server": {"level": "CRITICAL"},  # it logs the bytes of every request that it cannot read
            "alembic": {"level": "WARNING"},
        },
    }
