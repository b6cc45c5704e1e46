"""The owner's model among its siblings, in an order that does not tell which is which: whatever a statistic uses is made of all of them alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from modelward.core.deciding import DRAWS
from modelward.core.errors import FormatError, InputError
from modelward.core.guard import predict, state_digest
from modelward.core.images import ImageSet
from modelward.core.key import REMEDY, Key
from modelward.core.siblings import ORIGINS, Siblings, chosen, sibling_seed
from modelward.ownership.sibling_guard import Figures, behaviour, figures_of, near_copies, odd_one_out, useless

CHOSEN = "The owner chose the siblings: nothing shows that none was left out."
SEEDS = "The seeds of the siblings are not those that the digests of model, images, code and start give, or some were left out."
MATCHED = "The siblings were trained by a recipe that was fitted to the owner's accuracy: an approximation, which decides nothing."
SMOKE = "The key was calibrated in the profile smoke, which tries the machinery: it decides nothing."
STARTS = {
    "none": "By the owner's word training began at weights drawn anew, which nobody else has.",
    "base": "By the owner's word training began at a public network, and so did every sibling.",
    "start": "By the owner's word training began at initial weights that others may have, and so did every sibling.",
    "unsaid": "Nobody said where training began (--base FILE, --start FILE or --base none): siblings with another start prove nothing.",
}


@dataclass(frozen=True, eq=False)
class Candidates:
    """The m + 1 candidates, sorted by their digests.

    Parameters
    ----------
    models, digests
        in that order.
    own
        the place of the owner's model.
    family
        where the siblings came from.
    """

    models: tuple[nn.Module, ...]
    digests: tuple[str, ...]
    own: int
    family: Siblings

    @classmethod
    def of(cls, model: nn.Module, family: Siblings) -> Candidates:
        """Return the candidates; raises `InputError` for siblings that are copies of each other or of the model."""
        found = [(state_digest(one), one) for one in (model, *family.models)]
        count = len({digest for digest, _ in found})
        if count < len(found):
            message = f"{len(found) - count} of the {len(family)} siblings have the weights of another one or of the model itself; {told_missing(count - 1)}"
            raise InputError(message)
        order = sorted(range(len(found)), key=lambda place: found[place][0])
        return cls(tuple(found[i][1] for i in order), tuple(found[i][0] for i in order), order.index(0), family)

    def answers(self, pixels: Tensor) -> list[Tensor]:
        """Return the logits (n, K) of every candidate."""
        return [predict(model, pixels) for model in self.models]

    def facts(self, asked: ImageSet, held: ImageSet | None) -> dict[str, Any]:
        """Return what a key keeps of the candidates.

        Parameters
        ----------
        asked
            the probes with their labels.
        held
            further labelled images that nobody trained on; ``None`` where there are none.
        """
        sets = {"trained on": self.family.images, "probes": asked, "held out": held}
        seeds = {state_digest(model): seed for model, seed in zip(self.family.models, self.family.seeds, strict=False)}
        members = [
            {"digest": digest, "seed": seeds.get(digest), "figures": figures_of(model, sets)}
            for digest, model in zip(self.digests, self.models, strict=True)
        ]
        family = self.family
        return {
            "of": "siblings", "own": self.own, "members": members, "origin": family.origin, "start": family.start,
            "start_digest": family.start_digest, "code": family.code, "images": None if family.images is None else family.images.digest,
            "failed": [{"number": one.number, "seed": one.seed, "why": one.why} for one in family.failed],
            "tuning": [state_digest(model) for model in family.tuning], "smoke": family.smoke,
            "root": family.root,
        }  # fmt: skip


def told_missing(count: int) -> str:
    """Return how many siblings are missing, in words.

    >>> told_missing(12), told_missing(19)
    ('12 differ, 19 are needed: 7 are missing', '19 differ')
    """
    short = DRAWS[0] - count
    return f"{count} differ" + (f", {DRAWS[0]} are needed: {short} are missing" if short > 0 else "")


@dataclass(frozen=True)
class Family:
    """What a key says of its candidates, read back.

    Parameters
    ----------
    own
        the place of the owner's model.
    count
        how many candidates there are, the owner's model included.
    doubts, headlines
        reasons for which nothing can be decided, and what a reader has to know first.
    """

    own: int
    count: int
    doubts: tuple[str, ...]
    headlines: tuple[str, ...]


def family_of(key: Key, answers: Tensor) -> Family:
    """Return what ``key`` says of its candidates, checked against their stored ``answers`` (m + 1, n, K).

    Raises
    ------
    FormatError
        when it makes no sense.
    """
    members, own = key.fact(list, "draws", "members"), int(key.fact(float, "draws", "own"))
    if not 0 <= own < len(members) or len(members) != len(answers):
        message = f"this {key.method} key names {len(members)} candidates and holds answers of {len(answers)}: {REMEDY}"
        raise FormatError(message)
    if not bool(torch.isfinite(answers).all()):
        message = f"this {key.method} key holds answers of its candidates that are no numbers: {REMEDY}"
        raise FormatError(message)
    if str(members[own].get("digest") if isinstance(members[own], dict) else "") != key.model_digest:
        message = f"this {key.method} key puts another model than its own in the owner's place: {REMEDY}"
        raise FormatError(message)
    origin, start = key.fact(str, "draws", "origin"), key.fact(str, "draws", "start")
    if origin not in ORIGINS or start not in STARTS:
        message = f"this {key.method} key says of its siblings what nothing says ({origin!r:.40}, {start!r:.40}): {REMEDY}"
        raise FormatError(message)
    doubts = list[str]()
    if start == "unsaid":
        doubts.append(STARTS["unsaid"])
    if origin == "matched":
        doubts.append(MATCHED)
    if key.fact(bool, "draws", "smoke"):
        doubts.append(SMOKE)
    if len(members) > 1:
        figures = [Figures.of(member) for member in members]
        rows = [{**one.values(), **more} for one, more in zip(figures, behaviour(key.tensors, len(members)), strict=True)]
        doubts += [*useless(figures, own), *near_copies(members, answers, own), *odd_one_out(rows, own)]  # what has collapsed is alike, too
    doubts += seeds_chosen(key)
    words = [STARTS[start]] + ([CHOSEN] if chosen(key.fact(dict, "draws")) else [])
    failed = key.fact(list, "draws", "failed")
    if failed:
        words.append(f"{len(failed)} siblings could not be trained: each counts as a draw that is at least as close to any suspect.")
    return Family(own, len(members), tuple(doubts), tuple(words))


def spread(images: ImageSet, chosen: Tensor) -> ImageSet | None:
    """Return the images that are not among ``chosen`` positions, or ``None`` where none is left."""
    free = torch.ones(len(images), dtype=torch.bool)
    free[chosen[chosen < len(images)]] = False
    return images.take(free.nonzero().flatten()) if bool(free.any()) else None


def seeds_chosen(key: Key) -> list[str]:
    """Return a doubt where the seeds of a key's siblings are not all of those that its own digests give; nothing where no seeds are claimed."""
    draws = key.fact(dict, "draws")
    if chosen(draws) and not draws.get("root"):
        return []
    own, listed = int(key.fact(float, "draws", "own")), [*key.fact(list, "draws", "members"), *key.fact(list, "draws", "failed")]
    told = [one.get("seed") if isinstance(one, dict) else None for place, one in enumerate(listed) if place != own]
    root, images, code, start = (
        None if draws.get(name) is None else str(draws[name]) for name in ("root", "images", "code", "start_digest")
    )
    wanted = [sibling_seed(root or key.model_digest, str(images), code, start, number) for number in range(1, len(told) + 1)]
    return [] if sorted(map(str, told)) == sorted(map(str, wanted)) else [SEEDS]
