"""Seeded changes to an input: bytes, pipe-separated fields, lines, and the tree of a JSON document."""

import json
import random
from collections.abc import Sequence
from typing import Any

MAX_BYTES = 8192
_NUMBERS = (0, 1, 2, 3, 8, 100, 111, 130, 200, 500, -1, 2**31, 2**63, 10**25, 0.1, 1e300)
_BYTES = (
    b"\x00",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\xc5\x9e",
    b"\xfe",
    b"\xc2\xa0",
    b"\r\n",
    b'"',
    b"\\u0000",
    b"\\ud800",
    b"|",
    b"<",
    b"[" * 1200,
    b"{" * 40,
    b"9" * 5000,
    b"-",
    b",",
    b":",
    b"${",
    b"}",
    b"1e999",
    b"NaN",
)


class Mutator:
    """The same seed and the same calls give the same inputs. ``words`` are what the target's inputs are made of."""

    def __init__(self, seed: object, words: Sequence[str]) -> None:
        self._random = random.Random(repr(seed))
        self._words = [*words]

    def choose(self, corpus: Sequence[bytes]) -> bytes:
        """One of them, the later ones (found on the way) more often."""
        draw = self._random
        return corpus[max(draw.randrange(len(corpus)), draw.randrange(len(corpus)))]

    def change(self, data: bytes, corpus: Sequence[bytes]) -> bytes:
        """One input near ``data``; ``corpus`` lends pieces."""
        for _ in range(self._random.choice((1, 1, 1, 2, 3, 5))):
            way = self._random.random()
            if way < 0.45:
                data = self._tree(data) or self._fields(data)
            elif way < 0.65:
                data = self._fields(data)
            elif way < 0.75:
                data = self._cross(data, self._random.choice(corpus))
            else:
                data = self._bytes(data)
        return data[:MAX_BYTES]

    def _bytes(self, data: bytes) -> bytes:
        draw = self._random
        at, end = sorted((draw.randint(0, len(data)), draw.randint(0, len(data))))
        way = draw.randrange(5)
        if way == 0:
            return data[:at] + bytes([draw.randrange(256)]) + data[at + 1 :]
        if way == 1:
            return data[:at] + draw.choice(_BYTES) + data[at:]
        if way == 2:
            return data[:at] + data[end:]
        if way == 3:
            return data[:end] + data[at:]
        return data[:at] + self._word() + data[at:]

    def _cross(self, data: bytes, other: bytes) -> bytes:
        return data[: self._random.randint(0, len(data))] + other[self._random.randint(0, len(other)) :]

    def _fields(self, data: bytes) -> bytes:
        """Change what stands between separators."""
        draw = self._random
        mark = draw.choice([mark for mark in (b"|", b"\n", b",", b":", b"/", b" ") if mark in data] or [b""])
        if not mark:
            return self._bytes(data)
        fields = data.split(mark)
        at = draw.randrange(len(fields))
        way = draw.randrange(4)
        if way == 0:
            fields[at] = self._word()
        elif way == 1:
            fields.insert(at, draw.choice(fields))
        elif way == 2:
            del fields[at]
        else:
            other = draw.randrange(len(fields))
            fields[at], fields[other] = fields[other], fields[at]
        return mark.join(fields)

    def _tree(self, data: bytes) -> bytes | None:
        """Change one node of the JSON document in ``data``; None when there is none."""
        start = min((at for at in (data.find(b"{"), data.find(b"[")) if at >= 0), default=-1)
        if start < 0:
            return None
        try:
            document = json.loads(data[start:])
        except (ValueError, RecursionError):
            return None
        places = list(_places(document))
        if not places:
            return None
        parent, key = self._random.choice(places)
        self._node(parent, key, document, places)
        try:
            return data[:start] + json.dumps(document, ensure_ascii=self._random.random() < 0.5).encode(
                "utf-8", "surrogatepass"
            )
        except (ValueError, RecursionError):
            return None

    def _node(self, parent: Any, key: Any, document: Any, places: Sequence[tuple[Any, Any]]) -> None:
        draw = self._random
        way = draw.randrange(8)
        if way == 0:
            del parent[key]
        elif way == 1:
            parent[key] = [parent[key]]
        elif way == 2:
            parent[key] = {self._text(): parent[key]}
        elif way == 3 and isinstance(parent, dict):
            parent[self._text()] = parent[key]
        elif way == 4:
            other, at = draw.choice(places)
            value = other[at] if at in other or (isinstance(other, list) and at < len(other)) else None
            parent[key] = json.loads(json.dumps(value))
        elif way == 5:
            parent[key] = draw.choice((None, True, False, [], {}, "", " ", *_NUMBERS))
        else:
            parent[key] = self._text()

    def _text(self) -> str:
        return self._random.choice(self._words)

    def _word(self) -> bytes:
        return self._text().encode("utf-8", "surrogatepass")


def _places(value: Any, depth: int = 0) -> Any:
    """(container, key) of every value in a document, at most twelve deep."""
    if depth > 12 or not isinstance(value, dict | list):
        return
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        yield from _places(value[key], depth + 1)
