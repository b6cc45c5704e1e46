"""Write a page for every method from its card and docstring: ``python tools/build_docs.py [--pictures]``.

Pages land in docs/methods, pictures in docs/images/methods; both are committed. A test compares the pages with the code.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import re
import sys
from pathlib import Path
from typing import Any

from modelward.cli.method_card import default_of, default_words, parameter_docs
from modelward.core.catalogue import catalogue
from modelward.core.image_locks import DataLock
from modelward.core.method import Method

DOCS = Path(__file__).resolve().parents[1] / "docs"
FAMILIES = {
    "evasion": ("Evasion", "Change images a little so that a model errs.", "modelward attack {name} --out attacked"),
    "theft": ("Theft", "Make a copy of a model that is not yours, or hide one.", "modelward steal {name} --out-model copy.safetensors"),
    "ownership": ("Ownership", "Prove whose model it is.", "modelward protect {name} --calibrate quick --out-key owner.mw"),
    "lock": ("Locks", "Make a model useless without its key.", "modelward lock {name} --out-model locked.safetensors --out-key owner.mw"),
}

IMAGES = "modelward lock {name} --data images/ --out-data locked --out-key owner.mw"


def sections_of(method: type[Method]) -> dict[str, str]:
    """Return the parts of a docstring: ``""`` for what stands before the first heading, then by heading."""
    lines = inspect.cleandoc(method.__doc__ or "").splitlines()
    parts: dict[str, list[str]] = {"": []}
    heading = ""
    for index, line in enumerate(lines):
        below = lines[index + 1] if index + 1 < len(lines) else ""
        if line and below and set(below) == {"-"}:
            heading = line
            parts[heading] = []
        elif not (line and set(line) == {"-"}):
            parts[heading].append(line)
    return {name: "\n".join(body).strip() for name, body in parts.items()}


def prose(text: str) -> str:
    """Return docstring text as Markdown: code and formulae.

    >>> prose("``eps`` bounds :math:`x^2`")
    '`eps` bounds $x^2$'
    """
    text = re.sub(r"^\.\. math:: (.*)$", r"$\1$", text, flags=re.MULTILINE)
    text = re.sub(r":math:`([^`]*)`", r"$\1$", text)
    return re.sub(r"``([^`]*)``", r"`\1`", text)


def cell(text: str) -> str:
    """Return text for a table cell."""
    return prose(text).replace("|", "\\|").replace("\n", " ")


def page(method: type[Method]) -> str:
    """Return the page of one method."""
    card, taxonomy, parts = method.card, method.card.taxonomy, sections_of(method)
    docs = parameter_docs(method)
    lines = [f"# {card.name}", "", f"*{card.title}*", "", prose(parts[""]), ""]
    if (DOCS / "images" / "methods" / f"{card.name}.svg").exists() or (DOCS / "images" / "methods" / f"{card.name}.png").exists():
        kind = "png" if (DOCS / "images" / "methods" / f"{card.name}.png").exists() else "svg"
        lines += [f"![{card.title}](../images/methods/{card.name}.{kind})", ""]
    lines += [f"Paper: {card.paper}.", "", "## Threat model", "", "| attribute | |", "|---|---|"]
    attributes = {
        "scenario": taxonomy.scenario, "mechanism": taxonomy.mechanism, "capacity": taxonomy.capacity, "protection": taxonomy.protection,
        "functions": ", ".join(taxonomy.functions), "target": taxonomy.target,
    }  # fmt: skip
    lines += [f"| {name} | {str(value).replace('_', ' ')} |" for name, value in attributes.items()]
    fields = [field for field in dataclasses.fields(method) if field.init]
    if fields:
        lines += ["", "## Knobs", "", "| name | default | what it is |", "|---|---|---|"]
        lines += [f"| `{field.name}` | `{cell(default_words(default_of(field)))}` | {cell(docs.get(field.name, ''))} |" for field in fields]
    lines += ["", "## Cost", "", f"{card.cost[:1].upper()}{card.cost[1:]}.", ""]
    for title, words in (
        ("Claims, tested only where a report has rows", card.claims),
        ("When it fails, and what a result does not show", card.limits),
    ):
        if words:
            lines += [f"## {title}", "", *(f"- {prose(str(text))}" for text in words), ""]
    lines += measured(card.name)
    if card.active is not None:
        lines += ["## As active protection", "", "| asked | |", "|---|---|"]
        lines += [f"| {name.replace('_', ' ')} | {cell(words)} |" for name, words in vars(card.active).items()]
        lines.append("")
    if "part" not in card.tags:
        lines += ["## In the shell", "", "```sh", shell_line(method), "```", ""]
    if parts.get("Examples"):
        lines += ["## In Python", "", "```pycon", parts["Examples"], "```", ""]
    lines += [f"Source: `{method.__module__}`, class `{method.__name__}`.", ""]
    return "\n".join(lines)


@functools.cache
def truth() -> list[dict[str, Any]]:
    """Return the rows of docs/results/truth.json."""
    path = DOCS / "results" / "truth.json"
    return json.loads(path.read_text())["rows"] if path.exists() else []


def measured(name: str) -> list[str]:
    """Return what a method says of strangers and of thieves, as lines; nothing for a method without such rows."""
    rows = [row for row in truth() if row.get("method") == name and row["table"] in {"strangers", "thieves"} and row["n"]]
    if not rows:
        return []
    lines = [
        "## Strangers and thieves",
        "",
        "From [the results](../results/truth.md), where the owners are described; intervals are exact, of 95 %.",
        "",
    ]
    lines += ["| owner | suspects | asked for | found | undecided | not stolen |", "|---|---|---|---|---|---|"]
    for row in rows:
        who = "strangers" if row["table"] == "strangers" else f"thieves who had {row['had']}"
        found = f"{row['found']} of {row['n']} [{row['ci_low']:.2f}, {row['ci_high']:.2f}]"
        lines.append(f"| {row['owner']} | {who} | {row['access']} | {found} | {row['undecided']} | {row['not_stolen']} |")
    return [*lines, ""]


def shell_line(method: type[Method]) -> str:
    """Return the command that runs a method."""
    line = FAMILIES[method.family][2] if not issubclass(method, DataLock) else IMAGES
    return line.format(name=method.card.name)


def index() -> str:
    """Return the table of all methods by family."""
    lines = ["# Methods", "", "Each page is made from the method's card. `modelward methods NAME` shows the same in the shell.", ""]
    for family, (title, about, _) in FAMILIES.items():
        lines += [f"## {title}", "", about, "", "| method | what it is | paper |", "|---|---|---|"]
        lines += [
            f"| [{name}]({name}.md) | {cell(m.card.title)} | {cell(m.card.paper)} |"
            for name, m in catalogue().items()
            if m.family == family
        ]
        lines.append("")
    return "\n".join(lines)


def pages() -> dict[str, str]:
    """Return every page by its file name."""
    return {"index.md": index()} | {f"{name}.md": page(method) for name, method in catalogue().items()}


def main() -> None:
    """Write the pages; with ``--pictures`` draw first."""
    if "--pictures" in sys.argv[1:]:
        from draw_methods import draw_all

        draw_all(DOCS / "images" / "methods", [name for name in sys.argv[1:] if not name.startswith("-")])
    folder = DOCS / "methods"
    folder.mkdir(exist_ok=True)
    wanted = pages()
    for stale in folder.glob("*.md"):
        if stale.name not in wanted:
            stale.unlink()
    for name, text in wanted.items():
        (folder / name).write_text(text)


if __name__ == "__main__":
    main()
