"""An adaptive entropy coder for many short sequences at once: range asymmetric numeral systems, every step taken for all sequences together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from modelward.core.errors import FormatError, UsageError

Ints = NDArray[np.int64]
Bits = NDArray[np.uint8]
SCALE_BITS = 12
SCALE = 1 << SCALE_BITS
GAIN = 2
"""What one symbol adds to its count, which starts at 1: the estimator of Krichevsky and Trofimov."""


def encode(
    symbols: Ints, lengths: Ints, alphabet: int, *, contexts: Ints | None = None, checks: Ints | None = None, width: int = 16
) -> tuple[Bits, Ints]:
    """Return the codes of N sequences, each by itself, and their lengths in bits.

    The coder is that of Duda (arXiv 1311.2540) with one bit of renormalisation. Frequencies adapt: both sides count the symbols that they have
    seen, so no table is sent. The coder starts from a checksum of the caller's instead of from a constant, and the decoder ends at it: the
    ``width`` bits that a state costs are no waste.

    Parameters
    ----------
    symbols
        int64 (N, S), values in [0, ``alphabet``).
    lengths
        int64 (N,): how many of the S are meant.
    contexts
        int64 (N, S): what the decoder knows of each place; symbols are counted for each value apart.
    checks
        int64 (N,), below ``2 ** width``.
    width
        bits of the state, 12 to 16.

    Returns
    -------
    tuple
        uint8 (N, B) of 0 and 1, and int64 (N,).

    Examples
    --------
    >>> said = np.array([[0, 0, 0, 1, 0, 0], [2, 2, 2, 2, 0, 0]])
    >>> code, sizes = encode(said, np.array([6, 4]), 3, checks=np.array([7, 9]))
    >>> found, checks, used = decode(code, np.array([6, 4]), 3)
    >>> found.tolist() == said.tolist(), checks.tolist(), used.tolist() == sizes.tolist()
    (True, [7, 9], True)
    """
    _require(alphabet, width)
    count, steps = symbols.shape
    starts, sizes = _intervals(symbols, lengths, alphabet, contexts)
    low = np.int64(1) << width
    state = low + (np.zeros(count, np.int64) if checks is None else checks)
    taken, values = np.zeros((count, steps), np.int64), np.zeros((count, steps), np.int64)
    for step in range(steps - 1, -1, -1):
        size, start = sizes[:, step], starts[:, step]
        shift = np.maximum(0, _log2(state) - _log2(size << (width - SCALE_BITS)))
        shift -= (state >> shift) < (size << (width - SCALE_BITS))
        values[:, step], taken[:, step] = state & ((1 << shift) - 1), shift
        state >>= shift
        state = (state // size << SCALE_BITS) + start + state % size
    taken, values = np.c_[np.full(count, width), taken], np.c_[state - low, values]
    return _spell(values, taken), taken.sum(1)


def decode(code: Bits, lengths: Ints, alphabet: int, *, contexts: Ints | None = None, width: int = 16) -> tuple[Ints, Ints, Ints]:
    """Return the symbols (N, S) that `encode` was given, zeros beyond ``lengths``, the checksums (N,), and how many bits each code has.

    What follows a code in its row is left alone. Bits that are no code give symbols all the same, and another checksum.

    Raises
    ------
    FormatError
        where the bits end before the symbols do.
    """
    _require(alphabet, width)
    count, steps = len(code), int(lengths.max(initial=0))
    padded = np.pad(code, ((0, 0), (0, width))).astype(np.int64)
    low, rows = np.int64(1) << width, np.arange(count)
    state, place = low + padded[:, :width] @ (1 << np.arange(width)[::-1]), np.full(count, width)
    kinds = 1 if contexts is None else int(contexts.max(initial=0)) + 1
    counts, symbols = np.ones((count, kinds, alphabet), np.int64), np.zeros((count, steps), np.int64)
    where = np.zeros(count, np.int64)
    for step in range(steps):
        live = step < lengths
        if contexts is not None:
            where = contexts[:, step]
        edges = _edges(counts[rows, where])
        slot = state & (SCALE - 1)
        symbol = (edges[:, 1:-1] <= slot[:, None]).sum(1)
        start = edges[rows, symbol]
        state = np.where(live, (edges[rows, symbol + 1] - start) * (state >> SCALE_BITS) + slot - start, state)
        symbols[:, step] = np.where(live, symbol, 0)
        counts[rows, where, symbol] += GAIN * live
        shift = np.maximum(0, width - _log2(state))
        for _ in range(int(shift.max(initial=0))):
            more = shift > 0
            if bool((place[more] >= code.shape[1]).any()):
                raise FormatError("the hidden data end too early: the image is not the one that they were hidden in")
            state, place, shift = np.where(more, state * 2 + padded[rows, place], state), place + more, shift - more
    return symbols, state - low, place


def _require(alphabet: int, width: int) -> None:
    """Refuse what the coder cannot hold."""
    if not (1 <= alphabet <= SCALE // 4 and SCALE_BITS <= width <= 16):
        message = f"an alphabet has 1 to {SCALE // 4} symbols and a state 12 to 16 bits, got {alphabet} and {width}"
        raise UsageError(message)


def _log2(values: Ints) -> Ints:
    """Return the whole part of the binary logarithm of positive integers."""
    exponents: Ints = np.frexp(values.astype(np.float64))[1].astype(np.int64) - 1
    return exponents


def _edges(counts: Ints) -> Ints:
    """Return where each symbol's interval begins, (..., A + 1) from 0 to the scale, none of them empty."""
    total = np.cumsum(counts, -1)
    alphabet = counts.shape[-1]
    edges = np.zeros((*counts.shape[:-1], alphabet + 1), np.int64)
    edges[..., 1:] = total * (SCALE - alphabet) // total[..., -1:] + np.arange(1, alphabet + 1)
    return edges


def _intervals(symbols: Ints, lengths: Ints, alphabet: int, contexts: Ints | None) -> tuple[Ints, Ints]:
    """Return begin and size of the interval of every symbol, as the counts before it say; the whole scale for those that are not meant."""
    meant = np.arange(symbols.shape[1]) < lengths[:, None]
    starts, sizes = np.zeros_like(symbols), np.full_like(symbols, SCALE)
    where = np.zeros_like(symbols) if contexts is None else contexts
    hits = (symbols[..., None] == np.arange(alphabet)) & meant[..., None]
    for kind in range(int(where.max(initial=0)) + 1):
        own = (where == kind) & meant
        mine = (hits & own[..., None]).astype(np.int64)
        edges = _edges(1 + GAIN * (np.cumsum(mine, 1) - mine))
        begin = np.take_along_axis(edges, symbols[..., None], -1)[..., 0]
        end = np.take_along_axis(edges, symbols[..., None] + 1, -1)[..., 0]
        starts, sizes = np.where(own, begin, starts), np.where(own, end - begin, sizes)
    return starts, sizes


def _spell(values: Ints, taken: Ints) -> Bits:
    """Return numbers (N, S), each with as many bits as ``taken`` says, one after the other, the highest bit first."""
    ends = np.cumsum(taken, 1)
    bits = np.zeros((len(values), int(ends[:, -1].max(initial=0))), np.uint8)
    for level in range(int(taken.max(initial=0))):
        rows, columns = np.nonzero(taken > level)
        bits[rows, ends[rows, columns] - 1 - level] = (values[rows, columns] >> level) & 1
    return bits
