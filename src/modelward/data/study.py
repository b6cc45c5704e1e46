"""Who holds which images: the disjoint parts of owner, attacker, probes and test on which every claim rests."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from modelward.core.errors import InputError, UsageError
from modelward.core.images import ImageSet, assert_disjoint
from modelward.core.rng import derive_seed
from modelward.data.sets import Splits
from modelward.data.stratify import stratified_order

TrainedOn = Literal["owner", "train"]


@dataclass(frozen=True, eq=False)
class Study:
    """Four image sets of one data set that share no image.

    Parameters
    ----------
    owner
        what the owner trained, or may train, on.
    attacker
        what a thief has.
    probes
        images that keys and thresholds may be made from.
    test
        images that figures are reported on, and nothing else.
    notes
        what was dropped, and why.

    Raises
    ------
    InputError
        when two parts share an image.
    """

    owner: ImageSet
    attacker: ImageSet
    probes: ImageSet
    test: ImageSet
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Hold the promise."""
        assert_disjoint(*self.parts().values())

    def parts(self) -> dict[str, ImageSet]:
        """Return the four sets by their role."""
        return {"owner": self.owner, "attacker": self.attacker, "probes": self.probes, "test": self.test}

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of every part by its role; equal digests mean equal pixels, labels, order and class names."""
        return {role: part.digest for role, part in self.parts().items()}


def _hashes(images: ImageSet) -> list[bytes]:
    """Return one 128-bit hash per image."""
    flat = images.pixels.reshape(len(images), -1).contiguous().numpy()
    return [hashlib.blake2b(row, digest_size=16).digest() for row in flat]


def _without_shared(parts: dict[str, ImageSet]) -> tuple[dict[str, ImageSet], tuple[str, ...]]:
    """Drop from each part the images that an earlier part holds already; say how many."""
    seen: set[bytes] = set()
    kept: dict[str, ImageSet] = {}
    notes: list[str] = []
    for role, part in parts.items():
        hashes = _hashes(part)
        keep = [i for i, value in enumerate(hashes) if value not in seen]
        seen.update(hashes)
        if not keep:
            message = f"{part.name}: no image is left for the part {role!r} of the study; bring more images or smaller sizes"
            raise InputError(message)
        if len(keep) < len(part):
            notes.append(f"{len(part) - len(keep)} images dropped from {role}: an earlier part holds the same pixels")
        kept[role] = part if len(keep) == len(part) else part.take(keep)
    return kept, tuple(notes)


def _check_size(what: str, size: int | None, available: int) -> None:
    """Refuse a size that no split can give."""
    if size is not None and not 1 <= size <= available:
        message = f"{what} must lie between 1 and {available}, the number of images there are to take from; got {size}"
        raise UsageError(message)


def _cut(images: ImageSet, sizes: Iterable[tuple[str, int]], seed: int) -> dict[str, ImageSet]:
    """Cut consecutive stretches of a stratified order out of ``images``; each keeps the order of the set."""
    rng = np.random.default_rng(derive_seed("study", images.digest, seed))
    order = stratified_order(images.labels.numpy(), rng=rng)
    parts: dict[str, ImageSet] = {}
    start = 0
    for role, size in sizes:
        parts[role] = images.take(torch.from_numpy(np.sort(order[start : start + size])), f"{images.name} {role}")
        start += size
    return parts


def _owner_trained(splits: Splits, seed: int, owner_size: int | None, attacker_size: int | None) -> Study:
    """Halve the training split into owner and attacker, and the test split into probes and test."""
    total, half = len(splits.train), len(splits.train) // 2
    _check_size("owner_size", owner_size, total)
    _check_size("attacker_size", attacker_size, total)
    owner = owner_size if owner_size is not None else min(half, total - (attacker_size or 0))
    attacker = attacker_size if attacker_size is not None else min(half, total - owner)
    if owner + attacker > total or not owner * attacker:
        message = f"{splits.name}: owner ({owner}) and attacker ({attacker}) must share the {total} training images, one each at least"
        raise UsageError(message)
    rest = len(splits.test) // 2
    parts, notes = _without_shared(
        _cut(splits.train, (("owner", owner), ("attacker", attacker)), seed)
        | _cut(splits.test, (("probes", rest), ("test", len(splits.test) - rest)), seed)
    )
    return Study(parts["owner"], parts["attacker"], parts["probes"], parts["test"], notes=(*splits.notes, *notes))


def _train_trained(splits: Splits, seed: int, owner_size: int | None, attacker_size: int | None) -> Study:
    """Leave the training split to the owner, and share the test split out: a half, a quarter, a quarter."""
    total, half = len(splits.test), len(splits.test) // 2
    _check_size("owner_size", owner_size, len(splits.train))
    _check_size("attacker_size", attacker_size, half)
    cut = _cut(splits.test, (("attacker", half), ("probes", total // 4), ("test", total - half - total // 4)), seed)
    if attacker_size is not None:
        cut |= _cut(cut["attacker"], (("attacker", attacker_size),), seed)
    # The whole training split is excluded from the other parts even where the owner keeps a piece of it: the model has seen all of it.
    parts, notes = _without_shared({"owner": splits.train} | cut)
    owner = parts["owner"] if owner_size is None else _cut(parts["owner"], (("owner", owner_size),), seed)["owner"]
    return Study(owner, parts["attacker"], parts["probes"], parts["test"], notes=(*splits.notes, *notes))


def study(
    splits: Splits,
    *,
    trained_on: TrainedOn = "owner",
    seed: int = 0,
    owner_size: int | None = None,
    attacker_size: int | None = None,
) -> Study:
    """Share a data set out among owner, attacker, probes and test, class shares kept.

    An image whose pixels stand in an earlier part (in the order owner, attacker, probes, test) is dropped from the later one and counted in
    the notes.

    Parameters
    ----------
    splits
        a data set.
    trained_on
        ``"owner"``: the model is, or will be, trained on the owner's half of the training split; the test split is halved into probes and
        test. ``"train"``: the model has seen the whole training split, so the attacker (1/2), the probes (1/4) and the test images (1/4)
        all come from the test split.
    seed
        the same seed and data give the same parts, bit for bit.
    owner_size, attacker_size
        numbers of images instead of the halves.

    Raises
    ------
    UsageError
        when the sizes do not fit.
    InputError
        when a part would be empty.

    Examples
    --------
    >>> from modelward.data.sets import load_data
    >>> parts = study(load_data("fashion-mini"), seed=1, attacker_size=500)
    >>> [len(part) for part in parts.parts().values()]
    [3000, 500, 1000, 1000]
    """
    if trained_on not in ("owner", "train"):
        message = f"trained_on is 'owner' or 'train', not {trained_on!r}"
        raise UsageError(message)
    share = _owner_trained if trained_on == "owner" else _train_trained
    if len(splits.train) < 2 or len(splits.test) < 4:
        message = f"{splits.name}: a study needs 2 training and 4 test images at least, got {len(splits.train)} and {len(splits.test)}"
        raise InputError(message)
    return share(splits, seed, owner_size, attacker_size)
