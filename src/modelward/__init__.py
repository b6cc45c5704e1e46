"""modelward: prove which models and images are yours, lock them, and measure how well that holds under attack.

Public names load lazily: ``import modelward`` is quick and does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from modelward._version import __version__

if TYPE_CHECKING:
    from modelward.attacks.evasion import (
        BIM,
        DIM,
        FGSM,
        MIM,
        PGD,
        SIM,
        SITIDIM,
        TIM,
        CarliniWagner,
        DeepFool,
        RandomNoise,
        UniversalPerturbation,
    )
    from modelward.attacks.theft import (
        FTAL,
        FTLL,
        RTAL,
        RTLL,
        AdversarialFinetune,
        CastWeights,
        ClipOutliers,
        Combined,
        DetectDivergence,
        DetectDuplicates,
        DetectOOD,
        DetectReconstruction,
        Distil,
        DummyChannels,
        Ensemble,
        EqualValues,
        ExtractAdversarial,
        ExtractCross,
        ExtractLabels,
        ExtractProbabilities,
        ExtractSmooth,
        FillOutliers,
        FinePrune,
        FoldNorm,
        FromScratch,
        GanRemoval,
        GradientFill,
        HeadSurgery,
        KnockOff,
        LabelRemap,
        Laundering,
        LayerRidge,
        NearestSibling,
        NeuralCleanse,
        Overwrite,
        PermuteNeurons,
        Prune,
        PruneFinetune,
        PushMaps,
        Quantise,
        RecalibrateNorm,
        Regularise,
        RescaleNeurons,
        ReverseLock,
        ShiftLogits,
        SmoothLabels,
        Transfer,
        UndoGradient,
        ValueClusters,
        WeightNoise,
        WeightShift,
        WrapBlur,
        WrapFlip,
        WrapJPEG,
        WrapLabel,
        WrapLevels,
        WrapNoise,
        WrapReconstruct,
        WrapRound,
        WrapSqueeze,
    )
    from modelward.audit import Question, audit, judge
    from modelward.core.catalogue import catalogue, find
    from modelward.core.errors import ModelwardError
    from modelward.core.images import ImageSet
    from modelward.core.rng import generator
    from modelward.core.suspect import Suspect
    from modelward.core.verdict import Verdict
    from modelward.core.view import AttackerView
    from modelward.data import Study, load_data, study
    from modelward.evaluation.farm import battery
    from modelward.evaluation.siblings import siblings
    from modelward.evaluation.store import Store
    from modelward.evaluation.zoo import null_zoo
    from modelward.io.endpoint import Asking
    from modelward.keys import read_key, write_key
    from modelward.locks import ActiveGuard, AdvParams, DatasetLock, SampleLock
    from modelward.marking.scanning import scan
    from modelward.models import Convention, build, load_model, save_model
    from modelward.models.embedded import embedded_model
    from modelward.models.pretrained import pretrained
    from modelward.ownership import (
        CAE,
        EWE,
        SAC,
        SACJC,
        AdditionalClass,
        Adi,
        DeepMarks,
        Frontier,
        InFIP,
        IPGuard,
        Passport,
        Uchida,
        UnitMatch,
        UnitOrder,
        WeightDistance,
        Zhang,
    )
    from modelward.training import Recipe, fit

# fmt: off
_HOMES = {
    "modelward.attacks.evasion": (
        "BIM", "DIM", "FGSM", "MIM", "PGD", "SIM", "SITIDIM", "TIM", "CarliniWagner", "DeepFool", "RandomNoise", "UniversalPerturbation",
    ),
    "modelward.attacks.theft": (
        "Overwrite", "FTAL", "FTLL", "RTAL", "RTLL", "AdversarialFinetune", "CastWeights", "ClipOutliers", "Combined", "DetectDivergence", "DetectDuplicates",
        "DetectOOD", "DetectReconstruction", "Distil", "DummyChannels", "Ensemble", "EqualValues", "ExtractAdversarial", "ExtractCross", "ExtractLabels",
        "ExtractProbabilities", "ExtractSmooth", "FillOutliers", "FinePrune", "FoldNorm", "FromScratch", "GanRemoval", "GradientFill", "HeadSurgery",
        "KnockOff", "LabelRemap",
        "Laundering", "LayerRidge", "NearestSibling", "NeuralCleanse", "PermuteNeurons", "Prune", "PruneFinetune", "PushMaps", "Quantise",
        "RecalibrateNorm", "Regularise",
        "RescaleNeurons", "ReverseLock", "ShiftLogits", "SmoothLabels", "Transfer", "UndoGradient", "ValueClusters", "WeightNoise", "WeightShift", "WrapBlur",
        "WrapFlip", "WrapJPEG", "WrapLabel", "WrapLevels", "WrapNoise", "WrapReconstruct", "WrapRound", "WrapSqueeze",
    ),
    "modelward.audit": (
        "Question", "audit", "judge",
    ),
    "modelward.core.catalogue": (
        "catalogue", "find",
    ),
    "modelward.core.errors": (
        "ModelwardError",
    ),
    "modelward.core.images": (
        "ImageSet",
    ),
    "modelward.core.rng": (
        "generator",
    ),
    "modelward.core.suspect": (
        "Suspect",
    ),
    "modelward.core.verdict": (
        "Verdict",
    ),
    "modelward.core.view": (
        "AttackerView",
    ),
    "modelward.data": (
        "Study", "load_data", "study",
    ),
    "modelward.evaluation.farm": (
        "battery",
    ),
    "modelward.evaluation.siblings": (
        "siblings",
    ),
    "modelward.evaluation.store": (
        "Store",
    ),
    "modelward.evaluation.zoo": (
        "null_zoo",
    ),
    "modelward.io.endpoint": (
        "Asking",
    ),
    "modelward.keys": (
        "read_key", "write_key",
    ),
    "modelward.marking.scanning": (
        "scan",
    ),
    "modelward.locks": (
        "ActiveGuard",
        "AdvParams",
        "DatasetLock", "SampleLock",
    ),
    "modelward.models": (
        "Convention", "build", "load_model", "save_model",
    ),
    "modelward.models.embedded": (
        "embedded_model",
    ),
    "modelward.models.pretrained": (
        "pretrained",
    ),
    "modelward.ownership": (
        "Passport", "Adi", "EWE", "Frontier", "InFIP", "DeepMarks", "Uchida", "CAE", "SAC", "SACJC", "AdditionalClass", "IPGuard", "Zhang",
        "UnitMatch", "UnitOrder", "WeightDistance",
    ),
    "modelward.training": (
        "Recipe", "fit",
    ),
}
_WHERE = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "BIM", "CAE", "DIM", "EWE", "FGSM", "FTAL", "FTLL", "MIM", "PGD", "RTAL", "RTLL", "SAC", "SACJC", "SIM", "SITIDIM", "TIM",
    "ActiveGuard", "AdditionalClass", "Adi", "AdvParams", "AdversarialFinetune", "Asking", "AttackerView", "CarliniWagner",
    "CastWeights", "ClipOutliers", "Combined", "Convention",
    "DatasetLock", "DeepFool", "DeepMarks", "DetectDivergence", "DetectDuplicates", "DetectOOD", "DetectReconstruction", "Distil", "DummyChannels",
    "Ensemble", "EqualValues", "ExtractAdversarial", "ExtractCross", "ExtractLabels", "ExtractProbabilities", "ExtractSmooth",
    "FillOutliers", "FinePrune", "FoldNorm", "FromScratch", "Frontier", "GanRemoval", "GradientFill", "HeadSurgery", "IPGuard", "ImageSet", "InFIP",
    "KnockOff", "LabelRemap",
    "Laundering", "LayerRidge", "ModelwardError", "NearestSibling", "NeuralCleanse", "Overwrite", "Passport", "PermuteNeurons", "Prune",
    "PruneFinetune", "PushMaps", "Quantise",
    "Question", "RandomNoise", "RecalibrateNorm", "Recipe", "Regularise", "RescaleNeurons", "ReverseLock", "SampleLock", "ShiftLogits", "SmoothLabels", "Store",
    "Study", "Suspect", "Transfer", "Uchida", "UndoGradient", "UnitMatch", "UnitOrder",
    "UniversalPerturbation", "ValueClusters", "Verdict", "WeightDistance", "WeightNoise", "WeightShift", "WrapBlur", "WrapFlip",
    "WrapJPEG", "WrapLabel", "WrapLevels", "WrapNoise", "WrapReconstruct", "WrapRound", "WrapSqueeze", "Zhang", "__version__", "audit", "battery",
    "build", "catalogue", "embedded_model", "find", "fit", "generator", "judge", "load_data", "load_model", "null_zoo", "pretrained", "read_key",
    "save_model", "scan", "siblings", "study", "write_key",
]
# fmt: on


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    message = f"module 'modelward' has no attribute {name!r}"
    raise AttributeError(message)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
