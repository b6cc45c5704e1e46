"""Reversible data hiding: bits inside images, and after they are read every pixel is as it was."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modelward.core.errors import FormatError, InputError
from modelward.marking.rans import Bits, Ints, decode, encode

U8 = NDArray[np.uint8]
Wide = NDArray[np.int16]
Mask = NDArray[np.bool_]
MAP_WIDTH = 12
THRESHOLDS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32)


@dataclass(frozen=True, eq=False)
class Room:
    """How bits lie in each of N images: what reading needs besides the pixels, and what tells nothing of the bits.

    Parameters
    ----------
    threshold
        int64 (N,): errors below it were expanded; 0 where the bits did not fit and the image is as it was.
    first, second
        int64 (N,): bits in the first and in the second half of the pixels, those of the overflow map included.
    """

    threshold: Ints
    first: Ints
    second: Ints

    @property
    def fits(self) -> Mask:
        """Which images hold their bits."""
        return self.threshold > 0


def embed(pixels: U8, bits: Bits, lengths: Ints, *, block: int = 0) -> tuple[U8, Room]:
    r"""Return images that carry bits by two passes of prediction-error expansion (Thodi and Rodriguez, IEEE TIP 2007).

    A pixel is predicted from its four neighbours of the other colour of a chessboard; an error :math:`-T \le e < T` becomes :math:`2 e + b`, any
    other is moved away by T. Before that, pixels within T of 0 or 255 are moved inwards, and an entropy-coded map says which; no pixel
    changes by more than 2 T. Of the thresholds the least that holds the bits is taken, for each image by itself.

    Parameters
    ----------
    pixels
        uint8 (N, C, H, W).
    bits, lengths
        uint8 (N, B) of 0 and 1, and how many of them each image is to hold.
    block
        side of the squares that neighbours are looked for in: where each square was shifted by an amount of its own, those beyond its edge tell
        little. 0: the whole image.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> smooth = np.add.outer(np.arange(16), np.arange(16)).astype(np.uint8)[None, None] + np.uint8(40)
    >>> bits = rng.integers(0, 2, (1, 60)).astype(np.uint8)
    >>> marked, room = embed(smooth, bits, np.array([60]))
    >>> found, again = extract(marked, room)
    >>> found[0, :60].tolist() == bits[0].tolist(), bool((again == smooth).all()), room.threshold.tolist()
    (True, True, [1])
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or len(bits) != len(pixels) or len(lengths) != len(pixels):
        message = (
            f"bits are hidden in uint8 images (N, C, H, W), a row of bits for each, got {pixels.dtype} {pixels.shape} and {bits.shape}"
        )
        raise InputError(message)
    marked = pixels.copy()
    held = np.zeros((3, len(pixels)), np.int64)
    left = np.arange(len(pixels))
    board = _Board(pixels.shape[1:], block)
    for threshold in THRESHOLDS:
        if not len(left):
            break
        made, room = _attempt(pixels[left], bits[left], lengths[left], threshold, board)
        marked[left[room.fits]] = made[room.fits]
        held[:, left[room.fits]] = np.stack([room.threshold, room.first, room.second])[:, room.fits]
        left = left[~room.fits]
    return marked, Room(*held)


def extract(pixels: U8, room: Room, *, block: int = 0) -> tuple[Bits, U8]:
    """Return the bits (N, B) of images, zeros beyond each one's own, and the images as they were.

    Raises
    ------
    FormatError
        for images that cannot be what `embed` made.
    """
    board = _Board(pixels.shape[1:], block)
    if bool((room.first + room.second > pixels[0].size).any()) or bool((room.threshold > THRESHOLDS[-1]).any()):
        raise FormatError("more hidden data are spoken of than these images could hold")
    work = pixels.astype(np.int16)
    second = _read(work, room.threshold, room.second, board, 1)
    first = _read(work, room.threshold, room.first, board, 0)
    total = room.first + room.second
    stream = np.zeros((len(pixels), int(total.max(initial=0))), np.uint8)
    place = np.arange(stream.shape[1])
    for part, begin, size in ((first, np.zeros_like(total), room.first), (second, room.first, room.second)):
        rows, columns = np.nonzero((place >= begin[:, None]) & (place < (begin + size)[:, None]))
        stream[rows, columns] = part[rows, columns - begin[rows]]
    used = _release(work, stream, room.threshold)
    return _left(stream, used, total), work.clip(0, 255).astype(np.uint8)


class _Board:
    """The two colours of a chessboard, and who is whose neighbour inside a square of ``block`` pixels."""

    def __init__(self, shape: tuple[int, ...], block: int) -> None:
        _, height, width = shape
        rows, columns = np.indices((height, width))
        self.links: list[tuple[int, int, NDArray[np.int16]]] = []
        for down, right in ((-1, 0), (1, 0), (0, -1), (0, 1)):
            i, j = rows + down, columns + right
            near = (i >= 0) & (i < height) & (j >= 0) & (j < width)
            if block:
                near &= (i // block == rows // block) & (j // block == columns // block)
            self.links.append((down, right, near.astype(np.int16)))
        self.many = sum((near for _, _, near in self.links), np.zeros((height, width), np.int16))
        self.cells = [
            np.flatnonzero(np.broadcast_to(((rows + columns) % 2 == colour) & (self.many > 0), shape).ravel()) for colour in (0, 1)
        ]

    def predict(self, work: Wide, colour: int) -> Wide:
        """Return what the pixels of one colour (N, P) should be, judged by their neighbours."""
        total = np.zeros_like(work)
        for down, right, near in self.links:
            total += np.roll(work, (-down, -right), (2, 3)) * near
        flat = (total // np.maximum(self.many, 1)).reshape(len(work), -1)
        predicted: Wide = flat[:, self.cells[colour]]
        return predicted


def _attempt(pixels: U8, bits: Bits, lengths: Ints, threshold: int, board: _Board) -> tuple[U8, Room]:
    """Hide bits with one threshold; where they do not fit, the threshold of the room is 0."""
    work = pixels.astype(np.int16)
    pulled = (work < threshold).astype(np.int16) - (work > 255 - threshold)
    work += threshold * pulled
    codes, sizes = _map_code(work, pulled != 0, np.full(len(work), threshold))
    total = sizes + lengths
    stream = np.zeros((len(work), int(total.max(initial=0))), np.uint8)
    place = np.arange(stream.shape[1])
    for part, begin, size in ((codes, np.zeros_like(sizes), sizes), (bits, sizes, lengths)):
        rows, columns = np.nonzero((place >= begin[:, None]) & (place < (begin + size)[:, None]))
        stream[rows, columns] = part[rows, columns - begin[rows]]
    first = _write(work, stream, np.zeros_like(total), total, threshold, board, 0)
    second = _write(work, stream, first, total - first, threshold, board, 1)
    fits = first + second == total
    return work.astype(np.uint8), Room(np.where(fits, threshold, 0), first, second)


def _write(work: Wide, stream: Bits, begin: Ints, size: Ints, threshold: int, board: _Board, colour: int) -> Ints:
    """Expand errors of one colour in place until ``size`` bits are written; return how many were."""
    flat, cells = work.reshape(len(work), -1), board.cells[colour]
    guess = board.predict(work, colour)
    error = flat[:, cells] - guess
    open_ = (error >= -threshold) & (error < threshold)
    number: Ints = np.cumsum(open_, 1) - open_
    written: Ints = np.minimum(open_.sum(1), size)
    zone = number < written[:, None]
    rows, columns = np.nonzero(open_ & zone)
    moved = error + np.where(error >= threshold, threshold, -threshold).astype(np.int16)
    moved[rows, columns] = 2 * error[rows, columns] + stream[rows, begin[rows] + number[rows, columns]]
    flat[:, cells] = guess + np.where(zone, moved, error)
    return written


def _read(work: Wide, threshold: Ints, size: Ints, board: _Board, colour: int) -> Bits:
    """Read ``size`` bits from one colour and undo what they did, in place."""
    flat, cells, limit = work.reshape(len(work), -1), board.cells[colour], threshold[:, None].astype(np.int16)
    guess = board.predict(work, colour)
    error = flat[:, cells] - guess
    open_ = (error >= -2 * limit) & (error < 2 * limit)
    number: Ints = np.cumsum(open_, 1) - open_
    zone = number < size[:, None]
    if bool((np.minimum(open_.sum(1), size) < size).any()):
        raise FormatError("the hidden data end too early: the image is not the one that they were hidden in")
    bits = np.zeros((len(work), int(size.max(initial=0))), np.uint8)
    rows, columns = np.nonzero(open_ & zone)
    bits[rows, number[rows, columns]] = error[rows, columns] & 1
    undone = np.where(open_, error >> 1, error - np.where(error >= 0, limit, -limit))
    flat[:, cells] = guess + np.where(zone, undone, error)
    return bits


def _candidates(work: Wide, threshold: Ints) -> tuple[Ints, Ints, Ints, Ints]:
    """Return the pixels that may have been moved inwards: rows, places, numbers in their row, and which of the two ends they are at."""
    flat, limit = work.reshape(len(work), -1), threshold[:, None]
    low = (flat >= limit) & (flat < 2 * limit)
    high = (flat > 255 - 2 * limit) & (flat <= 255 - limit)
    either = low | high
    rows, places = np.nonzero(either)
    return rows, places, (np.cumsum(either, 1) - 1)[rows, places], high[rows, places].astype(np.int64)


def _map_code(work: Wide, pulled: Mask, threshold: Ints) -> tuple[Bits, Ints]:
    """Return the code of the overflow map, nothing for an image without pixels near the ends."""
    rows, places, numbers, ends = _candidates(work, threshold)
    lengths = np.bincount(rows, minlength=len(work)).astype(np.int64)
    flags, contexts = np.zeros((2, len(work), int(lengths.max(initial=0))), np.int64)
    flags[rows, numbers], contexts[rows, numbers] = pulled.reshape(len(work), -1)[rows, places], ends
    codes, sizes = encode(flags, lengths, 2, contexts=contexts, width=MAP_WIDTH)
    return codes, np.where(lengths > 0, sizes, 0)


def _release(work: Wide, stream: Bits, threshold: Ints) -> Ints:
    """Move pixels back to the ends in place, as the map at the head of the stream says; return how many bits the map took."""
    rows, places, numbers, ends = _candidates(work, threshold)
    lengths = np.bincount(rows, minlength=len(work)).astype(np.int64)
    contexts = np.zeros((len(work), int(lengths.max(initial=0))), np.int64)
    contexts[rows, numbers] = ends
    if not len(rows):
        return np.zeros(len(work), np.int64)
    flags, _, used = decode(stream, lengths, 2, contexts=contexts, width=MAP_WIDTH)
    work.reshape(len(work), -1)[rows, places] -= (flags[rows, numbers] * threshold[rows] * (1 - 2 * ends)).astype(np.int16)
    return np.where(lengths > 0, used, 0)


def _left(stream: Bits, used: Ints, total: Ints) -> Bits:
    """Return each row without its first ``used`` bits."""
    sizes = total - used
    rest = np.zeros((len(stream), int(sizes.max(initial=0))), np.uint8)
    rows, columns = np.nonzero(np.arange(rest.shape[1]) < sizes[:, None])
    rest[rows, columns] = stream[rows, used[rows] + columns]
    return rest
