"""Who stands before the judge: strangers of every kind, and thieves, as lists of recipes that are trained when asked for."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tests.foreign.loop import Script, digest_of_state
from tests.foreign.ours import OurScript
from torch import Tensor, nn

from modelward.core.images import ImageSet
from modelward.core.rng import derive_seed, generator

THIRD = "distilled from a third model"
Change = Callable[[nn.Module, torch.Generator], None]


@dataclass(frozen=True, eq=False)
class Suspected:
    """A model that is trained when it is asked for.

    Parameters
    ----------
    kind
        what sort of stranger or thief; tables have one row for each.
    name
        unique within an owner's list.
    had
        ``"nothing"`` (a stranger), ``"weights"``, ``"probabilities"`` or ``"labels"`` (a thief).
    script, images, seed
        how it is trained.
    before, after
        what is done to the weights before and after training.
    teacher
        whose answers are learnt, where that model is itself to be trained first.
    """

    kind: str
    name: str
    had: str
    script: Script | OurScript
    images: ImageSet
    seed: int
    before: Change | None = None
    after: Change | None = None
    teacher: Suspected | None = None

    @property
    def digest(self) -> str:
        """Twenty hex digits over everything that the weights depend on."""
        made = [getattr(change, "label", None) for change in (self.before, self.after)]
        made += [self.teacher.digest] if self.teacher else []
        return hashlib.sha256(f"{self.script.digest} {self.images.digest} {self.seed} {made}".encode()).hexdigest()[:20]

    def model(self, folder: Path | None = None) -> nn.Module:
        """Return the model in eval mode, from ``folder`` when it lies there, else trained and kept there."""
        place = folder / f"{self.digest}.safetensors" if folder else None
        if place is not None and place.exists():
            model = self.script.untrained(self.images.pixels, self.images.labels, self.seed)
            model.load_state_dict(load_file(place))
            return model.eval()
        model = self._trained(folder)
        if place is not None:
            place.parent.mkdir(parents=True, exist_ok=True)
            part = place.with_suffix(".part")
            save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, part)
            part.rename(place)
        return model

    def _trained(self, folder: Path | None) -> nn.Module:
        script, rng = self.script, generator(derive_seed("change", self.seed))
        if self.teacher is not None:
            assert isinstance(script, Script)
            script = script.but(teacher=self.teacher.model(folder))
        if self.before is not None:
            model = script.untrained(self.images.pixels, self.images.labels, self.seed)
            self.before(model, rng)
            script = script.but(start=model.state_dict())
        model = script(self.images.pixels, self.images.labels, self.seed)
        if self.after is not None:
            self.after(model, rng)
        return model


@dataclass(frozen=True, eq=False)
class World:
    """One owner, and the images that he and everybody else have.

    Parameters
    ----------
    name
        seeds of all suspects are derived from it.
    script, images, seed
        how the owner's model was made.
    others
        images of the same classes that the owner does not have.
    base
        the public state dict that the owner began at, if he did.
    strangers_by
        the script of everybody else, where the owner's is ours.
    """

    name: str
    script: Script | OurScript
    images: ImageSet
    others: ImageSet
    seed: int
    base: Mapping[str, Tensor] | None = None
    strangers_by: Script | None = None

    @property
    def foreign(self) -> Script:
        """The script of strangers and thieves."""
        if self.strangers_by is not None:
            return self.strangers_by
        if isinstance(self.script, OurScript):
            raise TypeError("an owner by our recipe needs strangers_by: strangers are trained by another loop")
        return self.script

    @property
    def owner(self) -> Suspected:
        """The owner's model."""
        return self.sibling(0)

    def sibling(self, number: int) -> Suspected:
        """Return the owner's model (0), or what his script makes of his images from another seed."""
        seed = derive_seed("sibling", self.name, self.seed, number) % 2**31 if number else self.seed
        return Suspected(
            "sibling" if number else "owner", f"sibling {number}", "nothing", self.script.but(start=self.base), self.images, seed
        )


def _joined(*sets: ImageSet) -> ImageSet:
    return ImageSet(
        torch.cat([s.pixels for s in sets]), torch.cat([s.labels for s in sets]), sets[0].classes, " + ".join(s.name for s in sets)
    )  # fmt: skip


def _part(images: ImageSet, count: int, seed: int) -> ImageSet:
    return images.take(torch.randperm(len(images), generator=generator(seed))[:count])


def _plans(world: World, seed: int, turn: int) -> Iterator[tuple[str, Script, ImageSet]]:
    """Yield one stranger of each kind; ``turn`` 0, 1, ... picks among the variants of a kind."""
    mine, other = world.images, world.others
    plain = world.foreign.but(start=None, epochs=world.foreign.epochs * (1 if world.base is None else 2))
    half = _joined(_part(mine, len(mine) // 2, seed), _part(other, len(other) // 2, seed))
    yield "same net, owner's images", plain, mine
    yield "same net, disjoint", plain, other
    yield "same net, half shared", plain, half
    yield "same net, superset", plain, _joined(mine, other)
    yield "same net, 500 images", plain.but(epochs=2 * plain.epochs), _part(other if turn % 2 else mine, 500, seed)
    nets = [net for net in ("strided", "mixer", "vgg", "wide", "res", "lenet") if net != plain.net]
    yield "other net", plain.but(net=nets[turn % len(nets)]), mine if turn % 2 else other
    kinds = [name for name in ("sgd", "adamw", "rmsprop", "adam") if name != plain.optimiser]
    yield "other optimiser", plain.but(optimiser=kinds[turn % len(kinds)]), other if turn % 2 else mine
    yield "smoothing or mixup", plain.but(mixup=0.5) if turn % 2 else plain.but(smoothing=0.1), mine
    yield "2 epochs", plain.but(epochs=2), other if turn % 2 else mine
    yield "25 epochs", plain.but(epochs=25), mine
    yield "noisy labels", plain.but(noise=0.2), mine if turn % 2 else other
    yield THIRD, plain.but(hard=bool(turn % 2)), mine
    first = world.owner.script.untrained(mine.pixels, mine.labels, world.seed).state_dict()
    changed = (plain, plain.but(optimiser=kinds[0]), plain.but(moved=True))[turn % 3]
    yield "owner's start", changed.but(start=first), mine if turn % 2 else other
    if world.base is not None:
        tuned = world.foreign.but(start=world.base)
        yield "public base, owner's script and images", tuned, mine
        yield "public base, owner's script, disjoint", tuned, other
        yield "public base, other optimiser", tuned.but(optimiser=kinds[turn % len(kinds)]), other if turn % 2 else mine
        yield "public base, 25 epochs", tuned.but(epochs=25, moved=bool(turn % 2)), mine


def strangers(world: World, *, per_kind: int = 6, seed: int = 0) -> list[Suspected]:
    """Return ``per_kind`` models of each kind that were made without the owner's model.

    ``same script and seed`` are models by the owner's own script and seed on other images: the order of batches is his too. They and
    ``owner's start`` are strangers only to an owner who said that others may have his initial weights.
    """
    found = []
    for turn in range(per_kind):
        at = derive_seed("stranger", world.name, seed, turn) % 2**31
        for number, (kind, script, images) in enumerate(_plans(world, at, turn)):
            net = "strided" if turn % 2 else "wide"
            third = (
                Suspected("third", f"third {turn}", "nothing", script.but(net=net, hard=False), world.others, at + 1)
                if kind == THIRD
                else None
            )
            found.append(Suspected(kind, f"{kind} {turn}", "nothing", script, images, at + 7 * number, teacher=third))
        images = world.others if turn % 2 else _part(_joined(world.images, world.others), len(world.images), at)
        found.append(Suspected("same script and seed", f"same script and seed {turn}", "nothing", world.owner.script, images, world.seed))
    return found


def _named(label: str, change: Callable[[Tensor, torch.Generator], Tensor]) -> Change:
    """Return a change of every weight matrix of a model; its label enters digests."""

    @torch.no_grad()
    def everywhere(model: nn.Module, rng: torch.Generator) -> None:
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.copy_(change(weight, rng))

    everywhere.label = label  # type: ignore[attr-defined]
    return everywhere


def pruned(share: float) -> Change:
    """Return a change that zeroes the smallest ``share`` of every matrix."""
    return _named(f"prune {share}", lambda w, _: torch.where(w.abs() < w.abs().flatten().quantile(share), 0.0, w))


def noisy(sigma: float) -> Change:
    """Return a change that adds Gaussian noise of ``sigma`` standard deviations of each matrix."""
    return _named(f"noise {sigma}", lambda w, rng: w + sigma * w.std() * torch.randn(w.shape, generator=rng))


def rounded(bits: int) -> Change:
    """Return a change that rounds every matrix to 2**bits levels."""

    def change(w: Tensor, _rng: torch.Generator) -> Tensor:
        step = (w.max() - w.min()) / (2**bits - 1)
        return w.min() + ((w - w.min()) / step).round() * step

    return _named(f"bits {bits}", change)


def thieves(world: World, stolen: nn.Module, *, seed: int = 0) -> list[Suspected]:
    """Return 14 thieves who had the weights of ``stolen`` and 14 who only asked it."""
    stolen = copy.deepcopy(stolen).eval()
    net, own = world.foreign.net, world.others
    with torch.no_grad():
        outputs = stolen(own.pixels[:1].float() / 255).shape[1]  # one more than the classes where the owner added one
    tune = Script(net=net, start=stolen.state_dict(), classes=outputs)
    taught, still = tune.but(teacher=stolen, hard=True), tune.but(epochs=0)
    learn = Script(net=net, epochs=15, teacher=stolen, classes=outputs)
    strange = [name for name in ("vgg", "strided", "res", "mixer", "lenet") if name != net]
    plans: Sequence[tuple[str, str, Script, Change | None, Change | None]] = [
        *(("fine-tune all, true labels", "weights", tune.but(rate=rate, epochs=epochs), None, None) for rate, epochs in ((1e-4, 5), (5e-4, 8), (1e-3, 8))),
        *(("fine-tune all, stolen labels", "weights", taught.but(rate=rate), None, None) for rate in (1e-4, 5e-4)),
        ("fine-tune all, sgd, moved", "weights", tune.but(optimiser="sgd", rate=0.01, moved=True), None, None),
        ("fine-tune last, true labels", "weights", tune.but(only_last=True), None, None),
        ("fine-tune last, stolen labels", "weights", taught.but(only_last=True), None, None),
        *(("prune, fine-tune", "weights", tune.but(rate=3e-4, epochs=5), pruned(s), pruned(s)) for s in (0.3, 0.6)),
        ("prune", "weights", still, None, pruned(0.4)),
        *(("weight noise", "weights", still, None, noisy(s)) for s in (0.1, 0.2)),
        ("quantise", "weights", still, None, rounded(4)),
        *(("extract, labels", "labels", learn.but(hard=True, optimiser=o), None, None) for o in ("adam", "sgd", "adamw")),
        ("extract, labels, moved", "labels", learn.but(hard=True, moved=True), None, None),
        *(("extract, labels, other net", "labels", learn.but(hard=True, net=n), None, None) for n in strange[:3]),
        *(("extract, probabilities", "probabilities", learn.but(optimiser=o), None, None) for o in ("adam", "sgd", "adamw")),
        *(("distilled across architectures", "probabilities", learn.but(net=n), None, None) for n in strange[:4]),
    ]  # fmt: skip
    return [
        Suspected(kind, f"{kind} {i}", had, script, own, derive_seed("thief", world.name, seed, i) % 2**31, before, after)
        for i, (kind, had, script, before, after) in enumerate(plans)
    ]


__all__ = ["Suspected", "World", "digest_of_state", "noisy", "pruned", "rounded", "strangers", "thieves"]
