"""Architectures by name, and model files."""

from modelward.models.files import LoadedModel, load_model, save_model
from modelward.models.intake import Convention
from modelward.models.nets import ARCHITECTURES, Net, build, describe, infer
from modelward.models.parts import fresh_like, head, reinitialise, weight_layers

__all__ = [
    "ARCHITECTURES",
    "Convention",
    "LoadedModel",
    "Net",
    "build",
    "describe",
    "fresh_like",
    "head",
    "infer",
    "load_model",
    "reinitialise",
    "save_model",
    "weight_layers",
]
