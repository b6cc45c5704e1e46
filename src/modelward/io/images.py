"""Images from strangers: five formats, a pixel cap from the header, one error type."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from modelward.core.errors import FormatError, InputError, ModelwardError, UnsafeFileError
from modelward.io.atomic import write_bytes
from modelward.io.files import one_line, read_bytes

FORMATS = ("PNG", "JPEG", "WEBP", "PPM")
PIXEL_CAP = 25_000_000
FILE_CAP = 128 * 2**20
U8 = NDArray[np.uint8]


def read_image(
    source: bytes | Path | str,
    *,
    cap_pixels: int = PIXEL_CAP,
    size: tuple[int, int] | None = None,
    grey: bool | None = None,
    name: str = "",
) -> U8:
    """Return an image as uint8 (C, H, W) with one or three channels.

    Parameters
    ----------
    source
        the encoded bytes, or a path: PNG, JPEG, WebP, PGM or PPM; of several frames the first is taken.
    cap_pixels
        width times height allowed, checked in the header before anything is decoded.
    size
        (height, width) to resize to, bilinear with antialiasing.
    grey
        force one channel or three; ``None`` keeps grey images grey. Transparency is laid over white; 16 bits
        become 8 by division by 257; an EXIF orientation is not applied.

    Raises
    ------
    UnsafeFileError
        too many pixels.
    FormatError
        not one of the formats, or damaged.
    """
    label = name or (Path(source).name if not isinstance(source, bytes) else "the image")
    data = source if isinstance(source, bytes) else read_bytes(source, cap=FILE_CAP)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                _require_modest(image, cap_pixels, label)
                return _pixels(image, size, grey)
    except ModelwardError:
        raise
    except Image.DecompressionBombError as error:
        message = f"{label} has too many pixels: {one_line(error)}"
        raise UnsafeFileError(message) from error
    except UnidentifiedImageError as error:
        message = f"{label} is no PNG, JPEG, WebP, PGM or PPM image"
        raise FormatError(message) from error
    except Exception as error:  # decoders raise whatever they like, SyntaxError among it
        message = f"{label} is damaged: {one_line(error) or type(error).__name__}"
        raise FormatError(message) from error


def _require_modest(image: Image.Image, cap_pixels: int, label: str) -> None:
    """Refuse by the header alone what would be too large, or has no fixed range."""
    if image.width * image.height > cap_pixels:
        message = f"{label} has {image.width}x{image.height} pixels, more than the {cap_pixels:,} that are decoded"
        raise UnsafeFileError(message)
    if image.mode == "F":
        message = f"{label} has floating-point pixels, whose range is not fixed; save it with 8 or 16 bits"
        raise FormatError(message)


def _pixels(image: Image.Image, size: tuple[int, int] | None, grey: bool | None) -> U8:
    """Decode, flatten to one or three channels of 8 bits, resize."""
    image.load()
    if image.mode.startswith("I"):  # the decoders scale every deep image to 16 bits, whatever its content
        wide, clear = np.asarray(image, dtype=np.float64), image.info.get("transparency")
        narrow = np.clip(np.rint(wide / 257), 0, 255).astype(np.uint8)
        image = Image.fromarray(np.where(wide == clear, np.uint8(255), narrow) if isinstance(clear, int) else narrow)
    if image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info:
        over = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over).convert("L" if image.mode in {"L", "LA", "1"} else "RGB")
    one = image.mode in {"L", "1"} if grey is None else grey
    image = image.convert("L" if one else "RGB")
    if size is not None and (image.height, image.width) != size:
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    array = np.asarray(image, dtype=np.uint8)
    return array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))


def image_size(data: bytes, name: str = "the image") -> tuple[int, int]:
    """Return (height, width) from the header, decoding nothing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                return image.height, image.width
    except Image.DecompressionBombError as error:
        message = f"{name} has too many pixels: {one_line(error)}"
        raise UnsafeFileError(message) from error
    except Exception as error:  # as above
        message = f"{name} is no PNG, JPEG, WebP, PGM or PPM image, or damaged"
        raise FormatError(message) from error


def png_bytes(pixels: U8, *, comment: str = "") -> bytes:
    """Return uint8 (C, H, W) with one or three channels, or (H, W), as PNG bytes; ``comment`` stands in them as text.

    >>> import numpy as np
    >>> read_image(png_bytes(np.zeros((3, 4, 5), np.uint8))).shape
    (3, 4, 5)
    """
    array = np.asarray(pixels)
    if array.dtype != np.uint8 or array.ndim not in {2, 3} or (array.ndim == 3 and array.shape[0] not in {1, 3}):
        message = f"a PNG needs uint8 pixels (C, H, W) with 1 or 3 channels, got {array.dtype} {array.shape}"
        raise InputError(message)
    flat = array[0] if array.ndim == 3 and array.shape[0] == 1 else array.transpose(1, 2, 0) if array.ndim == 3 else array
    stream, said = io.BytesIO(), PngInfo()
    if comment:
        said.add_text("Comment", comment)
    Image.fromarray(np.ascontiguousarray(flat)).save(stream, "PNG", pnginfo=said)
    return stream.getvalue()


def write_png(path: Path | str, pixels: U8) -> None:
    """Write an image as PNG in one step."""
    write_bytes(path, png_bytes(pixels))
