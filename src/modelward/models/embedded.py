"""The small LeNet-5 that comes with the package; `tools/build_embedded_model.py` makes it again."""

from __future__ import annotations

import importlib.resources

from modelward.models.files import LoadedModel, load_model

FILE = "lenet5-fashion-mini.safetensors"


def embedded_model() -> LoadedModel:
    """Return the embedded LeNet-5, trained on the owner's half of fashion-mini.

    >>> embedded_model().arch
    'lenet5'
    """
    with importlib.resources.as_file(importlib.resources.files("modelward.models") / "embedded" / FILE) as path:
        return load_model(path)
