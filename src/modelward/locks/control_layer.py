"""A control layer: what a network answers to whoever has no credential, and the wrapped keys of those who have one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from modelward.attacks.theft.wrapping import drawn
from modelward.core.card import Card, Function, Mechanism, Protection, Scenario, Taxonomy
from modelward.core.errors import AccessError, InputError
from modelward.core.method import Method
from modelward.keys.derive import derive
from modelward.models.assembly import Assembly

ANSWERS = ("constant", "permutation", "random", "refuse")
SPREAD = 3.0  # standard deviation of random logits, like that of a trained network's
LEADS = 10.0
SEALED = "sealed"


@dataclass(frozen=True, kw_only=True)
class ControlLayer(Method):
    """Stand in front of a network and answer without it; `ActiveGuard` makes it, and opens it for users.

    The layer alone protects nothing: whoever has the file takes the network out of it. What protects is that the network inside was locked too.

    Parameters
    ----------
    answers
        ``constant``: always the first class, as in the paper; ``permutation``: the network's logits in an order that hangs on the image;
        ``random``: logits of a normal distribution that hang on the image; ``refuse``: an error.
    seed
        of permutations and random logits: asked twice, the layer says the same.
    slots
        the users' wrapped keys, by tags that only a credential leads to.
    windows
        of the paper's variant: whoever brings an image that falls into one of these is let in.
    sealed
        bytes of the sealed parameter key.

    Examples
    --------
    >>> from modelward import embedded_model, load_data
    >>> net, x = embedded_model().model, load_data("fashion-mini").test.batch(slice(0, 4))
    >>> layer = ControlLayer(answers="constant").assemble([net])
    >>> layer(x).argmax(1).tolist(), bool((ControlLayer(answers="permutation").assemble([net])(x).sort(1)[0] == net(x).sort(1)[0]).all())
    ([0, 0, 0, 0], True)
    """

    family: ClassVar[str] = "lock"
    card: ClassVar[Card] = Card(
        name="control-layer",
        title="an output layer that answers the authorised only; a part of activeguard",
        paper="Xue et al.: ActiveGuard: an active intellectual property protection technique for deep neural networks by leveraging adversarial "
        "examples as users' fingerprints, IET CDT 2023, arXiv 2103.01527",
        taxonomy=Taxonomy(
            Scenario.BLACK_BOX_LABEL, Mechanism.OUTPUT_CONTROL, protection=Protection.ACTIVE, functions=(Function.AUTHORIZATION,)
        ),
        limits=("whoever has the file takes the network out of the layer",),
        cost="none",
        tags=("part",),
    )

    answers: str = "random"
    seed: int = 0
    slots: dict[str, str] = field(default_factory=dict)
    windows: list[list[float]] = field(default_factory=list)
    sealed: int = 0

    def __post_init__(self) -> None:
        slots = isinstance(self.slots, dict) and all(isinstance(text, str) for pair in self.slots.items() for text in pair)
        self._require(
            answers=(self.answers in ANSWERS, ", ".join(ANSWERS)), seed=(0 <= self.seed < 2**63, "in [0, 2^63)"),
            slots=(slots, "a table of texts"), windows=(isinstance(self.windows, list), "a list"), sealed=(0 <= self.sealed < 2**31, ">= 0"),
        )  # fmt: skip

    def assemble(self, parts: Sequence[nn.Module]) -> Assembly:
        """Return the assembly of one network; the sealed bytes are filled in later."""
        made = Assembly(self, parts)
        made.register_buffer(SEALED, torch.zeros(self.sealed, dtype=torch.uint8))
        return made

    def answer(self, assembly: Assembly, x: Tensor) -> Tensor:
        """Return logits (N, K) that are of no use.

        Raises
        ------
        AccessError
            where the layer refuses.
        """
        if self.answers == "refuse":
            raise AccessError("this network answers those who bring a credential; open it with modelward unlock")
        if self.answers == "constant":
            made = torch.zeros(len(x), assembly.classes, device=x.device)
            made[:, 0] = LEADS
            return made
        noise = drawn(x, self.seed, [assembly.classes])
        if self.answers == "random":
            return noise * SPREAD
        logits: Tensor = assembly.parts[0](x)
        return logits.gather(1, noise.argsort(1))

    def settings(self) -> dict[str, Any]:
        """Return the settings by name, as plain data."""
        return {**super().settings(), "slots": dict(self.slots), "windows": [list(map(float, row)) for row in self.windows]}


def keyed(answers: str, secret: bytes) -> ControlLayer:
    """Return a layer whose answers to strangers hang on the owner's secret.

    >>> keyed("random", b"0" * 32) == keyed("random", b"0" * 32)
    True
    """
    return ControlLayer(answers=answers, seed=int.from_bytes(derive(secret, "layer", length=8), "big") >> 1)


def layer_of(model: nn.Module) -> tuple[ControlLayer, Assembly]:
    """Return the control layer of a locked model; raises `InputError` for a model that has none."""
    if isinstance(model, Assembly) and isinstance(model.maker, ControlLayer):
        return model.maker, model
    message = f"this {type(model).__name__} has no control layer; it was locked in another mode, or taken out of its layer"
    raise InputError(message)


def stripped(model: nn.Module) -> nn.Module:
    """Return the network that a thief has who takes the control layer away.

    Examples
    --------
    >>> from modelward import embedded_model
    >>> net = embedded_model().model
    >>> stripped(ControlLayer().assemble([net])) is net, stripped(net) is net
    (True, True)
    """
    return model.parts[0] if isinstance(model, Assembly) and isinstance(model.maker, ControlLayer) else model
