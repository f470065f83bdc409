"""YAML that people write: read within limits, so that a wrong or hostile file ends in one line.

Aliases are refused, since a few lines of them expand to gigabytes ("billion laughs"). Duplicate keys are refused, since one of
two values would be lost. `1:30` is text and no number in base 60.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from medlord_bench.errors import UserError

LARGEST = 4_000_000  # bytes of a document
DEEPEST = 50  # levels of lists and mappings


def read_yaml(path: Path, expected: str) -> dict[str, Any]:
    """The fields of a YAML file. expected: what the file is, for messages. Raises `UserError` naming file, line and cause."""
    try:
        if path.exists() and not path.is_file() and not path.is_dir():  # reading a pipe or a device may never end
            raise UserError(f"{path}: is neither a file nor a folder; expected {expected}")
        if path.stat().st_size > LARGEST:
            raise UserError(f"{path}: {path.stat().st_size:,} bytes, expected {expected} of at most {LARGEST:,}")
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: not found; expected {expected}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 (byte {error.start}); expected {expected}: save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"{path}: {(error.strerror or 'cannot be read').lower()}; expected {expected}") from None
    data = parse_yaml(text, str(path))
    if not isinstance(data, dict):
        raise UserError(f"{path}: expected {expected} with fields and values, got {type(data).__name__}")
    other = next((key for key in data if not isinstance(key, str)), None)
    if other is not None:
        raise UserError(f"{path}: field {other!r}: expected a name; put it in quotes if it is one")
    return data


def parse_yaml(text: str, where: str) -> Any:
    """The value of a YAML document. Raises `UserError` beginning with `where`."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f", line {error.problem_mark.line + 1}"
        cause = " ".join(part for part in (error.context, error.problem) if part)
        raise UserError(f"{where}{line}: not YAML: {' '.join(cause.split())}") from None
    except (yaml.YAMLError, ValueError) as error:  # characters that YAML forbids; a number of thousands of digits
        raise UserError(f"{where}: not YAML: {' '.join(str(error).split())[:200]}") from None


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON document. Raises ValueError for what is none, and for one that is nested too deep."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None


class _Loader(yaml.SafeLoader):
    """SafeLoader with the limits of this module."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise _refused(self, "an alias (*); write the value out")
        self.depth += 1
        if self.depth > DEEPEST:
            raise _refused(self, f"more than {DEEPEST} levels, expected a few")
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and (key.tag, key.value) in seen:
                raise yaml.MarkedYAMLError(None, None, f"the field {key.value!r} is given twice", key.start_mark)
            seen.add((key.tag, key.value))
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        return found


def _refused(loader: _Loader, problem: str) -> yaml.MarkedYAMLError:
    mark = loader.peek_event().start_mark  # type: ignore[no-untyped-call]
    return yaml.MarkedYAMLError(None, None, problem, mark)


# Numbers as YAML 1.2 has them; `007` and dates stay text, `1e-4` is a number.
INTEGER = re.compile(r"[-+]?(0|[1-9][0-9_]*)$")
FLOAT = re.compile(
    r"[-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*|[0-9][0-9_]*(?=[eE]))([eE][-+]?[0-9]+)?$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"
)
REPLACED = {f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "timestamp")}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if tag not in REPLACED]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", INTEGER, list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+0123456789."))
