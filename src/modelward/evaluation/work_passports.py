"""Work: what the attacks of the DeepIPR paper reach against a model that passports protect: scales trained anew, and other passports made to fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modelward.core.catalogue import find
from modelward.core.errors import InputError, UsageError
from modelward.core.guard import predict
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.rng import derive_seed, generator
from modelward.evaluation.cell import Job, Outcome
from modelward.evaluation.parcels import get_images, get_model
from modelward.evaluation.rows import Row, rate
from modelward.keys.derive import derive
from modelward.marking.passports import Gate
from modelward.ownership.mark import Mark
from modelward.ownership.passport import Passport
from modelward.ownership.passport_forging import reversed_scales, solved
from modelward.ownership.passport_material import layout
from modelward.training import Recipe

FLIPPED = (0.0, 0.5, 1.0)  # shares of the owner's signs that the forger turns; the paper's default is half


def forge(job: Job) -> Outcome:
    """Protect, then forge with all the weights and a tenth of the data.

    Attack 2 trains nothing but the scales and shifts of the gates, a share of the owner's signs turned. Attack 3 makes other passports that give
    these scales: the paper searches for them by gradients, here they are solved for, which is exact and so at least as strong.

    Settings: ``fields`` of the passports, ``images`` and ``epochs`` of the forger. Inputs: ``victim``, ``owner``, ``attacker``, ``test``.

    Rows, one a share of turned signs: ``forged_scales`` and ``forged_passports``, the accuracy with them; ``extra`` has ``signs_of_the_owner``, the
    share of the owner's signs in them, ``likeness``, the cosine of the forged to the genuine passports, the paper's ``statistic``, and whether the
    ``hardened`` variant takes the key.
    """
    torch.set_num_threads(job.threads)
    method = find("passport").configured(dict(job.settings["fields"]))
    if not isinstance(method, Passport):
        raise UsageError("passport is another method here")
    owner, attacker, test = (get_images(job.store, job.inputs[part]) for part in ("owner", "attacker", "test"))
    secret = derive(derive_seed(job.seed, "secret").to_bytes(8, "big") * 4, "passports")
    model, key = method.protect(get_model(job.store, job.inputs["victim"]), owner, secret=secret, rng=generator(job.seed))
    mixed = torch.randperm(len(attacker), generator=generator(derive_seed(job.seed, "few")))  # a set may come in order of its classes
    few = attacker.take(mixed[: int(job.settings["images"])])
    recipe = Recipe(epochs=int(job.settings["epochs"]), batch=min(32, len(few)), lr=0.05)
    facts: dict[str, Any] = {"method": method.card.name, "variant": method.variant, "seed": job.seed, "data": test.name}
    published = rate("published", *_right(model, test), attack="none", **facts)
    unlocked = rate("unlocked", *_right(method.unlock(model, key), test), attack="none", **facts)
    rows = [published, unlocked]
    for share in FLIPPED:
        found = _forged(method, model, key, few, test, share, recipe, rng=generator(derive_seed(job.seed, "forger", share)))
        rows += [replace(row, attack=f"{share:.0%} of the signs turned", method=method.card.name, variant=method.variant) for row in found]
    return Outcome([row.as_json() for row in rows])


def _right(model: nn.Module, test: ImageSet) -> tuple[int, int]:
    """Return how many test images a model answers rightly, and of how many."""
    return int((predict(model, test.pixels).argmax(1) == test.labels).sum()), len(test)


def _forged(
    method: Passport, model: nn.Module, key: Key, few: ImageSet, test: ImageSet, share: float, recipe: Recipe, *, rng: torch.Generator
) -> list[Row]:
    """Return the rows of one share of turned signs."""
    gates, _ = layout(key.facts)
    bits = key.tensor("bits").clone()
    turned = torch.randperm(len(bits), generator=rng)[: round(share * len(bits))]
    bits[turned] = 1 - bits[turned]
    made = reversed_scales(model, gates, bits, few, recipe, rng=rng)
    paper = replace(method, variant="paper", kind="random", text="")
    mark = solved(made, paper._draw(made, few, secret=bytes(32), rng=rng))  # noqa: SLF001
    claim = Key(key.method, "paper", "", {**key.facts, **mark.facts, "settings": paper.settings()}, mark.tensors)
    agree = float((mark.tensors["bits"] == key.tensor("bits")).double().mean())
    verdict_statistic = paper._finding(paper.observe(made, claim), claim).statistic  # noqa: SLF001
    extra = {"signs_of_the_owner": agree, "statistic": verdict_statistic, "hardened": _taken(method, made, claim)}
    with_them = paper.unlock(model, claim)
    return [
        rate("forged_scales", *_right(made, test), extra={"signs_of_the_owner": agree}),
        rate("forged_passports", *_right(with_them, test), extra={**extra, "likeness": _likeness(method, model, key, mark, gates)}),
    ]


def _taken(method: Passport, model: nn.Module, claim: Key) -> bool:
    """Return whether the hardened variant reads a key that brings passports of its own."""
    hardened = replace(method, variant="hardened", kind="flat")
    try:
        hardened.observe(model, replace(claim, variant="hardened", facts={**claim.facts, "settings": hardened.settings()}))
    except InputError:
        return False
    return True


def _likeness(method: Passport, model: nn.Module, key: Key, mark: Mark, gates: list[Gate]) -> float:
    """Return the cosine of the mean patches of forged and genuine passports: all of a passport that a scale depends on."""
    paper = replace(method, variant="paper", kind="random", text="")
    pairs = [method._means(model, key.facts, key.tensors)[1], paper._means(model, mark.facts, mark.tensors)[1]]  # noqa: SLF001
    flat: list[Tensor] = [torch.cat([part.flatten() for pair in pairs[side] for part in pair]) for side in (0, 1)]
    return float(F.cosine_similarity(flat[0], flat[1], dim=0)) if gates else 0.0
