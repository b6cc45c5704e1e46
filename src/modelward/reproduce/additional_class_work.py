"""Work of the additional-class recipe: mark one model with one configuration, then ask it everything the table needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from modelward.attacks.theft.detecting import Detecting
from modelward.core.catalogue import find
from modelward.core.families import TheftMethod
from modelward.core.guard import predict
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.rng import derive_seed, generator
from modelward.core.view import AttackerView
from modelward.evaluation.cell import Job, Outcome
from modelward.evaluation.parcels import get_images, get_model, pack_model
from modelward.evaluation.rows import Row, from_interval, rate
from modelward.imaging.codecs import roundtrip
from modelward.marking.decoys import family, noise, resized
from modelward.marking.payload import Payload
from modelward.models.assembly import Assembly
from modelward.ownership.additional_class import AdditionalClass
from modelward.ownership.issuing import carrier_of
from modelward.ownership.mark import MarkMethod
from modelward.statistics import auc_delong
from modelward.training import accuracy

Rows = list[Row]


def _method(job: Job) -> MarkMethod:
    """Return the method of a cell."""
    return cast("MarkMethod", find(job.settings["method"]).configured(dict(job.settings["fields"])))


def _secret(job: Job) -> bytes:
    """Return a secret of this cell's own."""
    return derive_seed("secret", job.seed).to_bytes(8) * 4


def publish(job: Job) -> Outcome:
    """Mark a model that is nobody's suspect: settings ``method``, ``fields``; inputs ``victim``, ``owner``. Returns the model."""
    torch.set_num_threads(job.threads)
    model = get_model(job.store, job.inputs["victim"])
    made, _ = _method(job).protect(model, get_images(job.store, job.inputs["owner"]), secret=_secret(job), rng=generator(job.seed))
    packed = pack_model(made)
    return Outcome([], packed.arrays, packed.facts)


def measure(job: Job) -> Outcome:
    """Mark a model and measure the mark.

    Settings: ``method``, ``fields``, ``attacks`` (method, settings, labels), ``users``, ``images`` of each kind in the specificity table.
    Inputs: ``victim``, ``owner``, ``attacker``, ``test``, ``null/I``, ``stranger/I`` (models that another owner marked),
    ``elsewhere`` (images of another task).
    """
    torch.set_num_threads(job.threads)
    method, settings = _method(job), job.settings
    owner, thief, test = (get_images(job.store, job.inputs[part]) for part in ("owner", "attacker", "test"))
    victim = get_model(job.store, job.inputs["victim"])
    nulls, strangers = (
        [get_model(job.store, job.inputs[n]) for n in sorted(job.inputs) if n.startswith(p)] for p in ("null/", "stranger/")
    )
    model, key = method.protect(victim, owner, secret=_secret(job), nulls=nulls, rng=generator(job.seed))
    common = {"method": method.card.name, "variant": method.variant, "seed": job.seed, "data": test.name}
    rows = _marked(method, victim, model, key, test, common)
    if isinstance(method, AdditionalClass):
        elsewhere = get_images(job.store, job.inputs["elsewhere"]) if "elsewhere" in job.inputs else None
        rows += _specificity(method, model, key, test, elsewhere, int(settings["images"]), common)
        rows += _users(method, model, key, int(settings["users"]), common) if settings["users"] else []
        rows += _claims(method, model, key, owner, nulls, strangers, common)
    for name, fields, labels in settings["attacks"]:
        rows += _attacked(method, model, key, thief, test, (name, dict(fields), labels), common)
    return Outcome([row.as_json() for row in rows])


def _keys(key: Key) -> tuple[Tensor, Tensor]:
    """Return the key images, as they come back from PNG files, and their labels."""
    labels = key.tensor("labels")
    return roundtrip(key.tensor("probes")[: len(labels)], "png"), labels


def _hits(model: nn.Module, key: Key) -> tuple[int, int]:
    """Return how many key images a model answers with their label, and of how many."""
    keys, labels = _keys(key)
    return int((predict(model, keys).argmax(1) == labels).sum()), len(labels)


def _marked(method: MarkMethod, victim: nn.Module, model: nn.Module, key: Key, test: ImageSet, common: Mapping[str, Any]) -> Rows:
    """Return hits, accuracy before and after, and how often ordinary images are answered as key images are."""
    right = round(accuracy(model, test) * len(test))
    verdict = method.verify(model, key)
    target = int(key.tensor("labels")[0])
    extra = {"before": accuracy(victim, test), "p": verdict.p_value, "threshold": verdict.threshold, "matches": verdict.matches}
    rows = [
        rate("hits", *_hits(model, key), attack="none", **common),
        rate("accuracy", right, len(test), attack="none", **common, extra=extra),
    ]
    if isinstance(method, AdditionalClass):
        taken = int((predict(model, test.pixels).argmax(1) == target).sum())
        rows.append(rate("class_on_test", taken, len(test), attack="none", **common))
    return rows


def _specificity(
    method: AdditionalClass, model: nn.Module, key: Key, test: ImageSet, elsewhere: ImageSet | None, count: int, common: Mapping[str, Any]
) -> Rows:
    """Return how often the class is answered to images that are no key images of this key."""
    keys, labels = _keys(key)
    shape, rng = test.shape, generator(derive_seed("specificity", common["seed"]))
    carrier = carrier_of(key, method.payload, method.codec)
    other = Payload(bytes(32), shape, method.payload, method.codec)
    noisy = (keys.float() + 16 * torch.randn(keys.shape, generator=rng)).round().clamp(0, 255).to(torch.uint8)
    shown = {
        "random noise": noise(count, shape, rng=rng),
        "other-seed keys": family(method.source, count, shape, rng=rng),
        **({"natural images of another task": resized(elsewhere.pixels[:count], shape)} if elsewhere is not None else {}),
        "letters and digits": family("unrelated", count, shape, rng=rng),
        "key images rotated": keys.rot90(1, (2, 3)),
        "key images under noise of 16 grey levels": noisy,
        "key images without payload": keys & 254,
        "key images with another payload": other.write(keys, ["somebody"] * len(keys), range(len(keys))),
        "test images with a payload": carrier.write(test.pixels[:count], ["owner"] * min(count, len(test)), range(min(count, len(test)))),
    }
    return [
        rate("class_answered", int((predict(model, x).argmax(1) == labels[0]).sum()), len(x), attack=kind, **common)
        for kind, x in shown.items()
    ]


def _users(method: AdditionalClass, model: nn.Module, key: Key, count: int, common: Mapping[str, Any]) -> Rows:
    """Return how many of ``count`` users are read and admitted, and how many come to bear another's name."""
    names = [f"user-{number:03d}" for number in range(count)]
    issued = roundtrip(method.issue(key, names), "png")
    found = [method.read(image, key, users=names).user for image in issued]
    admitted = [method.authenticate(model, image, key, users=names) for image in issued]
    wrong = sum(user not in {None, name} for user, name in zip(found, names, strict=True))
    bent = issued.clone()
    bent[:, 0, 0, 0] ^= 2  # the MAC covers the upper seven bits
    mangled = [method.read(image, key, users=names).user for image in bent]
    jpeg = [method.read(image, key, users=names).user for image in roundtrip(issued, "jpeg", 75)]
    told = [
        ("users_read", found),
        ("users_admitted", admitted),
        ("users_read_after_a_bent_pixel", mangled),
        ("users_read_after_jpeg_75", jpeg),
    ]
    rows = [rate(m, sum(a == b for a, b in zip(who, names, strict=True)), count, attack="users", **common) for m, who in told]
    robust = Payload(_hidden(key), method._carrier(key).shape, "bits", "qim")  # noqa: SLF001
    sent = roundtrip(robust.write(issued, names, range(count)), "jpeg", 75)
    read = [reading.user for reading in robust.read(sent, names)]
    rows.append(
        rate("users_read_after_jpeg_75_qim", sum(a == b for a, b in zip(read, names, strict=True)), count, attack="users", **common)
    )
    return [*rows, rate("misattributed", wrong, count, attack="users", **common)]


def _hidden(key: Key) -> bytes:
    """Return the secret behind the payloads."""
    return key.tensor("secret").to(torch.uint8).numpy().tobytes()


def _claims(
    method: AdditionalClass, model: nn.Module, key: Key, owner: ImageSet, nulls: Sequence[nn.Module], strangers: Sequence[nn.Module],
    common: Mapping[str, Any],
) -> Rows:  # fmt: skip
    """Return what keys find that were never embedded, and what this key finds in models of other owners."""
    rng = generator(derive_seed("claims", common["seed"]))
    made = {
        "a key of another secret": method.claim(model, owner, secret=bytes(31) + b"1", nulls=nulls, rng=rng),
        "a forged key": method.forge(model, owner, secret=bytes(31) + b"2", nulls=nulls, rng=rng),
    }
    rows = [
        rate("claim_hits", *_hits(model, other), attack=name, **common, extra=_decided(method, model, other))
        for name, other in made.items()
    ]
    marked = [method.verify(net, key) for net in strangers]
    if marked:
        rows.append(
            rate("strangers_matched", sum(v.matches for v in marked), len(marked), attack="models that other owners marked", **common)
        )
    accused = [method.verify(net, key) for net in nulls]
    return [*rows, rate("nulls_matched", sum(v.matches for v in accused), len(accused), attack="null models", **common)]


def _decided(method: MarkMethod, model: nn.Module, key: Key) -> dict[str, Any]:
    """Return what a verdict without a commitment says."""
    verdict = method.verify(model, key)
    return {"matches": verdict.matches, "decision": verdict.decision.value, "statistic": verdict.statistic, "p": verdict.p_value}


def _attacked(
    method: MarkMethod, model: nn.Module, key: Key, thief: ImageSet, test: ImageSet, attack: tuple[str, dict[str, Any], str],
    common: Mapping[str, Any],
) -> Rows:  # fmt: skip
    """Return hits, accuracy and verdict after one theft; of a detector also how well it tells key images from test images."""
    name, fields, labels = attack
    stealing = cast("TheftMethod", find(name).configured(fields))
    stolen = stealing.steal(
        AttackerView.of_model(model, thief, labels=labels), rng=generator(derive_seed("attack", common["seed"], *attack))
    ).model
    observed = method.observe(stolen, key)
    verdict = method.judge(observed, key)
    extra: dict[str, Any] = {"accuracy": accuracy(stolen, test), "drop": accuracy(model, test) - accuracy(stolen, test), "p": verdict.p_value,
                             "statistic": verdict.statistic, "matches": verdict.matches}  # fmt: skip
    if isinstance(method, AdditionalClass):
        trace = method.trace(observed, key)
        extra |= {"trace": trace.distance, "trace_p": trace.p}
    budget = ", ".join(f"{field} {value}" for field, value in fields.items())
    rows = [rate("hits", *_hits(stolen, key), attack=name, budget=budget, **common, extra=extra)]
    if isinstance(stealing, Detecting) and isinstance(stolen, Assembly):
        with torch.no_grad():
            odd, usual = (stealing.score(stolen, x.float().div(255)).numpy() for x in (_keys(key)[0], test.pixels))
        found = from_interval("detector_auc", auc_delong(odd, usual), attack=name, budget=budget, unit="auc", **common)
        caught = int((odd > float(cast("Tensor", stolen.threshold))).sum())
        rows += [found, rate("keys_refused", caught, len(odd), attack=name, budget=budget, **common)]
    return rows
