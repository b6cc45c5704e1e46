"""Ways to spoil any file, a text, or a JSON document."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from typing import Any

Mutator = Callable[[bytes, random.Random], bytes]

NUMBERS = (
    b"0", b"-1", b"1e309", b"-1e309", b"NaN", b"Infinity", b"1e-400", b"9" * 30, b"9" * 5000, b"18446744073709551616", b"2147483648", b"0x10",
    b"1_0", b"1.5", b".", b"1:30", b"1/0",
)  # fmt: skip
WORDS = (
    b"", b"null", b"true", b'""', b"[]", b"{}", b"~", b"*a", b"&a [*a]", b"!!python/object:os.system", b"!!binary AA==", b"__proto__", b"<<",
    b"2001-01-01", b"..", b"/", b"file", b"p0", b"-", b"- -", b": ", b"? ", b"| ", b"%s", b"{0}",
)  # fmt: skip
LETTERS = (
    "\0", "\ufeff", "\u2028", "\x85", "\u202e", "\x1b[31m", "\r", "\r\n", "\t", "\u0661", "e\u0301", "\U0001f512", "\ud800", "\x7f", "\ufffe",
    '"', "'", "\\", ",", "\n", "\x0b", "\x1c", "\u00b2",
)  # fmt: skip
RUNS = (
    b"[", b"{", b'{"a":', b"- ", b"1:", b"9", b'"', b"'", b",", b"\n", b"(", b"\0", b"a: ", b"? ", b"!", b"&a ", b"\xff", b"p0,", b"\x85", b"[[", b"|\n",
)  # fmt: skip
EDGES = (0, 1, 2**7, 2**8 - 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
VALUES: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2**31, 2**63, 2**64, 10**400, 1.5, 1e308, float("nan"), float("inf"), "", "F32", "BF16", "C64", "F4", "x", "-1",
    "1e9", "\ud800", "\0", "\x1b[2J", "a:b", "os:system", "../up", [], [0], [0, 0], [0, -1], [2**63, 2], [0, 2**64], [[0]], [1.5], ["a"], {},
    {"a": 1}, {"": None}, "__metadata__", "{}", "[]", "null", "[[[[", "7" * 5000,
)  # fmt: skip


def _place(size: int, rng: random.Random) -> int:
    """Return a position, every third time near the head and every third time near the tail, where the structure is."""
    side = rng.randrange(3)
    near = min(size, 400)
    return (
        rng.randrange(max(1, size))
        if side == 0
        else rng.randrange(max(1, near))
        if side == 1
        else max(0, size - 1 - rng.randrange(max(1, near)))
    )


def flip(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 8)) if out else 0):
        out[_place(len(out), rng)] ^= 1 << rng.randrange(8)
    return bytes(out)


def overwrite(data: bytes, rng: random.Random) -> bytes:
    at, new = _place(len(data), rng), rng.randbytes(rng.randint(1, 8))
    return data[:at] + new + data[at + len(new) :]


def truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: _place(len(data), rng)]


def insert(data: bytes, rng: random.Random) -> bytes:
    at = _place(len(data), rng)
    return data[:at] + rng.randbytes(rng.randint(1, 16)) + data[at:]


def delete(data: bytes, rng: random.Random) -> bytes:
    at = _place(len(data), rng)
    return data[:at] + data[at + rng.randint(1, 24) :]


def double(data: bytes, rng: random.Random) -> bytes:
    start, end = sorted((_place(len(data), rng), _place(len(data), rng)))
    return data[:end] + data[start:end] * rng.choice((1, 1, 2, 50)) + data[end:]


def append(data: bytes, rng: random.Random) -> bytes:
    return data + rng.choice((b"\0", b" ", b"\n", data[:64], rng.randbytes(9)))


def edge(data: bytes, rng: random.Random) -> bytes:
    """Write a number at the edge of its range over 1 to 8 bytes, in either order."""
    width = rng.choice((1, 2, 4, 8))
    new = (rng.choice((*EDGES, len(data))) % 2 ** (8 * width)).to_bytes(width, rng.choice(("little", "big")))
    at = _place(len(data), rng)
    return data[:at] + new + data[at + width :]


def letter(data: bytes, rng: random.Random) -> bytes:
    at = _place(len(data), rng)
    return data[:at] + rng.choice(LETTERS).encode("utf-8", "surrogatepass") + data[at:]


def run(data: bytes, rng: random.Random) -> bytes:
    """Insert one token again and again: nesting, endless numbers, empty cells."""
    at = _place(len(data), rng)
    return data[:at] + rng.choice(RUNS) * rng.choice((30, 300, 3_000, 20_000)) + data[at:]


def token(data: bytes, rng: random.Random) -> bytes:
    """Put an odd word or number in the place of a word."""
    found = list(re.finditer(rb"[\w.+-]+", data[:20_000]))
    if not found:
        return data
    hit = rng.choice(found)
    return data[: hit.start()] + rng.choice((*NUMBERS, *WORDS)) + data[hit.end() :]


def line(data: bytes, rng: random.Random) -> bytes:
    """Double, drop, move or split a line."""
    rows = data.split(b"\n")
    at = rng.randrange(len(rows))
    row = rows.pop(at)
    new = rng.choice(
        ([row, row], [], [row[: len(row) // 2], row[len(row) // 2 :]], [b"  " + row], [row.strip()], [row.replace(b",", b";")])
    )
    rows[at:at] = new
    if rng.random() < 0.2:
        rng.shuffle(rows)
    return b"\n".join(rows)


BLIND: tuple[Mutator, ...] = (flip, flip, flip, overwrite, truncate, insert, delete, double, append, edge, letter)
TEXT: tuple[Mutator, ...] = (*BLIND, token, token, token, line, line, run)


def blind(data: bytes, rng: random.Random) -> bytes:
    return rng.choice(BLIND)(data, rng)


def splice(data: bytes, donor: bytes, rng: random.Random) -> bytes:
    """Begin as one valid file and go on as another, at the same place or at any."""
    at = _place(min(len(data), len(donor)), rng)
    return data[:at] + donor[at if rng.random() < 0.5 else _place(len(donor), rng) :]


def tree(value: Any, rng: random.Random) -> Any:
    """Return JSON data with one value replaced, dropped, doubled, renamed or nested deeply."""
    if isinstance(value, (dict, list)) and value and rng.random() < 0.85:
        keys: list[Any] = list(value) if isinstance(value, dict) else list(range(len(value)))
        key, copy = rng.choice(keys), value.copy()
        act = rng.randrange(6)
        if act == 0:
            del copy[key]
        elif act == 1 and isinstance(copy, dict):
            copy[rng.choice(("", "b", "__metadata__", "digest", "plan", "arch", "size", "\ud800", "x" * 300))] = copy.pop(key)
        elif act == 1:
            copy.append(copy[key])
        else:
            copy[key] = tree(copy[key], rng)
        return copy
    if isinstance(value, str) and value[:1] in {"{", "["} and rng.random() < 0.7:  # JSON inside JSON, as in metadata
        try:
            return json.dumps(tree(json.loads(value), rng))
        except (ValueError, RecursionError):
            return value
    nested: Any = rng.choice(VALUES)
    if rng.random() < 0.05:
        for _ in range(400):
            nested = [nested]
    return nested


def json_text(data: bytes, rng: random.Random) -> bytes:
    """Alter a JSON document as data, or give a key twice."""
    try:
        text = json.dumps(tree(json.loads(data), rng))
    except (ValueError, RecursionError):
        return token(data, rng)
    if rng.random() < 0.15:
        text = re.sub(r'("[^"]*"):', r"\1:0,\1:", text, count=1)
    return text.encode("utf-8", "surrogatepass")
