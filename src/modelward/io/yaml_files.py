"""YAML files a person writes: plain values only, no aliases, no key twice, a size cap, and the line of every value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from modelward.core.errors import FormatError
from modelward.io.files import one_line, read_bytes, require_text

CAP_BYTES = 64 * 1024
DEPTH_CAP = 32
VALUE_CAP = 500


@dataclass(frozen=True)
class YamlFile:
    """The mapping of a YAML file, with its tree for line numbers."""

    name: str
    values: dict[str, Any]
    tree: yaml.Node | None

    def line(self, place: Sequence[str | int]) -> int:
        """Return the line (from 1) of the value at ``place``, or of what surrounds it."""
        node, line = self.tree, 1
        for step in place:
            if isinstance(node, yaml.MappingNode):
                found = next(((key, value) for key, value in node.value if key.value == str(step)), None)
                if found is None:
                    break
                line, node = found[0].start_mark.line + 1, found[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
                node = node.value[step]
                line = node.start_mark.line + 1
            else:
                break
        return line


def read_yaml(path: Path | str) -> YamlFile:
    """Read a YAML mapping.

    Raises
    ------
    FormatError
        for a file that is too large or too deep, no mapping, broken YAML, an alias, a tag, a value over 500 characters, or a key given twice; with
        the line.
    """
    path = Path(path)
    text = require_text(read_bytes(path, cap=CAP_BYTES), path.name)
    try:
        _refuse_bombs(text, path.name)
        loader = yaml.SafeLoader(text)
        tree = loader.get_single_node()
        _refuse_repeats(tree, path.name)
        values = None if tree is None else loader.construct_document(tree)
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        what = getattr(error, "problem", None) or (
            "it nests too deeply" if isinstance(error, RecursionError) else str(error).split("\n")[0]
        )
        message = f"{path.name}{where}: this is not the YAML that is wanted: {one_line(what)}"
        raise FormatError(message) from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        message = f"{path.name} holds no mapping of names to values; it should begin like `data: fashion-mini`"
        raise FormatError(message)
    return YamlFile(path.name, values, tree)


def _refuse_bombs(text: str, name: str) -> None:
    """Raise `FormatError` for aliases (a small file could stand for an endless one), deep nesting (its cost is quadratic), endless values."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        why = f"it nests deeper than {DEPTH_CAP}" if depth > DEPTH_CAP else None
        if isinstance(event, yaml.AliasEvent):
            why = f"aliases (*{event.anchor:.40}) are not read; write the value out"
        elif isinstance(event, yaml.ScalarEvent) and len(event.value) > VALUE_CAP:
            why = f"a value has {len(event.value):,} characters, more than the {VALUE_CAP} that are read"
        if why:
            message = f"{name}, line {event.start_mark.line + 1 if event.start_mark else 1}: {why}"
            raise FormatError(message)


def _refuse_repeats(node: yaml.Node | None, name: str) -> None:
    """Raise `FormatError` for a key that is given twice: YAML would take the last one without a word."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                message = f"{name}, line {key.start_mark.line + 1}: a key is a name, not a list or a mapping"
                raise FormatError(message)
            if key.value in seen:
                message = f"{name}, line {key.start_mark.line + 1}: the key {key.value[:40]!r} is given twice"
                raise FormatError(message)
            seen.add(key.value)
            _refuse_repeats(value, name)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_repeats(value, name)
