"""In what form pixels lie in an image file, where that is more than eight bits of grey or RGB."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

from PIL import Image, ImageFile

from modelward.io.images import FORMATS

KEPT = frozenset({"1", "L", "P", "RGB"})
"""What reading as eight bits of grey or RGB loses no colour of."""
RECODED = frozenset({"1", "P"})


@dataclass(frozen=True)
class Form:
    """The form of an image file.

    Parameters
    ----------
    lost
        what `read_image` drops, in words that follow "has"; empty where every pixel keeps its colour.
    recoded
        true for palette and one-bit files: they are read in their own colours, as RGB and as grey.
    comment
        the comment that a PNG file carries before its pixels.
    """

    lost: str = ""
    recoded: bool = False
    comment: str = ""


def form_of(data: bytes) -> Form:
    """Return the form of an image file by its header; nothing is decoded.

    A file that cannot be opened has no form: whoever decodes it says what is wrong with it.

    Examples
    --------
    >>> stream = io.BytesIO()
    >>> Image.new("LA", (2, 2)).save(stream, "PNG")
    >>> form_of(stream.getvalue()), form_of(b"")
    (Form(lost='transparency', recoded=False, comment=''), Form(lost='', recoded=False, comment=''))
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                comment = image.info.get("Comment", "")
                return Form(_lost(image), image.mode in RECODED, comment if isinstance(comment, str) else "")
    except Exception:  # noqa: BLE001  # decoders raise whatever they like
        return Form()


def _lost(image: Image.Image) -> str:
    """Return what eight bits of grey or RGB cannot hold of an image."""
    if image.mode in {"RGBA", "LA", "PA", "RGBa", "La"} or "transparency" in image.info:
        return "transparency"
    if image.mode.startswith(("I", "F")) or _deep(image):
        return "more than 8 bits a channel"
    if image.mode not in KEPT:
        return f"{image.mode} colours"
    return "several frames" if getattr(image, "n_frames", 1) > 1 else ""


def _deep(image: Image.Image) -> bool:
    """Return whether the decoder cuts deeper samples to eight bits: an RGB file of 16 bits has the mode of one of 8."""
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
    args = [part for tile in tiles for part in (tile[3] if isinstance(tile[3], tuple) else (tile[3],))]
    return any(";16" in part if isinstance(part, str) else isinstance(part, int) and part > 255 for part in args)
