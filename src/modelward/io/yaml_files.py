"""YAML files a person writes: plain values only, no aliases, no key twice, a size cap, and the line of every value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from modelward.core.errors import FormatError
from modelward.io.files import read_bytes, require_text

CAP_BYTES = 256 * 1024


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
        for a file that is too large or no mapping, for broken YAML, an alias, a tag, or a key given twice; with the line.
    """
    path = Path(path)
    text = require_text(read_bytes(path, cap=CAP_BYTES), path.name)
    try:
        _refuse_aliases(text, path.name)
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        _refuse_repeats(tree, path.name)
        values = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        what = getattr(error, "problem", None) or (
            "it nests too deeply" if isinstance(error, RecursionError) else str(error).split("\n")[0]
        )
        message = f"{path.name}{where}: this is not the YAML that is wanted: {what}"
        raise FormatError(message) from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        message = f"{path.name} holds no mapping of names to values; it should begin like `data: fashion-mini`"
        raise FormatError(message)
    return YamlFile(path.name, values, tree)


def _refuse_aliases(text: str, name: str) -> None:
    """Raise `FormatError` for aliases: a small file of them can stand for an endless one."""
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            line = event.start_mark.line + 1 if event.start_mark else 1
            message = f"{name}, line {line}: aliases (*{event.anchor}) are not read; write the value out"
            raise FormatError(message)


def _refuse_repeats(node: yaml.Node | None, name: str) -> None:
    """Raise `FormatError` for a key that is given twice: YAML would take the last one without a word."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen and isinstance(key, yaml.ScalarNode):
                message = f"{name}, line {key.start_mark.line + 1}: the key {key.value!r} is given twice"
                raise FormatError(message)
            seen.add(str(key.value))
            _refuse_repeats(value, name)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_repeats(value, name)
