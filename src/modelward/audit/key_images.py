"""Users of a mark whose key images carry names: the image that a user shows at the gate, and whose name is in images that turned up."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modelward.audit.enrolment import Protected, ownership
from modelward.audit.issuing import Maker
from modelward.audit.judging import suspect_behind
from modelward.audit.lock_traces import image_files
from modelward.core.catalogue import find
from modelward.core.errors import InputError, Undecided, UsageError
from modelward.core.families import OwnershipMethod
from modelward.core.key import Key
from modelward.core.suspect import Suspect
from modelward.io.images import read_image
from modelward.keys.registry import Registry
from modelward.models import Convention
from modelward.ownership.admission import UNKNOWN
from modelward.ownership.issuing import OWNER, answered


def names_images(method: str) -> bool:
    """Return whether ``method`` is a mark whose key images carry the names of users; raises `UsageError` for a name that nothing has.

    >>> names_images("additional-class"), names_images("zhang"), names_images("sample-lock")
    (True, False, False)
    """
    kind = find(method)
    return issubclass(kind, OwnershipMethod) and all(hasattr(kind, verb) for verb in ("issue", "read"))


def image_maker(method: str, marked: Path, key: Key, registry: Path, users: Collection[str], arch: str | None = None) -> Maker:
    """Return what makes a user's key from the owner's: it holds one key image, in which the user's name is, and nothing that is secret.

    Parameters
    ----------
    method
        the mark.
    marked
        the model that everybody has. Only images that it answers with the additional class are handed out: no other would be let in.
    key
        the owner's.
    registry
        numbers the users; user and image of one number belong together until the images begin anew.
    users
        who are to be issued keys.

    Raises
    ------
    UsageError
        for a key that is not the owner's of this method, and for a user who is called as the key's own images are.
    InputError
        for a model that knows none of the key's images.
    """
    _require_owners(key, method)
    if _own_name(key) in users:
        message = f"{_own_name(key)} is the name in the images that the owner keeps; issue under another name"
        raise UsageError(message)
    chosen, model = _namer(key), suspect_behind(marked, key, arch).model
    count = len(key.tensor("labels"))
    labels = Suspect.of_model(model).labels(key.tensor("probes")[:count].to(torch.float32).div(255))
    known = (labels == key.tensor("labels")).nonzero().flatten().tolist()
    if not known:
        message = f"{marked.name} answers no image of this key as the key says: pass the model that was marked with it"
        raise InputError(message)

    def make(settings: dict[str, Any], secret: bytes, user: str) -> Protected:
        del settings, secret  # the payload is the owner's word: only the owner's secret can write it
        number = Registry(registry).grants(user=user, purpose=method)[-1].number
        image = chosen.issue(key, [user], first=known[number % len(known)])
        facts = {"user": user, "settings": {**key.fact(dict, "settings"), "user": user}, "classes": key.fact(list, "classes"), "bare": True}
        return Protected(model, Key(method, key.variant, key.model_digest, facts, {"probes": image}), changed=False)

    return make


@dataclass(frozen=True)
class ImageName:
    """Whose name is in one image.

    Parameters
    ----------
    file
        the image's name.
    user
        to whom it was issued; ``None`` for nobody that can be told.
    state
        whether the user's grant is active, revoked or expired; ``None`` for a name that the registry does not know.
    remark
        why nobody can be told, or what is to be known of the grant.
    """

    file: str
    user: str | None
    state: str | None
    remark: str


def trace_key_images(
    suspect: Path, key: Key, registry: Path, users: Sequence[str] = (), *, model: Path | None = None, arch: str | None = None,
    convention: Convention | None = None,
) -> list[ImageName]:  # fmt: skip
    """Return whose name is in each image of a folder, or in one image, those that name users first.

    Revoked and expired users are named too: that is what is asked.

    Parameters
    ----------
    suspect
        an image, or a folder that is searched through.
    key
        the owner's.
    registry
        whose users are looked for; it need not exist.
    users
        further names.
    model
        the marked model: a name counts only where this model answers the image with the additional class, as at the gate.

    Raises
    ------
    Undecided
        when there is nobody to look for.
    UsageError
        for a key of a method whose images carry no names, and for a user's.
    InputError
        for a suspect without images.
    """
    _require_owners(key, key.method)
    book = Registry(registry) if registry.is_file() else None
    known = [*(grant.user for grant in (book.grants(purpose=key.method) if book else ())), *users]
    if not known:
        raise Undecided("there is nobody to look for: pass --registry, or --user NAME for each")
    asked = None if model is None else suspect_behind(model, key, arch, convention=convention)
    names = list(dict.fromkeys(known))
    found = [_traced(path, _told(path, suspect), key, names, book, asked) for path in image_files(suspect)]
    return sorted(found, key=lambda row: (row.user is None, row.state is None))


def _told(path: Path, place: Path) -> str:
    """Return the name of an image: where it is in a folder that is searched through, as two may be called alike."""
    return path.relative_to(place).as_posix() if path != place else path.name


def _traced(path: Path, told: str, key: Key, users: Sequence[str], book: Registry | None, asked: Suspect | None) -> ImageName:
    """Return whose name is in one image."""
    channels, *size = key.tensor("probes").shape[1:]
    image: Tensor = torch.from_numpy(read_image(path, grey=channels == 1, name=told).copy())  # a viewer may save grey as colour
    if list(image.shape[1:]) != size:
        was, is_ = (f"{width}x{height}" for height, width in (size, image.shape[1:]))
        return ImageName(
            told, None, None, f"it is {is_}, and the key images are {was}: it is none, or was resized, which no payload outlives"
        )
    reading = _namer(key).read(image, key, users=users)
    if reading.user is None:
        return ImageName(told, None, None, reading.reason)
    if asked is not None and not answered(asked, image, int(key.tensor("labels")[0])):
        return ImageName(told, None, None, f"it carries the name of {reading.user}, but {UNKNOWN}")
    return ImageName(told, reading.user, *_standing(reading.user, key, book))


def _standing(user: str, key: Key, book: Registry | None) -> tuple[str | None, str]:
    """Return what the registry says of a user's newest grant: its state, and in words what is to be known of it."""
    grants = book.grants(user=user, purpose=key.method) if book else []
    if book is None or not grants:
        return None, "it is an image that the owner keeps" if user == _own_name(key) else "the registry knows no such user"
    try:
        book.require(user, key.method)
    except InputError as error:
        return grants[-1].state(), str(error)
    return grants[-1].state(), ""


def _namer(key: Key) -> Any:
    """Return the method of a key, which issues and reads key images."""
    return ownership(key.method, dict(key.fact(dict, "settings")))


def _own_name(key: Key) -> str:
    """Return the name in the images of a key that no user was issued."""
    return str(key.fact(dict, "settings").get("user") or OWNER)


def _require_owners(key: Key, method: str) -> None:
    """Raise `UsageError` unless a key is the owner's, of a method whose key images carry names."""
    if key.method != method:
        message = f"this is a key of {key.method}, not of {method}; pass the one that `modelward protect {method}` wrote"
        raise UsageError(message)
    if not names_images(method):
        message = f"the images of a {method} key carry nobody's name; leave out --key to trace a copy of the model"
        raise UsageError(message)
    if key.facts.get("bare"):
        message = f"this is a user's key; names are written and read with the owner's, which `modelward protect {method}` wrote"
        raise UsageError(message)
