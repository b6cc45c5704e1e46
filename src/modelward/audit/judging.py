"""Ask a suspect what a key asks, and judge what it answered."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from modelward.audit.committing import Committed, told_keys
from modelward.audit.doors import answered, named, refuse_convention
from modelward.audit.enrolment import ownership
from modelward.core.errors import InputError, UsageError
from modelward.core.guard import predict
from modelward.core.key import Key
from modelward.core.ownership import Observation
from modelward.core.suspect import Suspect
from modelward.core.verdict import Verdict
from modelward.io.endpoint import Asking
from modelward.io.sniff import kind_of
from modelward.models import Convention, load_model

SAME_LABEL = 0.95
ANSWERS_ONLY = {"csv", "text", "onnx"}


def judge(
    suspect: Path | str, key: Key, arch: str | None = None, *, asking: Asking | None = None, convention: Convention | None = None,
    committed: Committed | None = None,
) -> Verdict:  # fmt: skip
    """Return the verdict on a suspect.

    Parameters
    ----------
    suspect
        a file: safetensors weights, ONNX, or ``answers.csv`` for the probe folder; as text, the address of a service, or a function as
        ``package.module:function``.
    arch
        of weights: the architecture.
    convention
        of weights and ONNX: what the net expects of its images where that is not RGB in [0, 1].
    asking
        how a service is asked.
    committed
        what says that the key is older than the dispute.
    """
    return weigh(observe(suspect, key, arch, asking=asking, convention=convention), key, committed)


def weigh(observed: Observation, key: Key, committed: Committed | None = None, *, shown: bool = True) -> Verdict:
    """Return the verdict on answers; what a commitment to the key is worth stands among its caveats.

    ``shown``: whether whoever decides was shown the claimant's model; the holder of a key has it.
    """
    commitment, notes = committed.worth() if committed is not None else (None, ())
    verdict = ownership(key.method, {}).judge(observed, key, commitment=commitment, shown=shown)
    if committed is None:
        return verdict
    first = (told_keys(committed),) if committed.count > 1 else ()
    return replace(verdict, headlines=(*first, *verdict.headlines), caveats=(*verdict.caveats, *notes))


def observe(
    suspect: Path | str, key: Key, arch: str | None = None, *, asking: Asking | None = None, convention: Convention | None = None
) -> Observation:
    """Return what a suspect answers to a key; as `judge`, without the verdict."""
    return ownership(key.method, {}).observe(suspect_behind(suspect, key, arch, asking=asking, convention=convention), key)


def suspect_behind(
    suspect: Path | str, key: Key, arch: str | None = None, *, asking: Asking | None = None, convention: Convention | None = None
) -> Suspect:
    """Return the suspect that a file, an address or a name stands for; one that only answers has answered the key's probes then.

    Raises
    ------
    UsageError
        when only answers are to be had, and the key is read from weights; for a key that a user was issued without a model.
    InputError
        when the suspect takes other images than the key's.
    """
    if key.facts.get("bare"):
        raise UsageError("this key holds a user's secret and no mark of a model: issue it with --copies or --model to have one to look for")
    probes = asked_images(key)
    if probes is None:
        if isinstance(suspect, str) or kind_of(suspect) in ANSWERS_ONLY:
            message = f"a {key.method} key is read from the suspect's weights: pass its safetensors file, not {Path(suspect).name}"
            raise UsageError(message)
        loaded = load_model(suspect, arch, convention=convention)
        return Suspect.of_model(loaded.model, name=suspect.name)
    if isinstance(suspect, str):
        refuse_convention(convention, "a service or a function")
        return named(suspect, probes, key, asking)
    return answered(suspect, probes, key, convention) or _weights(suspect, probes, key, arch, convention)


def asked_images(key: Key) -> Tensor | None:
    """Return the images that a suspect is asked, uint8 (n, C, H, W), or ``None`` for a key that is read from weights alone."""
    return ownership(key.method, {}).probes(key) if "probes" in key.tensors else None


def _weights(path: Path, probes: Tensor, key: Key, arch: str | None, convention: Convention | None) -> Suspect:
    """Return the suspect that a file of weights stands for."""
    channels, height, width = probes.shape[1:]
    loaded = load_model(path, arch, size=(height, width), like=(channels, height, width), convention=convention)
    if loaded.model.channels != channels:
        message = f"{path.name} takes {loaded.model.channels} channels, the key's probes have {channels}: it was made for other images"
        raise InputError(message)
    given = Suspect.of_model(loaded.model, name=path.name)
    given.notes = _same_label(loaded.model, probes, key)
    return given


def _same_label(model: nn.Module, probes: Tensor, key: Key) -> tuple[str, ...]:
    """Return what is odd about weights that give nearly every probe of many classes one label: read in a wrong convention, a copy would too."""
    labels = key.tensors.get("labels")
    mixed = labels is not None and labels.numel() == len(probes) and _largest(labels.flatten()) <= 0.5
    share = _largest(predict(model, probes).argmax(1))
    if share <= SAME_LABEL or not mixed:
        return ()
    told = (
        f"The suspect gives {share:.0%} of the probes the same label: it may expect other images than RGB in [0, 1]; then this verdict says "
        "nothing, ask again with --range, --channels, --mean and --std."
    )
    return (told,)


def _largest(labels: Tensor) -> float:
    """Return the share of the most frequent label."""
    return float(labels.unique(return_counts=True)[1].max()) / len(labels)
