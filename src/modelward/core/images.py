"""Images of one set: one uint8 tensor, its labels, its class names."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from modelward.core.canonical import digest_of
from modelward.core.errors import InputError


@dataclass(frozen=True, eq=False)
class ImageSet:
    """A labelled image set held as 8-bit pixels.

    Parameters
    ----------
    pixels
        uint8 tensor (N, C, H, W).
    labels
        int64 tensor (N,), values in [0, K).
    classes
        the K class names, in label order.
    name
        what the set is called in reports.

    Raises
    ------
    InputError
        when shapes, types or labels do not fit together.

    Examples
    --------
    >>> import torch
    >>> images = ImageSet(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]), ("cat", "dog"), "toy")
    >>> len(images), images.batch(slice(0, 2)).shape
    (4, torch.Size([2, 1, 8, 8]))
    """

    pixels: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    name: str

    def __repr__(self) -> str:
        """Name the set without printing its pixels."""
        shape = "x".join(map(str, self.pixels.shape[1:]))
        return f"ImageSet({self.name!r}: {len(self.pixels)} images {shape}, {len(self.classes)} classes)"

    def __post_init__(self) -> None:
        """Check that the parts fit together."""
        if self.pixels.dtype != torch.uint8 or self.pixels.ndim != 4:  # N, C, H, W
            message = f"{self.name}: images must be a uint8 tensor (N, C, H, W), got {self.pixels.dtype} {tuple(self.pixels.shape)}"
            raise InputError(message)
        if self.labels.dtype != torch.int64 or self.labels.shape != self.pixels.shape[:1]:
            message = (
                f"{self.name}: {len(self.pixels)} images need as many int64 labels, got {self.labels.dtype} {tuple(self.labels.shape)}"
            )
            raise InputError(message)
        if len(self.labels) and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.classes):
            message = (
                f"{self.name}: labels run from {int(self.labels.min())} to {int(self.labels.max())} but there are {len(self.classes)} classes; "
                "labels must lie in [0, number of classes)"
            )
            raise InputError(message)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.pixels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        _, channels, height, width = self.pixels.shape
        return channels, height, width

    def batch(self, where: slice | Tensor | list[int]) -> Tensor:
        """Return the chosen images as a float32 batch (n, C, H, W) in [0, 1]."""
        return self.pixels[where].to(torch.float32).div_(255)

    def take(self, where: slice | Tensor | list[int], name: str | None = None) -> ImageSet:
        """Return the chosen images as a set of its own."""
        return ImageSet(self.pixels[where], self.labels[where], self.classes, name or self.name)

    def few(self, count: int) -> ImageSet:
        """Return ``count`` images, spread evenly over the set, in its order; all of them when there are no more.

        Folders are read class after class: their first images are all of one class.

        >>> import torch
        >>> images = ImageSet(torch.zeros(6, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 0, 0, 1, 1, 1]), ("a", "b"), "toy")
        >>> images.few(4).labels.tolist(), len(images.few(9))
        ([0, 0, 1, 1], 6)
        """
        if count >= len(self):
            return self
        return self.take(torch.arange(count) * len(self) // max(count, 1))

    @cached_property
    def digest(self) -> str:
        """SHA-256 over pixels, labels, shape and class names."""
        state = hashlib.sha256(self.pixels.contiguous().numpy().data)
        state.update(self.labels.contiguous().numpy().data)
        state.update(digest_of([list(self.pixels.shape), list(self.classes)]).encode())
        return state.hexdigest()

    @cached_property
    def image_digests(self) -> frozenset[bytes]:
        """One digest per distinct image, to assert that two sets share none."""
        return frozenset(self.each_digest)

    @cached_property
    def each_digest(self) -> tuple[bytes, ...]:
        """One digest an image, in their order; equal pixels have equal ones."""
        flat = self.pixels.reshape(len(self), -1).contiguous().numpy()
        return tuple(hashlib.blake2b(row, digest_size=16).digest() for row in flat)


def assert_disjoint(*sets: ImageSet) -> None:
    """Raise `InputError` when any image stands in two of the sets (compared by pixels)."""
    for i, first in enumerate(sets):
        for second in sets[i + 1 :]:
            shared = len(first.image_digests & second.image_digests)
            if shared:
                message = f"{first.name!r} and {second.name!r} share {shared} images; the parts of a study must be disjoint"
                raise InputError(message)
