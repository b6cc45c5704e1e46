"""Whoever checks evidence asks the siblings again: the answers in the key have to be those that the named models give."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from modelward.audit.enrolment import ownership
from modelward.core.errors import InputError, UnsafeFileError
from modelward.core.guard import state_digest
from modelward.core.key import Key
from modelward.models import load_model

UNASKED = "The siblings and their answers are the owner's figures: nobody asked them again (--sibling-models DIR) or trained some anew (--retrain N)."


@dataclass(frozen=True)
class Asked:
    """How many of a key's siblings were shown and answered as the key says, of how many."""

    shown: int
    count: int

    def __str__(self) -> str:
        """Say it in a sentence."""
        if self.shown == self.count:
            return f"All {self.count} siblings were shown, and answer as the key says."
        return (
            f"{self.shown} of {self.count} siblings were shown, and answer as the key says; what the others answer is the owner's figure."
        )


def ask_siblings(key: Key, folder: Path, arch: str | None = None) -> Asked:
    """Ask the siblings in ``folder`` what ``key`` says that they answer, on its probes and on the clean images.

    Raises
    ------
    InputError
        when the key has no siblings, or the folder holds none of them.
    UnsafeFileError
        when one of them answers otherwise than the key says.
    """
    if ownership(key.method, {}).drawn_over != "siblings":
        message = f"the draws behind this {key.method} key are no siblings; leave --sibling-models away"
        raise InputError(message)
    own, members = int(key.fact(float, "draws", "own")), key.fact(list, "draws", "members")
    place = {str(member["digest"]): number for number, member in enumerate(members) if number != own}
    pixels, method = key.tensor("clean"), ownership(key.method, {})
    size = (int(pixels.shape[2]), int(pixels.shape[3]))
    found = set[int]()
    for path in sorted(folder.glob("*.safetensors")) if folder.is_dir() else []:
        model = load_model(path, arch or str(key.facts.get("arch") or "") or None, size=size).model
        number = place.get(state_digest(model))
        if number is None:
            continue
        if method.differs(model, key, number):
            message = f"{path.name} is a sibling that the key names, but it answers otherwise than the key says"
            raise UnsafeFileError(message)
        found.add(number)
    if not found:
        message = f"--sibling-models {folder.name}: none of the models there is a sibling that the key names"
        raise InputError(message)
    return Asked(len(found), len(place))
