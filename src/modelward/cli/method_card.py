"""What a method says of itself, on the screen: its card, and its settings with the words of its docstring."""

from __future__ import annotations

import dataclasses
import inspect
from typing import TYPE_CHECKING, Any

from modelward.cli.output import facts, say, table

if TYPE_CHECKING:
    from modelward.core.method import Method

SHORT = 6


def parameter_docs(owner: type) -> dict[str, str]:
    """Return what the numpy-style docstrings of ``owner`` and its bases say of each parameter; the nearest class wins.

    >>> class Base:
    ...     '''Title.
    ...
    ...     Parameters
    ...     ----------
    ...     eps, step
    ...         in pixels,
    ...         [0, 1].
    ...     '''
    >>> parameter_docs(Base)
    {'eps': 'in pixels, [0, 1].', 'step': 'in pixels, [0, 1].'}
    """
    found: dict[str, str] = {}
    for cls in owner.__mro__:
        for names, words in _entries(inspect.cleandoc(vars(cls).get("__doc__") or "")):
            for name in names:
                found.setdefault(name, words)
    return found


def _entries(doc: str) -> list[tuple[list[str], str]]:
    """Return (names, words) of the section "Parameters"."""
    lines = doc.splitlines()
    starts = [i for i, line in enumerate(lines[:-1]) if line == "Parameters" and set(lines[i + 1]) == {"-"}]
    if not starts:
        return []
    entries: list[tuple[list[str], list[str]]] = []
    for i in range(starts[0] + 2, len(lines)):
        line, below = lines[i], lines[i + 1] if i + 1 < len(lines) else ""
        if line and not line.startswith(" "):
            if below and set(below) == {"-"}:
                break
            entries.append(([name.strip() for name in line.partition(":")[0].split(",")], []))
        elif entries and line.strip():
            entries[-1][1].append(line.strip())
    return [(names, " ".join(words).replace("``", "")) for names, words in entries]


def card_facts(method: type[Method]) -> dict[str, Any]:
    """Return a method's card and settings as JSON values."""
    docs = parameter_docs(method)
    settings = [
        {"name": field.name, "default": default_of(field), "about": docs.get(field.name, "")}
        for field in dataclasses.fields(method)
        if field.init
    ]
    return {"family": method.family, "settings": settings} | dataclasses.asdict(method.card)


def show_card(method: type[Method]) -> None:
    """Print a method's card, its threat model and its settings."""
    card, taxonomy = method.card, method.card.taxonomy
    say(f"{card.name}: {card.title}", style="bold")
    facts(
        [
            ("family", method.family),
            ("paper", card.paper),
            ("scenario", taxonomy.scenario),
            ("mechanism", taxonomy.mechanism),
            ("capacity", taxonomy.capacity),
            ("protection", taxonomy.protection),
            ("functions", ", ".join(taxonomy.functions)),
            ("target", taxonomy.target),
            ("cost", card.cost),
            *((name.replace("_", " "), words) for name, words in (vars(card.active) if card.active else {}).items()),
        ]
    )
    for title, words in (
        ("Claims, not tested until a report has rows for them", card.claims),
        ("What a result does not show", card.limits),
    ):
        if words:
            say(f"\n{title}", style="bold")
            facts([("-", str(text)) for text in words])
    docs = parameter_docs(method)
    rows = [(field.name, default_words(default_of(field)), docs.get(field.name, "")) for field in dataclasses.fields(method) if field.init]
    if rows:
        verb = {"ownership": " (protect --set NAME=VALUE)", "lock": " (lock --set NAME=VALUE)"}.get(method.family, "")
        say(f"\nSettings{verb}", style="bold")
        table(("name", "default", "what it is"), rows, keep=("name", "default"))


def default_of(field: dataclasses.Field[Any]) -> Any:
    """Return the default of a setting, made where it is made anew for every method."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def default_words(value: object) -> str:
    """Return a default as --set takes it; pixel sizes in 255ths are said so, unless they are short as they are.

    >>> default_words(8 / 255), default_words(0.2), default_words(None), default_words(True)
    ('8/255', '0.2', 'null', 'true')
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float) and len(repr(value)) > SHORT and 0 < value < 1 and abs(value * 255 - round(value * 255)) < 1e-9:
        return f"{round(value * 255)}/255"
    return str(value)
