"""The embedded set: 6,000 + 2,000 class-balanced images of Fashion-MNIST (MIT, Zalando SE), checked against pinned digests."""

from __future__ import annotations

from pathlib import Path

from modelward.data.arrays import joined, read_idx_pair
from modelward.data.known import EMBEDDED, FASHION
from modelward.data.listing import Listing

FOLDER = Path(__file__).resolve().parent / "embedded"
DIGESTS = {
    "train-images.idx.gz": "588e28b567f31b6e53f8a9a634da5f0d2d9b70589f52e05c7d0b968051a1ecf5",
    "train-labels.idx.gz": "9d79cf6e7ddf8fddf34a8d1bf3c90cc2f9715e028d3db01a85c52c5a26683280",
    "test-images.idx.gz": "91e319627482ed7183eadec748f174f7445ccc3ade633e7a3d4a886c0f0fdfd5",
    "test-labels.idx.gz": "46a0656dd86d1addda063a41c802268c6bbf06b0c4a5f65b40a28b27dd7cdf6c",
}
"""SHA-256 of the files as `tools/build_embedded_data.py` makes them."""


def list_embedded(*, size: tuple[int, int] | None = None) -> Listing:
    """Return the listing of the embedded set.

    Raises
    ------
    UnsafeFileError
        when a file of the installation was altered.

    Examples
    --------
    >>> listing = list_embedded()
    >>> len(listing.labels), listing.classes[0]
    (8000, 'T-shirt/top')
    """
    train, test = (
        read_idx_pair(FOLDER / f"{side}-images.idx.gz", FOLDER / f"{side}-labels.idx.gz", EMBEDDED, digests=DIGESTS)
        for side in ("train", "test")
    )
    return joined(train, test, EMBEDDED, classes=FASHION, size=size)
