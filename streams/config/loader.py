"""config.yaml, and the catalogue kept in the database -> ``Config``, or every mistake at once."""

import copy
import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, Protocol, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from streams.config import problems, rules, yaml_reader
from streams.config.models import (
    AfterFinalConfig,
    AlertsConfig,
    BackoffConfig,
    BreakerConfig,
    CatalogueBlock,
    CatalogueDocs,
    ChecksConfig,
    ChecksOverride,
    Config,
    DatabaseConfig,
    DispatchConfig,
    IntegrationConfig,
    KafkaConfig,
    LimitsConfig,
    MappingConfig,
    RouteConfig,
    SecurityConfig,
    TableConfig,
    TelemetryConfig,
    WebConfig,
    WorkerConfig,
    secrets,
)
from streams.config.problems import ConfigProblem
from streams.config.types import Seconds, duration_text, tier_name
from streams.errors import ConfigError

__all__ = [
    "AfterFinalConfig",
    "AlertsConfig",
    "BackoffConfig",
    "BreakerConfig",
    "CatalogueDocs",
    "ChecksConfig",
    "ChecksOverride",
    "Config",
    "DatabaseConfig",
    "DispatchConfig",
    "Docs",
    "ExtraChecks",
    "IntegrationConfig",
    "KafkaConfig",
    "LimitsConfig",
    "MappingConfig",
    "RouteConfig",
    "Seconds",
    "SecurityConfig",
    "TableConfig",
    "TelemetryConfig",
    "WebConfig",
    "WorkerConfig",
    "duration_text",
    "load",
    "secrets",
    "tier_name",
    "with_catalog",
]

#: Lines ``<key> is <value>; expected <what>`` about the catalogue of a Config; other sections may be absent from it.
ExtraChecks = Callable[[Config], Iterable[str]]


class Docs(Protocol):
    """The catalogue as plain data, wherever it comes from."""

    @property
    def integrations(self) -> Sequence[Mapping[str, Any]]: ...
    @property
    def routes(self) -> Sequence[Mapping[str, Any]]: ...
    @property
    def mappings(self) -> Sequence[Mapping[str, Any]]: ...


_B = TypeVar("_B", bound=BaseModel)
_CATALOGUE: dict[str, type[CatalogueBlock]] = {
    "integrations": IntegrationConfig,
    "routes": RouteConfig,
    "mappings": MappingConfig,
}
_FILE = {"source": "file"}  # numbers need a unit, see streams.config.types
_EXPECTED = {
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "tuple_type": "a list",
}


#: Stands for the bundled broker or database.
EMBEDDED = "embedded"


def load(path: Path, environ: Mapping[str, str], extra_checks: ExtraChecks | None = None) -> Config:
    """Raises ``ConfigError`` with one line per mistake, all of them, none showing a secret."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        hint = "expected a configuration file; `orderwatch config init` writes one"
        raise ConfigError(f"{path} cannot be read ({error.strerror}); {hint}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path.name}: byte {error.start} is not UTF-8; expected UTF-8 text") from None
    raw, mistakes = yaml_reader.read(text)
    if mistakes and not raw:
        raise ConfigError("\n".join(mistake.line(path.name) for mistake in mistakes))
    reading = _Reading(environ, mistakes)
    mistakes += [_unknown_key(Config, (key,)) for key in raw if key not in Config.model_fields]
    sections = {name: reading.section(name, raw) for name in Config.model_fields if name not in _CATALOGUE}
    reading.catalogue({name: raw.get(name, []) for name in _CATALOGUE}, lambda index, doc: index)
    return reading.finish(sections, path.name, extra_checks)


def with_catalog(
    config: Config, docs: Docs, environ: Mapping[str, str], extra_checks: ExtraChecks | None = None
) -> Config:
    """``config`` with integrations, routes and mappings from ``docs``, checked as the file is.

    ``docs`` is unexpanded, as ``db.control.stored_config.read`` gives it. Raises ``ConfigError`` like ``load``, but
    names the entries instead of counting them: ``integrations[znet-main]``.
    """
    reading = _Reading(environ, [])
    reading.catalogue({name: list(getattr(docs, name)) for name in _CATALOGUE}, _entry_name)
    sections = {name: getattr(config, name) for name in Config.model_fields if name not in _CATALOGUE}
    return reading.finish(sections, "stored catalogue", extra_checks)


def _entry_name(index: int, doc: Mapping[str, Any]) -> str | int:
    keys = ("id",) if "id" in doc else ("tenant_id", "package_id", "integration")
    return "/".join(str(doc[key]) for key in keys if key in doc) or index


class _Reading:
    """One pass over plain data; collects blocks that are right and mistakes about the others."""

    def __init__(self, environ: Mapping[str, str], mistakes: list[ConfigProblem]) -> None:
        self.environ = environ
        self.mistakes = mistakes
        self.entries: dict[str, list[Any]] = {name: [] for name in _CATALOGUE}
        self.unreadable: set[str] = set()

    def section(self, name: str, raw: Mapping[str, Any]) -> Any:
        field = Config.model_fields[name]
        if name not in raw and field.is_required():
            self.mistakes.append(ConfigProblem(name, "missing", f"a mapping: {field.description}"))
            return None
        return self.block(_model_at(Config, (name,)), raw.get(name, {}), (name,))

    def block(self, model: type[_B], raw: Any, path: problems.Path) -> _B | None:
        """With mistakes: what is left without the wrong values, for the rules to go on with, or None."""
        doc, missing = yaml_reader.expand(raw, self.environ, path)
        self.mistakes += missing
        try:
            return model.model_validate(doc, context=_FILE)
        except ValidationError as error:
            details = error.errors()
        self.mistakes += [mistake for detail in details for mistake in _told(model, detail, path)]
        try:
            return model.model_validate(_without(doc, [detail["loc"] for detail in details]), context=_FILE)
        except ValidationError:
            return None

    def catalogue(self, lists: Mapping[str, Any], position: Callable[[int, Mapping[str, Any]], str | int]) -> None:
        for name, model in _CATALOGUE.items():
            items = lists[name]
            if not isinstance(items, list):
                self.mistakes.append(
                    ConfigProblem(name, problems.shown((), items) if items is None else "no list", "a list")
                )
                continue
            for index, item in enumerate(items):
                place = position(index, item) if isinstance(item, Mapping) else index
                path: problems.Path = (name, place) if isinstance(place, int) else (f"{name}[{place}]",)
                entry = self.block(model, item, path)
                if entry is not None:
                    entry._raw, entry._key = dict(item), problems.key_text(path)
                    self.entries[name].append(entry)
                elif name == "integrations" and isinstance(item, Mapping):
                    self.unreadable.add(str(yaml_reader.expand(item.get("id"), self.environ)[0]))

    def finish(self, sections: dict[str, Any], source: str, extra_checks: ExtraChecks | None) -> Config:
        # Sections that were not readable are absent, so that the rules of the others still speak.
        draft = Config.model_construct(
            None, **{name: block for name, block in sections.items() if block is not None}, **self.entries
        )
        compared = [f"{mistake.key} (" for mistake in self.mistakes]
        for mistake in self.spanning(sections, draft):
            if not any(key in mistake.expected for key in compared):
                self.mistakes.append(mistake)
        lines = [mistake.line(source) for mistake in _first_of_each_key(self.mistakes)]
        told_of = tuple(f"{mistake.key} is " for mistake in self.mistakes)
        extra = extra_checks(draft) if extra_checks else ()
        lines += [f"{source}: {line}" for line in extra if not line.startswith(told_of)]
        if lines:
            raise ConfigError("\n".join(lines))
        return Config.model_validate(sections | {name: tuple(entries) for name, entries in self.entries.items()})

    def spanning(self, sections: dict[str, Any], draft: Config) -> Iterator[ConfigProblem]:
        kafka, database, checks, web = (sections[name] for name in ("kafka", "database", "checks", "web"))
        yield from rules.kafka_mistakes(kafka) if kafka else ()
        yield from rules.database_mistakes(database) if database else ()
        yield from rules.web_mistakes(web) if web else ()
        yield from rules.alerts_mistakes(sections["alerts"]) if sections["alerts"] else ()
        yield from rules.telemetry_mistakes(sections["telemetry"]) if sections["telemetry"] else ()
        yield from rules.checks_mistakes(checks) if checks else ()
        yield from rules.lease_mistakes(draft) if sections["dispatch"] else ()
        unreadable = frozenset(self.unreadable)
        yield from rules.integration_mistakes(draft.integrations, checks.deadline if checks else None)
        yield from rules.route_mistakes(draft.routes, draft.integrations, unreadable)
        yield from rules.mapping_mistakes(draft.mappings, draft.integrations, unreadable)


def _without(doc: Any, locs: Iterable[Sequence[str | int]]) -> Any:
    """A copy of ``doc`` without the values at ``locs``; a list goes as a whole."""
    doc = copy.deepcopy(doc)
    for loc in locs:
        names = list(takewhile(lambda part: isinstance(part, str), loc))
        here = doc
        for name in names[:-1]:
            here = here.get(name) if isinstance(here, dict) else None
        if names and isinstance(here, dict):
            here.pop(names[-1], None)
    return doc


def _first_of_each_key(mistakes: Sequence[ConfigProblem]) -> Iterator[ConfigProblem]:
    """What could not be read is also missing, empty or unknown: one line per key is enough."""
    seen: set[str] = set()
    for mistake in mistakes:
        if mistake.key not in seen:
            seen.add(mistake.key)
            yield mistake


def _told(model: type[BaseModel], detail: ErrorDetails, path: problems.Path) -> Iterator[ConfigProblem]:
    kind, where = detail["type"], (*path, *detail["loc"])
    key = problems.key_text(where)
    if kind == "extra_forbidden":
        yield _unknown_key(_model_at(model, detail["loc"][:-1]), where)
    elif kind == "missing":
        field = _model_at(model, detail["loc"][:-1]).model_fields[str(detail["loc"][-1])]
        yield ConfigProblem(key, "missing", str(field.description))
    elif kind in _EXPECTED:
        # What stands in the place of a block may be all its secrets in one text.
        value = detail["input"]
        found = "text" if isinstance(value, str) else problems.shown(where, value)
        yield ConfigProblem(key, found, _EXPECTED[kind])
    elif kind != "default_factory_not_called":
        yield ConfigProblem(key, problems.shown(where, detail["input"]), _expected(detail))


def _expected(detail: ErrorDetails) -> str:
    context = detail.get("ctx", {})
    for name, words in (("ge", "at least"), ("gt", "more than"), ("le", "at most"), ("lt", "less than")):
        if name in context:
            return f"{words} {context[name]:g}"
    return str(context.get("expected") or detail["msg"])


def _unknown_key(model: type[BaseModel], where: problems.Path) -> ConfigProblem:
    """The value is not shown: the key may be a misspelt password."""
    known = list(model.model_fields)
    close = difflib.get_close_matches(str(where[-1]), known, n=1)
    expected = problems.key_text((*where[:-1], *close)) if close else "one of " + ", ".join(known)
    return ConfigProblem(problems.key_text(where), "an unknown key", expected)


def _model_at(model: type[BaseModel], loc: Sequence[str | int]) -> type[BaseModel]:
    for part in loc:
        annotation = model.model_fields[str(part)].annotation
        candidates = (annotation, *get_args(annotation))
        model = next(item for item in candidates if isinstance(item, type) and issubclass(item, BaseModel))
    return model


def refuse_mixed(config: Config) -> None:
    """Raise ``ConfigError`` when only one of broker and database is the bundled one: a worker with a database of its
    own behind a broker that others share would be a second ledger."""
    broker, url = config.kafka.bootstrap_servers, config.database.url.get_secret_value()
    if broker != EMBEDDED and url == EMBEDDED:
        found, other = "database.url is embedded", f"kafka.bootstrap_servers is {broker}: set DATABASE_URL"
    elif broker == EMBEDDED and url != EMBEDDED:
        found, other = "kafka.bootstrap_servers is embedded", "database.url is not: set KAFKA_BOOTSTRAP_SERVERS"
    else:
        return
    raise ConfigError(f"{found}, but {other}; expected both bundled or neither")
