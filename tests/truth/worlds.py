"""Three owners and what they are measured with: siblings, twenty further owners of two recipes, strangers, thieves, and owners trained another way.

Nothing here was used to choose a statistic: that was done on the owners of seeds 101, 102 and 103, which are another cut of the images.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tests.foreign.loop import Script
from tests.foreign.ours import OurScript, our_lenet
from tests.foreign.suspects import Suspected, World, strangers, thieves
from torch import nn

from modelward.core.images import ImageSet
from modelward.core.rng import derive_seed, generator
from modelward.core.siblings import TUNING
from modelward.data import load_data

OWNERS, SIBLINGS, PER_KIND = 20, 19, 6
SHARED_START = ("owner's start", "same script and seed")
"""Kinds that are strangers only to an owner who said that others may have his initial weights."""


@dataclass(frozen=True, eq=False)
class Scene:
    """An owner with everybody he is measured with.

    Parameters
    ----------
    world
        the owner.
    pool, test
        images that keys are made of, and images that nobody has.
    start
        what the owner says of where training began.
    owners
        how many owners of this recipe there are.
    others
        settings of the script that would be another recipe than the siblings': the guard should see them.
    """

    world: World
    pool: ImageSet
    test: ImageSet
    start: str = "none"
    owners: int = 1
    others: tuple[dict[str, object], ...] = ()
    per_kind: int = PER_KIND

    def owner(self, number: int) -> Suspected:
        """Return one of the owners, all trained alike; 0 is the one with a name."""
        return replace(self.world.sibling(1000 + number), kind="owner") if number else self.world.owner

    def siblings(self) -> list[Suspected]:
        """Return the ranked siblings, which all owners share."""
        return [self.world.sibling(number) for number in range(1, SIBLINGS + 1)]

    def tuning(self) -> list[Suspected]:
        """Return the siblings that are never ranked."""
        return [self.world.sibling(100 + number) for number in range(TUNING)]

    def strangers(self) -> list[Suspected]:
        """Return the strangers."""
        return strangers(self.world, per_kind=self.per_kind)

    def thieves(self, folder: Path) -> list[Suspected]:
        """Return those who took the model of owner 0."""
        return thieves(self.world, self.world.owner.model(folder))

    def tuning_thieves(self, folder: Path) -> list[tuple[int, Suspected]]:
        """Return three thefts of every tuning sibling: fine-tuned, pruned and fine-tuned, extracted."""
        found = []
        for number, victim in enumerate(self.tuning()):
            listed = thieves(replace(self.world, name=f"{self.world.name} tuning {number}"), victim.model(folder))
            found += [(number, one) for one in (listed[1], listed[8], listed[14])]
        return found

    def misfits(self) -> list[Suspected]:
        """Return models whose recipe is not the siblings'."""
        script = self.world.foreign.but(start=self.world.base)
        return [
            Suspected("misfit", f"misfit {change} {turn}", "nothing", script.but(**change), self.world.images,
                      derive_seed("misfit", self.world.name, number, turn) % 2**31)
            for number, change in enumerate(self.others) for turn in range(OWNERS // len(self.others))
        ]  # fmt: skip

    def everybody(self, folder: Path) -> Iterator[Suspected]:
        """Yield all models, what others depend on first."""
        yield self.world.owner
        yield from self.siblings()
        yield from (self.owner(number) for number in range(1, self.owners))
        yield from self.strangers()
        yield from self.thieves(folder)
        yield from self.misfits()
        yield from self.tuning()
        yield from (one for _, one in self.tuning_thieves(folder))


def _cut(name: str, count: int, pool: int, seed: int) -> list[ImageSet]:
    """Return owner's, others', the base's, the pool's and test images of a set."""
    splits = load_data(name)
    pixels, labels = (torch.cat([getattr(splits.train, part), getattr(splits.test, part)]) for part in ("pixels", "labels"))
    order = torch.randperm(len(pixels), generator=generator(seed))
    sizes = (count, count, count, pool, pool)
    parts = order[: sum(sizes)].split(sizes)
    words = ("owner", "others", "base", "pool", "test")
    return [ImageSet(pixels[at], labels[at], splits.train.classes, f"{name}, {word}") for at, word in zip(parts, words, strict=True)]


LONGER, SHORTER, OTHER, MOVED = {"epochs": 40}, {"epochs": 4}, {"optimiser": "sgd", "rate": 0.005}, {"moved": True}


def base_of(folder: Path) -> nn.Module:
    """Return the public network that one owner and many strangers begin at; it is trained here when it is not in ``folder``."""
    first = _cut("fashion-mini", 2000, 1000, 7)[2]
    return Suspected("base", "base", "nothing", Script(net="lenet"), first, 71).model(folder)


def scenes(folder: Path) -> dict[str, Scene]:
    """Return the scenes by name; the public base is trained here when it is not in ``folder``."""
    mine, theirs, _, pool, test = _cut("fashion-mini", 2000, 1000, 7)
    script, base = Script(net="lenet"), base_of(folder).state_dict()
    foreign = World("truth foreign", script, mine, theirs, seed=1001)
    ours = World("truth ours", OurScript(), mine, theirs, seed=1002, strangers_by=Script(net=our_lenet))
    based = World("truth base", Script(net="lenet", epochs=8, start=None), mine, theirs, seed=1003, base=base)
    return {
        "foreign": Scene(foreign, pool, test, owners=OWNERS, others=(LONGER, SHORTER, OTHER, MOVED)),
        "ours": Scene(ours, pool, test, owners=OWNERS),
        "base": Scene(based, pool, test, start="base"),
    }


def photographs() -> Scene:
    """Return an owner on CIFAR-10, with a net that has BatchNorm."""
    mine, theirs, _, pool, test = _cut("cifar10-jpeg", 3000, 1000, 9)
    return Scene(World("truth photographs", Script(net="vgg", epochs=8), mine, theirs, seed=1004), pool, test, per_kind=3)
