"""A model that answers the same batch once: enrolment, verification and every view ask the same models the same probes."""

from __future__ import annotations

import collections
import hashlib

from torch import Tensor, nn

CAP_BYTES = 200_000_000
_ANSWERS: collections.OrderedDict[tuple[str, str], Tensor] = collections.OrderedDict()


class Remembering(nn.Module):
    """Wrap a model in eval mode so that its answers to a batch are kept in this process, up to 200 MB for all models together.

    Parameters
    ----------
    model
        image batch -> logits; its answer must depend on the batch alone.
    digest
        the digest of its weights.
    """

    def __init__(self, model: nn.Module, digest: str) -> None:
        super().__init__()
        self.model, self.digest = model, digest

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, K) of ``x`` (N, C, H, W), from memory when the batch was seen; a batch that wants a gradient is computed."""
        if x.requires_grad:
            answer: Tensor = self.model(x)
            return answer
        key = self.digest, hashlib.blake2b(x.contiguous().numpy().data, digest_size=16).hexdigest()
        if key not in _ANSWERS:
            _ANSWERS[key] = self.model(x)
            while sum(answer.nbytes for answer in _ANSWERS.values()) > CAP_BYTES:
                _ANSWERS.popitem(last=False)
        return _ANSWERS[key]
