"""One wrong place in the configuration, told in one line that holds no secret."""

import json
import re
from typing import Any, NamedTuple

#: Where a value stands: mapping keys and list positions from the top of the file.
Path = tuple[str | int, ...]

_PLAIN_KEY = re.compile(r"[\w.:/\[\]-]{1,80}\Z")
_PLAIN_TEXT = re.compile(r"[!-~]+\Z")
_USER_INFO = re.compile(r"[^/\s]*@")
_LONGEST = 60


class ConfigProblem(NamedTuple):
    """``key`` is dotted with list positions; ``found`` is masked where the key holds a secret."""

    key: str
    found: str
    expected: str

    def line(self, source: str) -> str:
        return f"{source}: {self.key} is {self.found}; expected {self.expected}"


def key_text(path: Path) -> str:
    """``("routes", 0, "primary")`` -> ``routes[0].primary``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = part if _PLAIN_KEY.match(part) else _cut(json.dumps(part))
            text += f".{name}" if text else name
    return text or "the file"


def is_secret(path: Path) -> bool:
    """Values at and below such a path are never shown."""
    return (
        "credentials" in path
        or path[-1:] in (("password",), ("session_key",), ("webhook_secret",))
        or path[:2] in (("database", "url"), ("telemetry", "otlp_headers"))
    )


def shown(path: Path, value: Any) -> str:
    """The value as a person may read it in an error: masked, in one line, containers by their kind only."""
    if value is None:
        return "empty"
    if is_secret(path):
        return "***"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if not isinstance(value, str):
        return _cut(f"{value:g}" if isinstance(value, float) else str(value))
    text = _USER_INFO.sub("***@", value)
    return _cut(text if _PLAIN_TEXT.match(text) else json.dumps(text, ensure_ascii=False))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."
