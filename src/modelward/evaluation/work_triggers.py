"""Work: open a sample-specific lock without its generator, by triggers made by hand from stolen pairs and by generators of a thief's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modelward.core.guard import frozen, predict
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.rng import generator
from modelward.evaluation.cell import Job, Outcome
from modelward.evaluation.parcels import get_images, get_key, get_model
from modelward.evaluation.rows import Row, rate
from modelward.imaging.codecs import roundtrip
from modelward.imaging.quantise import straight_through_8bit, to_float, to_uint8
from modelward.locks.sample_lock import SampleLock
from modelward.locks.trigger_keys import codes_in, readers_in
from modelward.locks.trigger_kit import Kit
from modelward.models.unet import TriggerNet, fresh_trigger_net

STRENGTHS = (0.5, 1.0, 2.0, 4.0)


def triggers(job: Job) -> Outcome:
    """Try to open a lock with stolen pairs of images.

    Settings: ``fields``, ``pairs``, ``epochs``. Inputs: ``locked`` and ``other`` (artefacts of lock cells: the latter's secret is another),
    ``attacker``, ``test``.
    """
    torch.set_num_threads(job.threads)
    lock = SampleLock.configured(dict(job.settings["fields"]))
    key, other = (get_key(job.store, job.inputs[name]) for name in ("locked", "other"))
    model, test = get_model(job.store, job.inputs["locked"]), get_images(job.store, job.inputs["test"])
    stolen = get_images(job.store, job.inputs["attacker"]).few(int(job.settings["pairs"]))
    rows = [*by_hand(lock, model, key, other, stolen, test, job), *learnt(lock, model, key, stolen, test, job)]
    told = {"seed": job.seed, "data": test.name}
    return Outcome([{**row.as_json(), **told} for row in rows])


def _right(model: nn.Module, pixels: Tensor, test: ImageSet) -> int:
    """Return how many 8-bit images a network classifies rightly, after PNG."""
    return int((predict(model, roundtrip(pixels, "png")).argmax(1) == test.labels).sum())


def by_hand(lock: SampleLock, model: nn.Module, key: Key, other: Key, stolen: ImageSet, test: ImageSet, job: Job) -> Iterator[Row]:
    """Yield what triggers of other images, words and generators open."""
    residual = lock.authorise(stolen.pixels, key).float().sub(stolen.pixels.float()).div(255)
    x, rng = test.batch(slice(None)), generator(job.seed)

    def opened(attack: str, changed: Tensor, budget: str = "") -> Row:
        return rate("recovered", _right(model, to_uint8(changed.clamp(0, 1)), test), len(test), attack=attack, budget=budget)

    mean = residual.mean(0, keepdim=True)
    for strength in STRENGTHS:
        yield opened("mean trigger", x + strength * mean, f"strength {strength:g}")
    yield opened("swapped trigger", x + residual[torch.randint(0, len(residual), (len(x),), generator=rng)])
    yield opened("other generator", to_float(lock.authorise(test.pixels, other)))
    kit = Kit(lock.generator_of(key), *readers_in(key), codes_in(key).gate)
    with torch.no_grad():
        made = [kit.draw(part, kit.foreign(len(part), rng))[0] for part in x.split(256)]
    yield opened("foreign words", torch.cat(made))
    size = residual.square().mean().sqrt()
    yield opened("noise of equal norm", x + size * torch.randn(x.shape, generator=rng), f"sigma {float(size):.3f}")


def learnt(lock: SampleLock, model: nn.Module, key: Key, stolen: ImageSet, test: ImageSet, job: Job) -> Iterator[Row]:
    """Yield what a thief's own generator opens: learnt from stolen pairs, or from labels with the locked network at hand."""
    target = to_float(lock.authorise(stolen.pixels, key))
    for attack in ("surrogate generator", "generator from labels"):
        net = fresh_trigger_net(*_ground(stolen), width=lock.width, reach=lock.reach, rng=generator(job.seed))
        own = list(net.parameters())
        loose = net.loosen()  # the thief knows how locks are made, and not what their secret chose
        groups: list[dict[str, Any]] = [{"params": own}, {"params": loose, "lr": 0.03}]
        optimizer, rng = torch.optim.Adam(groups, lr=0.003), generator(job.seed)
        with frozen(model):
            for _ in range(int(job.settings["epochs"])):
                for chosen in torch.randperm(len(stolen), generator=rng).split(64):
                    made = net(stolen.batch(chosen))
                    if attack == "surrogate generator":
                        loss = F.mse_loss(made, target[chosen]) * 255
                    else:
                        loss = F.cross_entropy(model(straight_through_8bit(made)), stolen.labels[chosen])
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
        yield rate("recovered", _right(model, drawn(net, test), test), len(test), attack=attack, budget=f"{len(stolen)} images",
                   extra={"epochs": job.settings["epochs"]})  # fmt: skip


def _ground(images: ImageSet) -> tuple[int, tuple[int, int]]:
    """Return channels and size of images."""
    channels, height, width = images.shape
    return channels, (height, width)


def drawn(net: TriggerNet, images: ImageSet) -> Tensor:
    """Return what a generator makes of images, 8-bit."""
    with torch.no_grad():
        return torch.cat([to_uint8(net(images.batch(part))) for part in torch.arange(len(images)).split(256)])
