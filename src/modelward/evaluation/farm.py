"""The suspect farm: thieves of every kind with lineage and a utility gate, made once and verified by every method."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from modelward.attacks.theft.extract_cross import ExtractCross
from modelward.core.catalogue import find
from modelward.core.errors import InputError, UsageError
from modelward.core.families import TheftMethod
from modelward.core.rng import derive_seed, generator
from modelward.core.suspect import Access
from modelward.data import Study
from modelward.evaluation.budget import train_seconds
from modelward.evaluation.cell import Cell
from modelward.models.channels import folds, groups
from modelward.models.custom import modules_of
from modelward.models.nets import ARCHITECTURES, build, describe


@dataclass(frozen=True)
class TheftSpec:
    """One theft: the method with its settings, the thief's labels and architecture, the group it is reported in.

    ``coarse``: the thief's images carry the names of pairs of classes instead of classes, and so do the test images: another task.
    """

    method: str
    group: str
    fields: dict[str, Any] = field(default_factory=dict)
    labels: str = "true"
    arch: str | None = None
    index: int = 0
    coarse: bool = False


_GROUPS: tuple[tuple[str, str, dict[str, Any], str], ...] = (
    ("ftal", "FTAL", {}, "true"),
    ("ftll", "FTLL", {}, "true"),
    ("rtal", "RTAL", {}, "true"),
    ("extract-l", "extract-L", {}, "stolen"),
    ("extract-p", "extract-P", {}, "stolen"),
)
PRUNING = (0.1, 0.2, 0.3, 0.4, 0.5)
BITS = (8, 4)


def thefts(arch: str, copies: int, others: Sequence[str] = ()) -> list[TheftSpec]:
    """Return the thefts of the audit: ``copies`` of each trained kind, one of each pruning and quantisation level.

    Extractions take turns between the victim's architecture and ``others``.
    """
    made = [
        TheftSpec(
            name, group, dict(fields), labels, [arch, *others][index % (1 + len(others))] if name.startswith("extract") else None, index
        )
        for name, group, fields, labels in _GROUPS
        for index in range(copies)
    ]
    made += [TheftSpec("prune", "prune", {"sparsity": sparsity}, "none") for sparsity in PRUNING]
    return made + [TheftSpec("quantise", "quantise", {"bits": bits}, "none") for bits in BITS]


def theft_cell(
    spec: TheftSpec, victim: str | Cell, victim_arch: str, parts: dict[str, str], study: Study, *, seed: int, part: str = "attacker"
) -> Cell:
    """Return the cell of one theft; ``victim`` is the digest of a stored model or the cell that makes it."""
    method = _configured(spec)
    inner = [find(name) for name in method.inner]
    coarse = {"coarse": True} if spec.coarse else {}
    return Cell(
        work="modelward.evaluation.work_theft:steal",
        settings={
            "method": spec.method, "fields": spec.fields, "labels": spec.labels, "arch": spec.arch, "group": spec.group,
            "access": access_of(spec).value, **coarse,
        },
        inputs={"victim": victim, "images": parts[part], "test": parts["test"]},
        seed=derive_seed(seed, "theft", spec.method, spec.fields, spec.arch, spec.index, parts[part]),
        label=f"{spec.group} {' '.join(str(v) for v in spec.fields.values())}".strip() + f" #{spec.index}",
        seconds=train_seconds(spec.arch or victim_arch, len(getattr(study, part)), method.effort, study.test.shape),
        uses=(type(method).__module__, *sorted({one.__module__ for one in inner}), *modules_of(spec.arch or victim_arch)),
    )  # fmt: skip


def _configured(spec: TheftSpec) -> TheftMethod:
    """Return the method of a spec."""
    method = find(spec.method).configured(dict(spec.fields))
    if not isinstance(method, TheftMethod):
        message = f"{spec.method} is no theft"
        raise UsageError(message)
    return method


def access_of(spec: TheftSpec) -> Access:
    """Return the least access to the victim with which a theft, and every theft inside it, works."""
    order = list(Access)
    kinds = [find(name) for name in (spec.method, *_configured(spec).inner)]
    return min((kind.needs for kind in kinds if issubclass(kind, TheftMethod)), key=order.index)


Fields = dict[str, Any]

# method, group, labels, the one of profile "smoke", those of "standard", those of "full"; settings left out are the method's own
_BATTERY: tuple[tuple[str, str, str, Fields, list[Fields], list[Fields]], ...] = (
    ("ftll", "FTLL", "true", {"epochs": 1}, [{}], [{"lr": lr} for lr in (1e-3, 1e-2, 1e-1)]),
    ("ftal", "FTAL", "true", {"epochs": 1}, [{}], [{"lr": lr, "epochs": n} for lr in (1e-3, 1e-2, 5e-2) for n in (1, 5, 20)]),
    ("rtll", "RTLL", "stolen", {"epochs": 2}, [{}], [{"lr": lr} for lr in (1e-2, 1e-1)]),
    ("rtal", "RTAL", "stolen", {"epochs": 1}, [{}], [{"lr": lr} for lr in (1e-2, 5e-2)]),
    ("bn-recalibrate", "BN recalibration", "none", {}, [{}], [{"images": n} for n in (100, 400)]),
    ("prune", "prune", "none", {"sparsity": 0.5}, [{"sparsity": s} for s in (0.3, 0.5, 0.7)],
     [{"sparsity": s / 10, "scope": scope} for scope in ("layer", "global") for s in range(1, 10)]),
    ("prune-ft", "prune + fine-tune", "true", {"sparsity": 0.5}, [{"sparsity": s} for s in (0.5, 0.8)], [{"sparsity": s / 10} for s in range(1, 10)]),
    ("fine-prune", "fine-pruning", "true", {"epochs": 1}, [{"ratio": r} for r in (0.5, 0.8)],
     [*({"ratio": r} for r in (0.2, 0.4, 0.6, 0.8, 0.95)), {"ratio": 0.96, "epochs": 10}]),
    ("gan-removal", "GAN removal", "true", {"steps": 30, "clean": 60, "epochs": 1, "rounds": 1}, [{}],
     [*({"clean": n, "restarts": 2} for n in (100, 200, 500)), {"realism": 0.0}, {"kind": "residual"}]),
    ("neural-cleanse", "neural cleanse", "true", {"steps": 30, "clean": 60, "epochs": 1}, [{}, {"mode": "prune"}],
     [{}, {"mode": "prune"}, {"mode": "prune", "ratio": 0.5}, {"epochs": 20, "stamped": 0.5}]),
    ("laundering", "laundering", "true", {"steps": 30, "clean": 60, "epochs": 1}, [{}], [{"linear": l, "conv": c} for l, c in ((0.2, 0.5), (0.3, 1.0))]),
    ("quantise", "quantise", "none", {"bits": 5}, [{"bits": b} for b in (8, 6, 5, 4)], [{"bits": b} for b in (8, 6, 5, 4, 3)]),
    ("weight-shift", "weight shifting", "true", {"epochs": 1}, [{}], [{"shift": s, "epochs": n} for s in (1.5, 2.5) for n in (3, 10)]),
    ("ft-regularise", "regularisation", "true", {"phase": 1, "epochs": 1}, [{}],
     [{}, {"decay": 0.1, "phase": 5, "epochs": 20}, {"decay": 0.25, "phase": 3, "epochs": 20}]),
    ("ft-smooth-labels", "label smoothing", "stolen", {"epochs": 1}, [{}], [{"smoothing": s} for s in (0.1, 0.3, 0.5)]),
    ("ft-adversarial", "adversarial training", "true", {"epochs": 1, "steps": 2}, [{"eps": 0.1}], [{"eps": e} for e in (0.01, 0.1, 0.25)]),
    ("overwrite", "overwriting", "stolen", {"method": "zhang", "fields": {"epochs": 1}}, [{}], [{"method": name} for name in ("uchida", "deepmarks", "zhang")]),
    ("permute", "permutation", "none", {}, [{}], [{}]),
    ("rescale", "rescaling", "none", {}, [{}], [{"octaves": n} for n in (1, 2, 4)]),
    ("weight-noise", "weight noise", "none", {}, [{"sigma": s} for s in (0.03, 0.1)], [{"sigma": s} for s in (0.01, 0.03, 0.1, 0.2, 0.3)]),
    ("cast", "format", "none", {}, [{"dtype": t} for t in ("float16", "bfloat16")], [{"dtype": t} for t in ("float16", "bfloat16")]),
    ("fold-bn", "format", "none", {}, [{}], [{}]),
    ("extract-l", "extract-L", "stolen", {"epochs": 2}, [{}], [{}, {"epochs": 60}]),
    ("extract-p", "extract-P", "stolen", {"epochs": 2}, [{}], [{}, {"epochs": 60}]),
    ("extract-adv", "extract-Adv", "stolen", {"epochs": 1, "steps": 2}, [{}], [{"eps": e / 255} for e in (2, 8)]),
    ("extract-cross", "extract cross", "stolen", {"epochs": 1}, [{}], [{}, {"other": "mlp"}]),
    ("extract-smooth", "smooth retraining", "stolen", {"epochs": 2, "copies": 3}, [{}], [{"noise": s} for s in (0.05, 0.1)]),
    ("distil", "distillation", "stolen", {"epochs": 2}, [{}], [{"temperature": t} for t in (3.0, 10.0)]),
    ("knockoff", "knock-off", "stolen", {"epochs": 1, "abstract": 500}, [{"abstract": 3000, "epochs": 10}], [{}, {"abstract": 10000, "epochs": 15}]),
    ("transfer", "transfer", "true", {"epochs": 1}, [{}], [{}, {"only_head": True}]),
    ("ensemble", "ensemble", "stolen", {"fields": {"epochs": 1}}, [{}], [{}, {"member": "ftal"}, {"vote": "soft"}]),
    ("combined", "combined", "stolen", {"steps": [["weight-shift", {"epochs": 1}], ["wrap-blur", {}]]}, [{}],
     [{}, {"steps": ["weight-shift", "ftal", "wrap-blur"]}, {"steps": [["fine-prune", {"ratio": 0.8}], "ftal", "permute"]}]),
    ("wrap-reconstruct", "reconstruction", "none", {"coder_epochs": 2}, [{}], [{"width": w} for w in (8, 16, 32)]),
    ("wrap-blur", "smoothing", "none", {}, [{}, {"kind": "median"}], [*({"std": s} for s in (0.5, 0.6, 0.7)), {"kind": "mean"}, {"kind": "median"}]),
    ("wrap-jpeg", "JPEG", "none", {}, [{}], [{"quality": q} for q in (95, 65, 45)]),
    ("wrap-levels", "levels", "none", {}, [{}], [{"levels": n} for n in (16, 12, 10)]),
    ("wrap-noise", "noise", "none", {}, [{}], [{"std": s} for s in (0.01, 0.03, 0.05, 0.1)]),
    ("wrap-flip", "flip", "none", {}, [{}], [{}]),
    ("wrap-squeeze", "squeezing", "none", {}, [{}], [{"bits": b} for b in (3, 4, 5)]),
    ("wrap-round", "rounded outputs", "none", {}, [{}], [{"decimals": d} for d in (0, 1, 2)]),
    ("wrap-label", "label outputs", "none", {}, [{}], [{}]),
    ("detect-reconstruction", "detector", "none", {"coder_epochs": 2}, [{}], [{}, {"reaction": "refuse"}]),
    ("detect-divergence", "detector", "none", {"coder_epochs": 2}, [{}], [{}, {"reaction": "refuse"}]),
    ("detect-ood", "detector", "none", {}, [{}], [{"rule": rule, "reaction": how} for rule in ("softmax", "energy") for how in ("random", "refuse")]),
    ("detect-duplicates", "detector", "none", {}, [{}], [{}, {"reaction": "refuse"}]),
)  # fmt: skip
PROFILES = ("smoke", "standard", "full")
# against one kind of protection; that names them among its adaptive attacks
ADAPTIVE = (
    "clip-outliers", "dummy-channels", "equal-values", "fill-outliers", "gradient-fill", "head-surgery", "label-remap", "layer-ridge",
    "nearest-sibling", "push-maps", "reverse-lock", "scratch", "shift-logits", "undo-gradient", "value-clusters",
)  # fmt: skip


def battery(arch: str, *, profile: str = "standard", copies: int = 1) -> list[TheftSpec]:
    """Return every theft there is against a victim of architecture ``arch``; what it has no part for, such as batch normalisation, is left out.

    Parameters
    ----------
    profile
        ``"smoke"``: each method once with hardly any training (under a minute for a LeNet-5 on 1,000 images); ``"standard"``: each with its
        defaults; ``"full"``: the grids of the watermark-robustness battery (Lukas et al., arXiv 2108.04974).
    copies
        how many of each; they differ in their seeds.

    Raises
    ------
    UsageError
        for another profile.

    Examples
    --------
    >>> [len(battery("lenet5", profile=profile)) for profile in PROFILES]
    [43, 54, 150]
    """
    if profile not in PROFILES:
        message = f"a battery is {', '.join(PROFILES)}, not {profile!r}"
        raise UsageError(message)
    made = []
    for method, group, labels, smoke, standard, full in _BATTERY:
        grid = {"smoke": [smoke], "standard": standard, "full": full}[profile]
        if not applies(method, arch):
            continue
        made += [
            TheftSpec(method, group, dict(fields), labels, _thiefs(method, fields, arch), index, coarse=method == "transfer")
            for fields in grid
            for index in range(copies)
        ]
    return made


def _thiefs(method: str, fields: Fields, arch: str) -> str | None:
    """Return the architecture of a new network: the victim's for an extraction, another one across architectures, ``None`` for a copy."""
    if method == "extract-cross":  # it cannot see the victim's, so it is told where its own choice would be the same
        other = describe(str(fields.get("other", ExtractCross.other)))[0]
        return None if other != describe(arch)[0] else "cnn" if other != "cnn" else "resnet8"
    return arch if method.startswith("extract-") or method in {"distil", "knockoff", "ensemble"} else None


@functools.cache
def applies(method: str, arch: str) -> bool:
    """Return whether a network of ``arch`` has what ``method`` changes; of a user's own architecture, that is found out by trying."""
    if method not in {"bn-recalibrate", "fold-bn", "rescale", "permute", "fine-prune"} or describe(arch)[0] not in ARCHITECTURES:
        return True
    net = build(arch, classes=2, channels=3, size=(32, 32), rng=generator(0))
    if method in {"bn-recalibrate", "fold-bn"}:
        return bool(folds(net))
    try:
        return bool(groups(net, scaling=method == "rescale"))
    except InputError:
        return False
