"""The evidence of relevance maps as one picture: probes, the owner's maps, the suspect's, what all candidates have in common, and the scores."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Array = NDArray[np.float64]
TILE, GAP, LEFT, TOP, ACROSS, MOST = 56, 6, 110, 64, 10, 40
ROWS = ("image", "owner", "suspect", "candidates")
RED, BLUE, INK, PAPER = (178, 24, 43), (33, 102, 172), (25, 25, 25), (255, 255, 255)


def coloured(heat: Array) -> NDArray[np.uint8]:
    """Return a map (H, W) as RGB (H, W, 3): white for 0, red for relevance, blue for what speaks against; its largest size is the full colour.

    >>> coloured(np.array([[0.0, 2.0, -1.0]])).tolist()
    [[[255, 255, 255], [178, 24, 43], [144, 178, 214]]]
    """
    share = heat / max(float(np.abs(heat).max()), 1e-30)
    ends = np.where((share > 0)[..., None], np.array(RED), np.array(BLUE))
    mixed = 255 + np.abs(share)[..., None] * (ends - 255.0)
    return np.rint(mixed).astype(np.uint8)


def draw_sheet(pixels: NDArray[np.uint8], maps: Sequence[Array], scores: Array, *, title: str, note: str = "") -> bytes:
    """Return a PNG with up to 40 probes, spread evenly from the least alike to the most alike.

    Parameters
    ----------
    pixels
        the probes, uint8 (N, C, H, W), C 1 or 3.
    maps
        relevance (N, H, W) of the owner's model, of the suspect, and the mean of all candidates.
    scores
        how alike owner and suspect are, (N,).
    title, note
        two lines of text above.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> png = draw_sheet(np.zeros((3, 1, 8, 8), np.uint8), [rng.normal(size=(3, 8, 8))] * 3, np.ones(3), title="a title")
    >>> Image.open(io.BytesIO(png)).size
    (736, 336)
    """
    order = np.argsort(scores, kind="stable")
    shown = order[np.unique(np.linspace(0, len(order) - 1, min(MOST, len(order))).round().astype(int))]
    blocks = [shown[i : i + ACROSS] for i in range(0, len(shown), ACROSS)]
    high = len(ROWS) * (TILE + GAP) + 24
    sheet = Image.new("RGB", (LEFT + ACROSS * (TILE + GAP) + GAP, TOP + len(blocks) * high), PAPER)
    pen, plain, small = ImageDraw.Draw(sheet), ImageFont.load_default(15), ImageFont.load_default(12)
    pen.text((GAP, 8), title, INK, font=plain)
    pen.text((GAP, 34), note, INK, font=small)
    for number, block in enumerate(blocks):
        top = TOP + number * high
        for row, name in enumerate(ROWS):
            pen.text((GAP, top + row * (TILE + GAP) + TILE // 2 - 8), name, INK, font=small)
        pen.text((GAP, top + len(ROWS) * (TILE + GAP)), "likeness", INK, font=small)
        for column, probe in enumerate(block):
            image = pixels[probe].transpose(1, 2, 0)
            tiles = [np.broadcast_to(image, (*image.shape[:2], 3)), *(coloured(kind[probe]) for kind in maps)]
            left = LEFT + column * (TILE + GAP)
            _column(sheet, pen, tiles, left, top)
            pen.text((left + 8, top + len(ROWS) * (TILE + GAP)), f"{scores[probe]:.2f}", INK, font=small)
    stream = io.BytesIO()
    sheet.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def _column(sheet: Image.Image, pen: ImageDraw.ImageDraw, tiles: Sequence[NDArray[np.uint8]], left: int, top: int) -> None:
    """Put tiles (H, W, 3) below each other, each with a frame."""
    for row, tile in enumerate(tiles):
        place = (left, top + row * (TILE + GAP))
        sheet.paste(Image.fromarray(np.ascontiguousarray(tile)).resize((TILE, TILE), Image.Resampling.NEAREST), place)
        pen.rectangle((place[0] - 1, place[1] - 1, place[0] + TILE, place[1] + TILE), outline=(200, 200, 200))
