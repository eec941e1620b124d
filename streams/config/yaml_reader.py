"""config.yaml as text -> plain data: strict YAML first, then the environment.

Only what JSON can also hold gets through: mappings with text keys, lists, text, finite numbers, true/false, nothing.
A YAML date is text. Neither function raises; both return what they could read and what was wrong.
"""

import re
from collections.abc import Mapping
from typing import Any

import yaml

from streams.config.problems import ConfigProblem, Path, key_text, shown

_TAG = "tag:yaml.org,2002:"
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^{}]*))?\}")
_DEEPEST = 20
_MOST_VALUES = 200_000


class _TooLarge(Exception):
    """An alias that contains itself, or a file no person wrote."""


def read(text: str) -> tuple[dict[str, Any], list[ConfigProblem]]:
    """The file's data, unexpanded. An unreadable value is None and has its mistake."""
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        # PyYAML quotes what it stumbled over, which may be half a password.
        problem = _QUOTED.sub("...", error.problem or error.context or "")
        return {}, [_invalid(f"line {mark.line + 1}" if mark else "the file", problem)]
    except yaml.YAMLError:
        return {}, [_invalid("the file", "a character that text cannot hold")]
    except RecursionError:
        return {}, [ConfigProblem("the file", "nested too deeply", f"at most {_DEEPEST} levels")]
    if node is None:
        return {}, [ConfigProblem("the file", "empty", "a mapping with kafka, database, integrations, ...")]
    if not isinstance(node, yaml.MappingNode):
        found = "a list" if isinstance(node, yaml.SequenceNode) else "text"
        return {}, [ConfigProblem("the file", found, "a mapping with kafka, database, integrations, ...")]
    walk = _Walk(loader)
    try:
        return walk.mapping(node, ()), walk.mistakes
    except _TooLarge:
        expected = f"at most {_DEEPEST} levels and {_MOST_VALUES} values"
        return {}, [*walk.mistakes, ConfigProblem("the file", "too large or contains itself", expected)]


def expand(doc: Any, environ: Mapping[str, str], path: Path = ()) -> tuple[Any, list[ConfigProblem]]:
    """``doc`` with ``${NAME}`` and ``${NAME:-default}`` replaced in every text value.

    As in a shell the default also stands in for an empty variable. A value whose variable is missing becomes None.
    """
    mistakes: list[ConfigProblem] = []

    def walk(value: Any, path: Path) -> Any:
        if isinstance(value, Mapping):
            return {key: walk(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [walk(item, (*path, index)) for index, item in enumerate(value)]
        if isinstance(value, str) and "${" in value:
            expanded, mistake = _expanded(value, environ, path)
            mistakes.extend([mistake] if mistake else [])
            return expanded
        return value

    return walk(doc, path), mistakes


def _expanded(text: str, environ: Mapping[str, str], path: Path) -> tuple[str | None, ConfigProblem | None]:
    if "${" in _REFERENCE.sub("", text):
        return None, ConfigProblem(key_text(path), shown(path, text), "${NAME} or ${NAME:-default}")
    for reference in _REFERENCE.finditer(text):
        if reference[2] is None and reference[1] not in environ:
            return None, ConfigProblem(
                key_text(path), reference[0], f"the environment variable {reference[1]} to be set"
            )
    return _REFERENCE.sub(lambda found: environ.get(found[1]) or found[2] or "", text), None


def _invalid(where: str, problem: str) -> ConfigProblem:
    return ConfigProblem(
        where, f"not valid YAML ({problem})", "spaces for indentation, quotes around special characters"
    )


class _Walk:
    def __init__(self, loader: yaml.SafeLoader) -> None:
        self.loader = loader
        self.mistakes: list[ConfigProblem] = []
        self.left = _MOST_VALUES

    def value(self, node: yaml.Node, path: Path) -> Any:
        self.left -= 1
        if self.left < 0 or len(path) > _DEEPEST:
            raise _TooLarge
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, path)
        return self.wrong(path, "a tagged value", "plain YAML without tags")

    def mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag != _TAG + "str" or not _is_text(key_node.value):
                self.wrong(path, f"given a key that is not text (line {line})", "text keys (put them in quotes)")
                continue
            key = key_node.value
            if key in found:
                self.wrong((*path, key), f"given twice (lines {lines[key]} and {line})", "it once")
                continue
            lines[key] = line
            found[key] = self.value(value_node, (*path, key))
        return found

    def scalar(self, node: yaml.ScalarNode, path: Path) -> Any:
        kind = node.tag.removeprefix(_TAG)
        if kind in ("str", "timestamp"):
            return node.value if _is_text(node.value) else self.wrong(path, "holding a NUL or half a character", "text")
        if kind not in ("int", "float", "bool", "null"):
            return self.wrong(path, "a tagged value", "plain YAML without tags")
        try:
            value = self.loader.construct_object(node)
        except (ValueError, KeyError, OverflowError):
            return self.wrong(path, shown(path, node.value), "a number, true, false, or text in quotes")
        if isinstance(value, int | float) and not abs(value) < 2**63:  # also catches .nan
            return self.wrong(path, shown(path, node.value), "a number below 2^63")
        return value

    def wrong(self, path: Path, found: str, expected: str) -> None:
        self.mistakes.append(ConfigProblem(key_text(path), found, expected))


def _is_text(value: Any) -> bool:
    """What UTF-8 and PostgreSQL can hold."""
    return isinstance(value, str) and "\0" not in value and not any("\ud800" <= sign <= "\udfff" for sign in value)
