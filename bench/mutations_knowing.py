"""Ways to spoil a file that know its format well enough to get past its checksums."""

from __future__ import annotations

import gzip
import io
import json
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any

from mutations import BLIND, EDGES, TEXT, Mutator, blind, json_text, splice, token


def safetensors_header(data: bytes, rng: random.Random) -> bytes:
    """Alter the length of a safetensors header, or the header as JSON."""
    if len(data) < 10:
        return data
    (size,) = struct.unpack("<Q", data[:8])
    act = rng.randrange(5)
    if act == 4:
        return respell(data, rng)
    if act == 0:
        return (
            struct.pack(
                "<Q", rng.choice((*EDGES, size - 1, size + 1, size + 8, len(data) - 8, len(data), size ^ (1 << rng.randrange(64)))) % 2**64
            )
            + data[8:]
        )
    text = json_text(data[8 : 8 + size], rng) if act < 3 else token(data[8 : 8 + size], rng)
    if rng.random() < 0.2:
        text += b" " * rng.randrange(9)
    return struct.pack("<Q", len(text)) + text + data[8 + size :]


def respell(data: bytes, rng: random.Random) -> bytes:
    """Write the header of a safetensors file in other bytes that mean the same: spaces, escapes, the order of its names."""
    (size,) = struct.unpack("<Q", data[:8])
    try:
        found = json.loads(data[8 : 8 + size])
    except (ValueError, RecursionError):
        return data
    if rng.random() < 0.5 and isinstance(found, dict):
        found = dict(sorted(found.items(), key=lambda _: rng.random()))
    text = json.dumps(found, separators=rng.choice(((",", ":"), (", ", ": "))), ensure_ascii=rng.random() < 0.5).encode(
        "utf-8", "surrogatepass"
    )
    text += b" " * rng.randrange(9)
    return struct.pack("<Q", len(text)) + text + data[8 + size :]


def zip_fields(data: bytes, rng: random.Random) -> bytes:
    """Alter one field of a local header, a directory entry or the end of a zip."""
    marks = [hit.start() for hit in re.finditer(rb"PK(?:\x03\x04|\x01\x02|\x05\x06)", data)]
    if not marks:
        return data
    at, width = rng.choice(marks) + rng.randrange(4, 46), rng.choice((2, 4))
    new = (rng.choice((*EDGES, len(data), 8, 9, 12, 14, 93)) % 2 ** (8 * width)).to_bytes(width, "little")
    return data[:at] + new + data[at + width :]


def zip_members(data: bytes, rng: random.Random) -> bytes:
    """Spoil a member or its name and zip everything again, with checksums that fit."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(entry.filename, archive.read(entry), entry.compress_type) for entry in archive.infolist()]
    except Exception:  # noqa: BLE001  # spoilt before: nothing to take apart
        return zip_fields(data, rng)
    chosen = rng.randrange(len(members)) if members else 0
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for index, (name, content, method) in enumerate(members):
            new, body = name, content
            if index == chosen and rng.random() < 0.75:
                body = blind(content, rng)
            elif index == chosen:
                new = rng.choice(
                    (
                        "",
                        "../x",
                        "/x",
                        "x\\y",
                        "C:x",
                        name + "/",
                        "./" + name,
                        name.upper(),
                        "\u202e" + name,
                        name.split("/")[-1],
                        "a/" * 200 + name,
                        "\x1b[2J.png",
                    )
                )
            archive.writestr(zipfile.ZipInfo(new), body, method)
    return stream.getvalue()


def gzip_inside(data: bytes, rng: random.Random) -> bytes:
    """Spoil what is packed, and pack it again."""
    try:
        return gzip.compress(blind(gzip.decompress(data), rng), mtime=0)
    except Exception:  # noqa: BLE001  # spoilt before
        return blind(data, rng)


def png_chunk(data: bytes, rng: random.Random) -> bytes:
    """Spoil the body of a PNG chunk and put its checksum right; or spoil the pixels and pack them again."""
    chunks, at = [], 8
    while at + 12 <= len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    if not chunks:
        return data
    chosen = rng.randrange(len(chunks))
    kind, body = chunks[chosen]
    if kind == b"IDAT" and rng.random() < 0.5:
        try:
            body = zlib.compress(blind(zlib.decompress(body), rng))
        except zlib.error:
            body = blind(body, rng)
    elif rng.random() < 0.2:
        kind = rng.choice((b"acTL", b"fcTL", b"fdAT", b"iCCP", b"tRNS", b"PLTE", b"zTXt", b"iTXt", b"eXIf", b"pHYs", b"IEND", b"cHRM"))
    else:
        body = blind(body, rng)
    chunks[chosen] = kind, body
    return data[:8] + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def onnx_fields(data: bytes, rng: random.Random) -> bytes:
    """Set one field of an ONNX model, chosen by walking down its messages, to something odd."""
    import onnx

    try:
        model = onnx.load_model_from_string(data)
    except Exception:  # noqa: BLE001  # spoilt before
        return blind(data, rng)
    node: Any = model.graph if rng.random() < 0.8 else model
    while True:
        field, value = rng.choice(node.ListFields())
        repeated = not isinstance(value, (str, bytes, int, float)) and hasattr(value, "__len__") and not hasattr(value, "ListFields")
        child = rng.choice(value) if repeated else value
        if hasattr(child, "ListFields") and child.ListFields():
            if rng.random() < 0.1 and repeated:
                value.append(child)
                break
            node = child
            continue
        try:
            odd: Any = type(child)(
                rng.choice((0, 1, -1, 2**31 - 1, 99, 7)) if isinstance(child, (int, float)) else child[: len(child) // 2]
            )
            if repeated:
                value[rng.randrange(len(value))] = odd
            else:
                setattr(node, field.name, odd)
        except (TypeError, ValueError, AttributeError):
            node.ClearField(field.name)
        break
    return bytes(model.SerializeToString())


KNOWING: dict[str, tuple[Mutator, ...]] = {
    "bytes": BLIND,
    "text": TEXT,
    "json": (*TEXT, *(json_text,) * 8),
    "tree": (json_text,),
    "safetensors": (*BLIND, *(safetensors_header,) * 8),
    "zip": (*BLIND, *(zip_fields,) * 4, *(zip_members,) * 6),
    "gzip": (*BLIND, *(gzip_inside,) * 8),
    "png": (*BLIND, *(png_chunk,) * 8),
    "onnx": (*BLIND[3:], *(onnx_fields,) * 20),
}


def mutate(seeds: Sequence[bytes], donors: Sequence[bytes], kind: str, rng: random.Random) -> bytes:
    """Return one of ``seeds`` with one to four alterations of a ``kind`` of file; every tenth begins as a splice with another valid file."""
    data = rng.choice(seeds)
    others = [other for other in (*seeds, *donors) if other != data]
    if others and kind != "tree" and rng.random() < 0.1:
        data = splice(data, rng.choice(others), rng)
        if rng.random() < 0.5 and data not in seeds:
            return data
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        data = rng.choice(KNOWING[kind])(data, rng)
    while data in seeds:
        data = rng.choice(KNOWING[kind])(data, rng)
    return data
