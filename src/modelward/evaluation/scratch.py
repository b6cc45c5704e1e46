"""Training from scratch beside an attempt on a lock: the same images with their labels, and as long where the attempt trains."""

from __future__ import annotations

from typing import Any

from modelward.attacks.theft.finetune import FTAL
from modelward.core.catalogue import find
from modelward.core.method import Method
from modelward.core.view import Labels
from modelward.evaluation.cell import Finished
from modelward.evaluation.farm import TheftSpec

EPOCHS, BATCH = 10, 16
BUDGET = ("images", "optimizer", "lr", "epochs", "batch")
# beside who searches or tabulates instead of training: as much of it as a thief with few images is given
TRAINED: dict[str, Any] = {"optimizer": "adam", "lr": 0.001, "epochs": EPOCHS, "batch": BATCH}


def scratch_spec(spec: TheftSpec) -> TheftSpec | None:
    """Return training from scratch at the budget of ``spec``, with the steps that follow it; ``None`` for an attempt without labelled images.

    Examples
    --------
    >>> scratch_spec(TheftSpec("ftal", "fine-tuning", {"images": 30})).fields, scratch_spec(TheftSpec("prune", "pruning"))
    ({'images': 30}, None)
    >>> scratch_spec(TheftSpec("fine-prune", "fine-pruning", {"ratio": 0.9, "images": 30})).fields
    {'images': 30}
    >>> scratch_spec(TheftSpec("label-remap", "answers renamed")).fields["images"]
    40
    >>> scratch_spec(TheftSpec("layer-ridge", "features read", {"cut": 2})).fields
    {'cut': 2, 'untrained': True}
    >>> scratch_spec(TheftSpec("combined", "two steps", {"steps": [["ftal", {"images": 30}], ["distil", {}]]})).fields
    {'steps': [['scratch', {'images': 30}], ['distil', {}]]}
    """
    if spec.method == "combined":
        (_, budget), *rest = spec.fields["steps"]
        return TheftSpec("combined", "from scratch", {"steps": [["scratch", budget], *rest]})
    method = _labelled(spec)
    if method is None:
        return None
    if spec.method == "layer-ridge":  # what the same regression makes of random weights
        return TheftSpec("layer-ridge", "from scratch", {**spec.fields, "untrained": True})
    if not isinstance(method, FTAL):
        return TheftSpec("scratch", "from scratch", {"images": images_of(spec), **TRAINED})
    own = {name: value for name, value in spec.fields.items() if name in BUDGET}
    plain = FTAL()
    rest = {name: found for name in BUDGET if name not in own and (found := getattr(method, name)) != getattr(plain, name)}
    return TheftSpec("scratch", "from scratch", {**own, **rest})


def images_of(spec: TheftSpec) -> int | None:
    """Return how many images an attempt was given; ``None`` where its settings do not say.

    >>> images_of(TheftSpec("undo-gradient", "undo")), images_of(TheftSpec("prune", "pruning", {}, "none"))
    (400, None)
    """
    if spec.method == "combined":
        first = spec.fields["steps"][0]
        return None if isinstance(first, str) else first[1].get("images")
    said = spec.fields.get("images")
    return said if said is not None else getattr(_labelled(spec), "images", None) or None


def _labelled(spec: TheftSpec) -> Method | None:
    """Return the method of an attempt that learns from labelled images; ``None`` for any other."""
    method = find(spec.method).configured(dict(spec.fields))
    learns = Labels.TRUE in getattr(method, "labels", ()) and getattr(method, "how", "remap") == "remap"
    return method if spec.labels == "true" and learns and hasattr(method, "images") else None


def facts_of(spec: TheftSpec, reference: Finished | None) -> dict[str, Any]:
    """Return what is told of an attempt whatever became of it: its settings, and what training from scratch reached at its budget."""
    return {"group": spec.group, "fields": dict(spec.fields), "images": images_of(spec), **beside(reference)}


def beside(reference: Finished | None) -> dict[str, Any]:
    """Return what training from scratch reached, with its interval."""
    alone = reference.rows[0] if reference else None
    return {"from_scratch": alone["value"] if alone else None, "from_scratch_ci": [alone["ci_low"], alone["ci_high"]] if alone else None}
