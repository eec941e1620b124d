"""Files of orders: JSON lines or CSV in, one ``created`` event or one reason per line out; bad lines set aside."""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple, Self

from streams.errors import ConfigError, EventError
from streams.events import Created, decode, rfc3339


class Line(NamedTuple):
    """One line of the file: its number, its text as written, and the order or why there is none."""

    number: int
    text: str
    created: Created | None
    error: str


def created_of(fields: Mapping[str, Any], now: datetime, tenant_id: str | None) -> Created:
    """The event of plain fields; ``created_at`` and tenant may be absent. Raises ``EventError`` naming the field."""
    said = {"created_at": rfc3339(now), **({"tenant_id": tenant_id} if tenant_id else {}), **fields}
    try:
        return decode(Created, json.dumps(said, ensure_ascii=False).encode())
    except UnicodeEncodeError:
        raise EventError(f"{Created.TYPE}: the line is not UTF-8") from None


def read_orders(file: Path, now: datetime, tenant_id: str | None) -> Iterator[Line]:
    """The orders of a .jsonl or .csv file, line by line. Raises ``ConfigError`` for a file that is neither."""
    readers = {".jsonl": _json_lines, ".csv": _csv_lines}
    if file.suffix not in readers:
        raise ConfigError(f"{file} ends in {file.suffix or 'nothing'}; expected a .jsonl or a .csv file")
    if not file.is_file():
        raise ConfigError(f"{file} is not a file that can be read")
    return _checked(readers[file.suffix](file), now, tenant_id)


def count_lines(file: Path) -> int:
    """How many lines the file has, for a progress bar."""
    with file.open("rb") as content:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: content.read(1 << 20), b""))


_Parsed = tuple[int, str, Mapping[str, Any] | str]


def _checked(lines: Iterator[_Parsed], now: datetime, tenant_id: str | None) -> Iterator[Line]:
    for number, text, fields in lines:
        if isinstance(fields, str):
            yield Line(number, text, None, fields)
            continue
        try:
            yield Line(number, text, created_of(fields, now, tenant_id), "")
        except EventError as error:
            yield Line(number, text, None, str(error).removeprefix(f"{Created.TYPE}: "))


def _json_lines(file: Path) -> Iterator[_Parsed]:
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="\n") as content:
        for number, line in enumerate(content, start=1):
            text = line.rstrip("\r\n")
            if not text.strip():
                continue
            try:
                said = json.loads(text)
            except (ValueError, RecursionError):
                yield number, text, "the line is not JSON"
                continue
            yield number, text, said if isinstance(said, dict) else "the line is not a JSON object"


def _csv_lines(file: Path) -> Iterator[_Parsed]:
    """Empty cells are absent fields; ``params.NAME`` columns make ``params``; ``sell_price_amount`` and
    ``sell_price_currency`` make ``sell_price``."""
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as content:
        reader = csv.reader(content)
        header = _header(file, reader)
        before = reader.line_num
        while True:
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield reader.line_num, "", f"the line is not CSV ({error})"
                continue
            number, before = before + 1, reader.line_num
            if not any(row):
                continue
            text = _csv_text(row)
            if len(row) != len(header):
                yield number, text, f"{len(row)} cells; expected {len(header)} as in the header"
                continue
            yield number, text, _fields(dict(zip(header, row, strict=True)))


def _header(file: Path, reader: Iterator[list[str]]) -> list[str]:
    header = [name.strip() for name in next(reader, [])]
    known = {*Created.__struct_fields__, "sell_price_amount", "sell_price_currency"} - {"params", "sell_price"}
    unknown = [name for name in header if name not in known and not name.startswith("params.")]
    if not header or unknown or len(set(header)) != len(header):
        found = f"the column {unknown[0]!r}" if unknown else "a column twice" if header else "no header"
        raise ConfigError(f"{file}: line 1 has {found}; expected names out of {', '.join(sorted(known))}, params.NAME")
    return header


def _fields(row: Mapping[str, str]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, text in row.items():
        if text == "":
            continue
        if name.startswith("params."):
            made.setdefault("params", {})[name.removeprefix("params.")] = text
        elif name.startswith("sell_price_"):
            made.setdefault("sell_price", {})[name.removeprefix("sell_price_")] = text
        elif name == "quantity":
            made[name] = text
            with suppress(ValueError):
                made[name] = int(text)
        else:
            made[name] = text
    return made


def _csv_text(row: list[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow(row)  # it quotes a line break only if the terminator has one
    return line.getvalue().removesuffix("\r\n")


class Rejects:
    """The file of bad lines, FILE.rejects.<ext>: there only when a line was bad; a CSV keeps its header."""

    def __init__(self, file: Path) -> None:
        self.path = file.with_name(f"{file.stem}.rejects{file.suffix}")
        #: Line number -> why.
        self.reasons: dict[int, str] = {}
        self._source = file
        self._output: IO[str] | None = None

    def add(self, line: Line, reason: str) -> None:
        """Set one line aside."""
        if self._output is None:
            self._output = self.path.open("w", encoding="utf-8", errors="surrogateescape", newline="\n")
            if self._source.suffix == ".csv":
                with self._source.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as content:
                    self._output.write(content.readline().rstrip("\r\n") + "\n")
        self.reasons[line.number] = reason
        self._output.write(line.text + "\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._output is not None:
            self._output.close()
        elif kind is None:
            self.path.unlink(missing_ok=True)  # of an earlier run of the same, now repaired file
