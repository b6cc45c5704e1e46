"""Work of the recipe `sample-lock`: what triggers look like, whose names they carry, and what thieves with stolen pairs make of them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from modelward.core.guard import predict
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.evaluation.cell import Job, Outcome
from modelward.evaluation.parcels import get_images, get_key, get_model
from modelward.evaluation.rows import Row, rate
from modelward.evaluation.work_triggers import by_hand, drawn, learnt
from modelward.imaging.codecs import roundtrip
from modelward.imaging.quality import psnr
from modelward.imaging.quantise import to_float
from modelward.locks.sample_lock import SampleLock
from modelward.locks.trigger_keys import codes_in, readers_in

USERS = ("ann", "bob", "eve", "joe")
QUALITIES = (90, 75, 50)
PASSES = 200


def pairs(job: Job) -> Outcome:
    """Try to open a lock with stolen pairs of images, and look at its triggers.

    Settings: ``fields``, ``pairs``, ``epochs``. Inputs: ``locked`` and ``other`` (artefacts of lock cells: the latter's secret is another),
    ``attacker``, ``test``.
    """
    torch.set_num_threads(job.threads)
    lock, key, other = (
        SampleLock.configured(dict(job.settings["fields"])),
        *(get_key(job.store, job.inputs[n]) for n in ("locked", "other")),
    )
    model, test = get_model(job.store, job.inputs["locked"]), get_images(job.store, job.inputs["test"])
    stolen = get_images(job.store, job.inputs["attacker"]).few(int(job.settings["pairs"]))
    rows = [
        *by_hand(lock, model, key, other, stolen, test, job),
        *learnt(lock, model, key, stolen, test, job),
        *_looks(lock, model, key, test),
        *_names(lock, key, test),
    ]
    told = {"method": lock.card.name, "variant": lock.variant, "seed": job.seed, "data": test.name}
    return Outcome([{**row.as_json(), **told} for row in rows])


def _looks(lock: SampleLock, model: nn.Module, key: Key, test: ImageSet) -> Iterator[Row]:
    """Yield how triggers differ between images, how much they change, and whether the network cares what else is in a batch."""
    sent = lock.authorise(test.pixels, key)
    x, made = test.batch(slice(None)), to_float(sent)
    residual = made - x
    spread = float(residual.std(0).mean() / residual.abs().mean().clamp_min(1e-6))
    yield Row(metric="specificity", value=spread, n=len(test), unit="ratio")
    yield Row(metric="psnr", value=float(psnr(x, made).clamp(max=100).mean()), n=len(test), unit="dB")
    few = min(PASSES, len(test))
    alone = torch.cat([predict(model, sent[i : i + 1]) for i in range(few)]).argmax(1)
    mixed = predict(model, torch.cat([sent[:few], test.pixels[:few]])).argmax(1)
    yield rate("authorised_alone", int((alone == test.labels[:few]).sum()), few)
    yield rate("authorised_mixed", int((mixed[:few] == test.labels[:few]).sum()), few)
    lone = torch.cat([predict(model, test.pixels[i : i + 1]) for i in range(few)]).argmax(1)
    yield rate("unauthorised_alone", int((lone == test.labels[:few]).sum()), few)


def _names(lock: SampleLock, key: Key, test: ImageSet) -> Iterator[Row]:
    """Yield how often one image is traced to its user, after PNG and JPEG, how often an image without a trigger is traced to anybody."""
    if not lock.identity_bits:
        return
    codes, (hinting, _), net = codes_in(key), readers_in(key), lock.generator_of(key)
    few = test.few(PASSES)
    kinds = [("png", 100), *(("jpeg", quality) for quality in QUALITIES)]
    right, wrong = dict.fromkeys(kinds, 0), dict.fromkeys(kinds, 0)
    for user in USERS:
        with torch.no_grad():
            net.tell(hinting(codes.word(user)[None]))
        made = drawn(net, few)
        for kind in kinds:
            words = (lock.read(roundtrip(made, *kind), key) > 0).to(torch.uint8)
            named = codes.names(words, USERS)
            right[kind] += sum(name == user for name in named)
            wrong[kind] += sum(name not in {user, None} for name in named)
    n = len(few) * len(USERS)
    for kind in kinds:
        label = kind[0] if kind[0] == "png" else f"{kind[0]} {kind[1]}"
        yield rate("identified", right[kind], n, attack=label, extra={"somebody_else": wrong[kind]})
    plain = (lock.read(few.pixels, key) > 0).to(torch.uint8)
    yield rate("named_without_trigger", sum(name is not None for name in codes.names(plain, USERS)), len(few))
