"""unit-order: whether a suspect's hidden units stand in the order of the owner's (Zhu, Ahmed, Kuditipudi, Liang; ICML 2025, arXiv 2502.12292)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from modelward.core.card import Capacity, Card, Function, Mechanism, Protection, Scenario, Taxonomy
from modelward.core.claims import withstands
from modelward.core.deciding import Finding
from modelward.core.errors import FormatError, InputError
from modelward.core.families import OwnershipMethod
from modelward.core.guard import state_digest
from modelward.core.images import ImageSet
from modelward.core.key import REMEDY, Key
from modelward.core.ownership import Attack, Observation
from modelward.core.rng import derive_seed, generator
from modelward.core.siblings import EXTRACTED, Siblings
from modelward.core.suspect import Access, Suspect
from modelward.core.verdict import ALPHA
from modelward.marking.unit_maps import Placed, UnitMaps, answers_stay, unit_maps, weights_of
from modelward.marking.unit_orders import OrderTest, order_test
from modelward.ownership.candidates import SMOKE

WEIGHTS = Taxonomy(
    Scenario.WHITE_BOX, Mechanism.FINGERPRINT_INTRINSIC, capacity=Capacity.ZERO_BIT, protection=Protection.PASSIVE, functions=(Function.OWNERSHIP,)
)  # fmt: skip
ORDERS = "orders of the owner's hidden units"
PREFIX = "weights/"
STARTS = {
    "none": "By the owner's word training began at weights drawn anew, which nobody else has.",
    "unsaid": "Nobody said where training began (--base none, --base FILE or --start FILE): a shared start gives every unit its place.",
}
SHARED = "By the owner's word others may have the weights that training began with, and those give every unit its place: the order tells nothing."


@dataclass(frozen=True, kw_only=True)
class UnitOrder(OwnershipMethod):
    r"""Compare the suspect's weights with those of the owner's model, and of the same model with its hidden units in random orders.

    Hidden units are exchangeable when training begins, so that every joint order of them is one that the owner could as well have got:
    :math:`p = (1 + \#\{orders at least as alike\}) / (draws + 1)`, down to 1/10,001, with no sibling to train. The suspect is read as it was handed over.
    A copy that was fine-tuned, pruned, quantised or made noisy keeps the order; one whose units were permuted does not, and `unit-match` looks for that.

    Undecided, with the reason: a start that others may have, initial weights that tell units apart, units sorted by size, other shapes.

    Parameters
    ----------
    draws
        number of random orders.

    Examples
    --------
    >>> from modelward import FTAL, AttackerView, embedded_model, generator, load_data
    >>> from modelward.core.siblings import Siblings
    >>> source, images = embedded_model().model, load_data("fashion-mini").test.take(slice(64))
    >>> _, key = UnitOrder(draws=999).protect(source, images, siblings=Siblings(start="none"), rng=generator(0))
    >>> thief = FTAL(epochs=1).steal(AttackerView.of_model(source, images), rng=generator(1)).model
    >>> verdict = UnitOrder().verify(thief, key)
    >>> verdict.decision.value, verdict.p_value, verdict.draws
    ('undecided', 0.001, 999)
    """

    card: ClassVar[Card] = Card(
        name="unit-order",
        title="order of hidden units against random orders",
        paper="Zhu, Ahmed, Kuditipudi, Liang: Independence tests for language models, ICML 2025, PMLR 267, arXiv 2502.12292; the statistic is ours",
        taxonomy=WEIGHTS,
        claims=withstands("ftal", "prune", "quantise"),
        limits=(
            "needs the suspect's weights, in the owner's architecture",
            "a copy whose units were permuted is not found: unit-match looks for it",
            "a model of somebody else's can be put in the order of a suspect's units afterwards: a dated commitment alone makes it evidence",
            "says nothing where others may have the weights that training began with, such as those of a public network",
            "a model trained from scratch on the owner's answers has an order of its own",
        ),
        cost="enrolment: nothing is trained; verification: 10,000 orders, a second for LeNet-5, ten for ResNet-20",
    )
    needs: ClassVar[Access] = Access.WEIGHTS
    drawn_over: ClassVar[str] = "orders"
    acquits: ClassVar[bool] = False
    forgeable: ClassVar[bool] = True  # a model of the forger's own can be put in the order of any suspect's units

    draws: int = 10_000

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(draws=(self.draws >= 19, ">= 19"))

    def adaptive_attacks(self) -> tuple[Attack, ...]:
        """Return what moves the units of a copy without changing its answers."""
        return Attack("permute", {}, "none"), Attack("rescale", {}, "none"), Attack("combined", {"steps": ["permute", "ftal"]}, "true")

    def _protect(
        self,
        model: nn.Module,
        data: ImageSet,
        *,
        secret: bytes | None,
        siblings: Siblings,
        nulls: Sequence[nn.Module],
        thieves: Sequence[nn.Module],
        rng: torch.Generator,
    ) -> tuple[nn.Module, Key]:
        del secret
        maps = unit_maps(model)
        if not answers_stay(model, data.few(64).pixels, rng=rng):
            raise InputError(
                "unit-order: a copy of this model with its units in another order answers otherwise, so its orders are no draws"
            )
        tensors = {f"{PREFIX}{name}": tensor for name, tensor in weights_of(model).items()}
        facts: dict[str, Any] = {
            "settings": self.settings(), "calibrated": siblings.start == "none", "classes": list(data.classes), "maps": asdict(maps),
            "draws": {"of": "orders", "start": siblings.start, "smoke": siblings.smoke},
        }  # fmt: skip
        key = Key(self.card.name, self.variant, state_digest(model), facts, tensors)
        ranks = [self._finding(weights_of(null), key).p for null in nulls]
        read = [p for p in ranks if p is not None]
        draws = {
            **facts["draws"], "nulls": len(read), "false_claims": sum(p <= ALPHA for p in read), "unreadable": len(ranks) - len(read),
            "thieves": self._power(key, siblings, thieves),
        }  # fmt: skip
        return model, Key(key.method, key.variant, key.model_digest, {**facts, "draws": draws}, tensors)

    def _power(self, key: Key, family: Siblings, thieves: Sequence[nn.Module]) -> dict[str, Any]:
        """Return how many thefts are missed: of the model itself, and of tuning siblings, each tested against its own orders."""
        found = [("of the model", self._finding(weights_of(thief), key).p) for thief in thieves]
        for thief in family.thieves:
            if thief.kind != EXTRACTED:  # such a thief's weights are his own
                victim = family.tuning[thief.of]
                found.append((thief.kind, self._test(unit_maps(victim), weights_of(victim), weights_of(thief.model), key).p))
        kinds = dict[str, list[int]]()
        for kind, p in found:
            missed, tried = kinds.get(kind, [0, 0])
            kinds[kind] = [missed + (p is None or p > ALPHA), tried + 1]
        missed = sum(count for count, _ in kinds.values())
        return {Access.WEIGHTS.value: {"tried": len(found), "missed": missed, "kinds": kinds}} if found else {}

    def _observe(self, suspect: Suspect, key: Key) -> Observation:
        del key
        return Observation(Access.WEIGHTS, {f"{PREFIX}{name}": tensor for name, tensor in weights_of(suspect.model).items()})

    def _judge(self, observed: Observation, key: Key) -> Finding:
        given = {name.removeprefix(PREFIX): tensor for name, tensor in observed.tensors.items()}
        return self.enrolled(key)._finding(given, key)  # noqa: SLF001

    def _finding(self, suspect: Mapping[str, Tensor], key: Key) -> Finding:
        """Return the rank of the owner's order for a suspect's weights by name."""
        owner = {name.removeprefix(PREFIX): tensor for name, tensor in key.tensors.items() if name.startswith(PREFIX)}
        start = key.fact(str, "draws", "start")
        found = self._test(maps_of(key), owner, suspect, key)
        doubts = [SHARED if start in {"base", "start"} else STARTS["unsaid"]] if start != "none" else []
        doubts += [SMOKE] if key.fact(bool, "draws", "smoke") else []
        doubts += [found.reason] if found.reason else []
        return Finding(
            1 - found.likeness, "units not alike in their order", exact=found.p, made=found.draws, draws_of=ORDERS, doubts=tuple(doubts),
            headlines=(STARTS["none"],) if start == "none" else (),
        )  # fmt: skip

    def differs(self, model: nn.Module, key: Key, place: int | None = None) -> bool:
        """Return whether ``model`` has other weights, or other groups of units, than ``key`` holds."""
        del place
        mine = weights_of(model)
        held = {name.removeprefix(PREFIX): tensor for name, tensor in key.tensors.items() if name.startswith(PREFIX)}
        same = mine.keys() == held.keys() and all(torch.equal(mine[name], held[name].float()) for name in mine)
        return not same or maps_of(key) != unit_maps(model)

    def _test(self, maps: UnitMaps, owner: Mapping[str, Tensor], suspect: Mapping[str, Tensor], key: Key) -> OrderTest:
        """Return the test; its orders are drawn anew from the digest of the owner's model, so that everybody draws the same."""
        return order_test(maps, owner, suspect, rng=generator(derive_seed(self.card.name, key.model_digest)), draws=self.draws)


def _stands(one: Placed, units: Sequence[int]) -> bool:
    """Return whether the groups that a tensor is said to move with are some, and of its size."""
    groups = [group for group in (one.rows, one.columns) if group is not None]
    if not all(isinstance(group, int) and 0 <= group < len(units) and units[group] > 0 for group in groups):
        return False
    each = math.prod(one.shape[1:])
    return (one.rows is None or one.shape[0] == units[one.rows]) and (one.columns is None or each % units[one.columns] == 0)


def maps_of(key: Key) -> UnitMaps:
    """Return where the units of the owner's model stand, as a key says; raises `FormatError` for one that makes no sense."""
    told = key.fact(dict, "maps")
    try:
        placed = [
            tuple(Placed(str(one["name"]), tuple(map(int, one["shape"])), one["rows"], one["columns"]) for one in told[name])
            for name in ("tensors", "vectors")
        ]
        maps = UnitMaps(tuple(map(int, told["units"])), *placed)
        shapes = {name.removeprefix(PREFIX): tuple(tensor.shape) for name, tensor in key.tensors.items()}
        good = all(shapes[one.name] == one.shape and _stands(one, maps.units) for one in (*maps.tensors, *maps.vectors))
        good &= all((one.rows, one.columns) != (None, None) for one in maps.tensors)
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        message = f"the units that this {key.method} key names make no sense: {REMEDY}"
        raise FormatError(message) from error
    if not good:
        message = f"the units that this {key.method} key names are not those of its weights: {REMEDY}"
        raise FormatError(message)
    return maps
