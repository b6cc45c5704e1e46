"""What the tests of thefts share: a thief's images, and which tensors a theft changed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from modelward.core.images import ImageSet
from modelward.data.study import Study


@pytest.fixture(scope="session")
def few(parts: Study) -> ImageSet:
    """Return a thief's few images."""
    return parts.attacker.take(slice(64))


@pytest.fixture(scope="session")
def changed() -> Callable[[nn.Module, nn.Module], set[str]]:
    """Return a function that names the tensors of one model that are not bit for bit those of another."""

    def names(model: nn.Module, other: nn.Module) -> set[str]:
        before, after = other.state_dict(), model.state_dict()
        assert list(before) == list(after)
        return {name for name in before if not torch.equal(before[name], after[name])}

    return names
