"""Forgers of the activeguard recipe: who comes in by what, past windows alone and past the whole gate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from modelward.attacks.evasion import FGSM, PGD, CarliniWagner
from modelward.core.errors import ModelwardError
from modelward.core.guard import predict
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.rng import derive_seed, generator
from modelward.evaluation.rows import Row, rate
from modelward.imaging.abstract import abstract_images
from modelward.imaging.codecs import roundtrip
from modelward.imaging.quantise import to_uint8
from modelward.locks.activeguard import ActiveGuard
from modelward.locks.gate import Gate, Roster, forgeries
from modelward.locks.probing import Crafting
from modelward.locks.windows import SPAN, assign, null_answers, place

WIDTHS, COUNTS = (0.05, 0.02, 0.01), (1, 4)


@dataclass(frozen=True, eq=False)
class Guarded:
    """A network, what was made of it, and the users who were let in."""

    method: ActiveGuard
    victim: nn.Module
    locked: nn.Module
    key: Key
    net: nn.Module
    credentials: dict[str, Key]
    user_secrets: dict[str, bytes]

    @property
    def pixels(self) -> Tensor:
        """All probes as they come back from PNG files, uint8 (U * m, C, H, W)."""
        return roundtrip(torch.cat([key.tensor("probes") for key in self.credentials.values()]), "png")

    @property
    def roster(self) -> Roster:
        """All users' windows."""
        return Roster.of(self.credentials)

    def answers(self, net: nn.Module) -> Tensor:
        """Return the logits (U, m, K) that a network gives the probes."""
        return predict(net, self.pixels).view(len(self.credentials), self.method.count, -1)


def forging_rows(made: Guarded, pools: Mapping[str, Tensor], owner: ImageSet, *, tries: int, seed: int) -> list[Row]:
    """Return how often strangers' images come in: past the windows, for each width and number of probes, and past the whole gate.

    Parameters
    ----------
    pools
        uint8 images (N, C, H, W) by what they are.
    owner
        images that windows of other widths are placed by.
    tries
        credentials put together of each kind.
    """
    common = {"tries": tries, "seed": seed}
    if made.method.variant == "paper":  # which has no gate but the windows
        return list(_forged(made, pools, **common))
    return [*_forged(made, pools, **common), *_widths(made, owner, pools, **common), *_full_gate(made, pools, **common)]


def strangers(made: Guarded, attacker: ImageSet, test: ImageSet, *, seed: int) -> Iterator[tuple[str, Tensor]]:
    """Yield uint8 images (N, C, H, W) that are nobody's credential: of people without the model, and of one who has it and lacks the windows."""
    rng = generator(derive_seed("strangers", seed))
    shape, net = attacker.shape, made.net
    noise = torch.randint(0, 256, (1000, *shape), generator=rng, dtype=torch.uint8)
    yield "clean", test.pixels
    yield "uniform noise", noise
    yield "blobs", abstract_images(1000, shape, rng=rng)
    probes = made.pixels.repeat(-(-1000 // len(made.pixels)), 1, 1, 1)
    change = torch.randint(-8, 9, probes.shape, generator=rng)
    yield "other users' images, mixed, +-8", (probes.int() + change).clamp(0, 255).to(torch.uint8)
    part = attacker.few(500)
    x = part.batch(slice(None))
    for name, attacks in (("fgsm", [FGSM(eps=eps) for eps in (0.05, 0.2)]), ("pgd", [PGD(eps=eps, steps=20) for eps in (0.05, 0.2)])):
        yield name, torch.cat([to_uint8(attack.perturb(net, x, part.labels, rng=rng)) for attack in attacks])
    near = [CarliniWagner(steps=100, search_steps=4, rate=0.02, first=1.0, confidence=confidence) for confidence in (0.5, 2.0)]
    yield "c&w", torch.cat([to_uint8(attack.perturb(net, x[:100], part.labels[:100], rng=rng)) for attack in near])
    yield "crafted at random confidences", _guessed(net, part, rng)


def _guessed(net: nn.Module, part: ImageSet, rng: torch.Generator, count: int = 300) -> Tensor:
    """Return images crafted by the scheme itself, at classes and confidences that a forger guesses."""
    labels = torch.randint(0, len(part.classes), (count, 1), generator=rng).double()
    low = SPAN[0] + (SPAN[1] - SPAN[0] - 0.02) * torch.rand((count, 1), generator=rng, dtype=torch.float64)
    windows = torch.cat([labels, low.logit(), (low + 0.02).logit()], 1)
    return Crafting(steps=100, turns=1).craft(net, part.pixels, windows, rng=rng).pixels


def _forged(made: Guarded, pools: Mapping[str, Tensor], tries: int, seed: int) -> Iterator[Row]:
    """Yield how often images put together at random come in as anybody, by the network's word alone."""
    roster, m = made.roster, made.method.count
    for name, pixels in pools.items():
        drawn = forgeries(predict(made.net, pixels), m, tries, rng=generator(derive_seed("forged", seed, name)))
        yield rate("accepted", int(roster.fits(drawn).any(1).sum()), tries, attack=name, budget=f"m {m}", extra={"images": len(pixels)})
    for levels in (1, 4):
        change = torch.randint(-levels, levels + 1, made.pixels.shape, generator=generator(derive_seed("replay", seed, levels)))
        bent = (made.pixels.int() + change).clamp(0, 255).to(torch.uint8)
        fits = roster.fits(predict(made.net, bent).view(len(roster.users), m, -1)).any(1)
        yield rate("replayed", int(fits.sum()), len(fits), attack=f"a user's whole set, +-{levels}", budget=f"m {m}")


def _widths(made: Guarded, owner: ImageSet, pools: Mapping[str, Tensor], tries: int, seed: int) -> Iterator[Row]:
    """Yield how often strangers come in by windows alone, for each width and number of probes."""
    method, rng = made.method, generator(derive_seed("widths", seed))
    nulls = null_answers(made.net, owner, count=method.nulls, eps=method.eps, rng=rng)
    answers = {name: predict(made.net, pixels) for name, pixels in pools.items()}
    for width in WIDTHS:
        for m in COUNTS:
            grid = place(nulls, width=width, guard=method.guard * width, keep=method.users * (1 if m == 1 else 2))
            windows: list[Tensor] = []
            users = min(len(made.credentials), len(grid) if m == 1 else len(made.credentials))
            for number in range(users):
                windows.append(assign(b"widths of windows", str(number), grid, m, windows))
            roster = Roster(tuple(map(str, range(users))), torch.stack(windows))
            for name, logits in answers.items():
                hit = roster.fits(forgeries(logits, m, tries, rng=rng)).any(1)
                yield rate("window_only", int(hit.sum()), tries, attack=name, budget=f"width {width}, m {m}", extra={"users": users})


def _full_gate(made: Guarded, pools: Mapping[str, Tensor], tries: int, seed: int) -> Iterator[Row]:
    """Return how often the whole gate lets in a forger who knows network, windows, names and even probes, and lacks the users' secrets."""
    rng, users, kinds = generator(derive_seed("gate", seed)), list(made.credentials), [*pools, "the user's own probes"]
    gate = Gate(made.net, made.key.model_digest, made.user_secrets.__getitem__)
    yield rate("gate_admits", sum(_comes_in(gate, key) for key in made.credentials.values()), len(users), attack="the users themselves")
    each, total = -(-tries // len(kinds)), 0
    for kind in kinds:
        inside = 0
        for _ in range(each):
            user, thief = (users[int(torch.randint(0, len(users), (1,), generator=rng))] for _ in range(2))
            target = made.credentials[user]
            pixels = target.tensor("probes")
            if kind in pools:
                pixels = pools[kind][torch.randint(0, len(pools[kind]), (len(pixels),), generator=rng)]
            mac = torch.randint(0, 256, (32,), generator=rng, dtype=torch.uint8)
            forged = {"probes": pixels, "mac": mac, "tag": made.credentials[thief].tensor("tag")}
            inside += _comes_in(gate, replace(target, tensors=forged))
        total += inside
        yield rate("full_gate", inside, each, attack=kind)
    yield rate("full_gate", total, each * len(kinds), attack="all")


def _comes_in(gate: Gate, credential: Key) -> bool:
    """Return whether a gate lets a credential in."""
    try:
        gate.authenticate(credential)
    except ModelwardError:
        return False
    return True
