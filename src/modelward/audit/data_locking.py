"""Lock an image set on disk, and open a locked one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from modelward.audit.lockable_sets import read_source
from modelward.audit.locked_sets import Folder, partial, published_names, read_locked, write_locked, write_whole
from modelward.core.catalogue import find
from modelward.core.errors import InputError, UsageError
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.rng import derive_seed, generator
from modelward.evaluation.zoo import null_recipe
from modelward.io.age import Secret
from modelward.io.images import FILE_CAP, png_bytes
from modelward.keys import read_key, write_key
from modelward.keys.cipher import fresh_secret
from modelward.keys.files import key_digest
from modelward.locks.dataset_lock import DatasetLock
from modelward.locks.ledger import SIDECAR, require_manifest, require_unchanged
from modelward.locks.sidecars import FILE, opened, with_files
from modelward.models import build, load_model
from modelward.training import fit

SURROGATE = "cnn"


@dataclass(frozen=True, eq=False)
class LockedSet:
    """What locking a set gives: the key, how many images lie how, and how far they are from their originals in dB.

    ``recoded`` of them will come back in their own colours, and in another form than their file: palette images as RGB, one-bit ones as grey.
    """

    key: Key
    counts: dict[str, int]
    images: int
    psnr: float
    recoded: int = 0


def data_locking(method: str, settings: dict[str, Any]) -> DatasetLock:
    """Return the lock of image sets called ``method``; raises `UsageError` for another kind."""
    found = find(method).configured(settings)
    if not isinstance(found, DatasetLock):
        message = f"{method} locks no image sets; dataset-lock does"
        raise UsageError(message)
    return found


def lock_data(
    method: str, settings: dict[str, Any], data: str, out: Path, out_key: Path, *, model: Path | None = None, arch: str | None = None,
    seed: int = 0, passphrase: Secret | None = None,
) -> LockedSet:  # fmt: skip
    """Lock an image set into a folder; the key is written before it, and an interrupted run goes on when it is called again.

    Parameters
    ----------
    data
        a folder or a zip of class folders, or any set that `load_data` knows.
    out, out_key
        where the locked images and the key go.
    model, arch
        the surrogate; without a file a net is trained on the images, of the architecture ``arch`` or else a small convolutional one.

    Raises
    ------
    InputError
        for images that cannot be locked, among them those that would not come back as they were (see `read_source`); nothing is written.
    UsageError
        when the key is there already and belongs to another run.
    """
    chosen = data_locking(method, settings)
    source = read_source(data, whole=chosen.backend == "sidecar")
    published_names(source.names)
    old = _old_key(out, out_key, passphrase)
    surrogate = load_model(model, arch, like=source.images.shape).model if model is not None else _surrogate(source.images, arch, seed)
    secret = fresh_secret() if old is None else bytes(old.tensor("secret").tolist())
    locked, key = chosen.lock(source.images, surrogate, secret=secret, rng=generator(seed))
    if old is None:
        write_key(out_key, key, passphrase=passphrase)
    elif key_digest(old) != key_digest(key):
        message = (
            f"{out_key} was written for other images, settings or another surrogate; call with the same ones, or with another --out-key"
        )
        raise UsageError(message)
    root = chosen.opened_by(locked, key)
    write_locked(out, with_files(locked, source.files(locked.sidecars), root), source.names, root, grey=source.grey, recoded=source.recoded)
    gap = (locked.images.pixels.double() - source.images.pixels.double()).square().mean()
    recoded = len(set(source.recoded) - set(locked.sidecars))
    return LockedSet(key, dict(locked.manifest["counts"]), len(source.images), float(10 * torch.log10(255**2 / gap)), recoded)


def _old_key(out: Path, out_key: Path, passphrase: Secret | None) -> Key | None:
    """Return the key of a run that was interrupted."""
    if not out_key.exists():
        return None
    if not partial(out):
        message = f"{out_key} exists, and a key is never overwritten; pass another --out-key or move it away"
        raise UsageError(message)
    return read_key(out_key, passphrase=passphrase)


def _surrogate(images: ImageSet, arch: str | None, seed: int) -> nn.Module:
    """Return a net trained on the images."""
    rng, arch = generator(derive_seed(seed, "surrogate")), arch or SURROGATE
    channels, height, width = images.shape
    net = build(arch, classes=len(images.classes), channels=channels, size=(height, width), rng=rng)
    fit(net, images.pixels, images.labels, null_recipe(arch), rng=rng, task="surrogate")
    return net


def unlock_data(data: Path, key: Key, out: Path, *, customer: str = "") -> dict[str, int]:
    """Write the originals of a locked set; return how many images there are, how many came back as whole files, and how many are recoded.

    An image from a sidecar comes back as its whole file. Any other comes back as a PNG with every pixel as it was, grey where it was grey;
    palette images are RGB then and one-bit images 8-bit grey, in the same colours, and they are counted as recoded.

    Parameters
    ----------
    customer
        the copy then carries this name in its lowest bits, and no image is byte-identical; all are PNG of 8 bits, as many channels each,
        without transparency.

    Raises
    ------
    InputError
        for a wrong key, and for images that were changed; nothing is written.
    """
    chosen = data_locking(key.method, {})
    folder = read_locked(data)
    root = _checked(chosen, folder, key)
    images = chosen.unlock(folder.locked, key, user=customer)
    files: dict[str, bytes] = {}
    whole, grey, recoded = 0, folder.positions("grey"), set(folder.positions("recoded"))
    for i, image in enumerate(images.pixels):
        kind, content = opened(folder.locked, i, root, cap=FILE_CAP) if folder.locked.manifest["how"][i] == SIDECAR else ("", b"")
        if kind == FILE and not customer:
            files[folder.originals[i]], whole = content, whole + 1
            recoded.discard(i)
        else:
            # a customer's mark lies in all channels, and `trace` reads images of one shape
            own = image[:1] if i in grey and not customer else image
            files[folder.files[i]] = png_bytes(own.numpy())
    write_whole(out, files)
    return {"images": len(images), "whole files": whole, "recoded": len(recoded)}


def _checked(chosen: DatasetLock, folder: Folder, key: Key) -> bytes:
    """Return the set's secret once key, manifest, names and images fit together; the images that do not are named."""
    require_manifest(folder.locked.manifest, len(folder.files))
    require_unchanged(folder.locked.images.pixels, folder.locked.manifest, folder.files)
    root = chosen.opened_by(folder.locked, key)
    folder.require_tag(root)
    missing = [
        name for i, name in enumerate(folder.files) if folder.locked.manifest["how"][i] == SIDECAR and i not in folder.locked.sidecars
    ]
    if missing:
        message = f"{len(missing)} sidecars are missing, the first is that of {missing[0]}; without them the originals are lost"
        raise InputError(message)
    return root
