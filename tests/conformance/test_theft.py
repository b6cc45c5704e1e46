"""What every theft promises, tried on all of the catalogue: a new method adds one row to `ROWS`."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from torch import Tensor, nn

from modelward.attacks.theft import FTAL, FTLL, RTAL, ExtractLabels, ExtractProbabilities, Prune, Quantise
from modelward.core.canonical import canonical_json
from modelward.core.catalogue import catalogue
from modelward.core.errors import AccessError, InputError, UsageError
from modelward.core.families import Theft, TheftMethod
from modelward.core.guard import predict, state_digest
from modelward.core.images import ImageSet
from modelward.core.rng import generator
from modelward.core.suspect import Access, Suspect
from modelward.core.view import AttackerView, Labels
from modelward.data.study import Study
from modelward.models import Net, head, load_model, save_model, weight_layers
from modelward.training import accuracy

ORDER = list(Access)  # from the most to the least
MLP = "mlp:width=16"


@dataclasses.dataclass(frozen=True)
class Row:
    """A theft with constructor arguments; ``random``: it draws from the generator; ``asks``: it queries the victim for stolen labels."""

    name: str
    fields: dict[str, Any] = dataclasses.field(default_factory=dict)
    random: bool = True
    asks: bool = True


ROWS = (
    Row("ftal", {"epochs": 2}),
    Row("ftll", {"epochs": 2}),
    Row("rtal", {"epochs": 2}),
    Row("prune", {"sparsity": 0.4}, random=False, asks=False),
    Row("quantise", {"bits": 4}, random=False, asks=False),
    Row("extract-l", {"epochs": 4}),
    Row("extract-p", {"epochs": 4}),
    Row("extract-p", {"epochs": 4, "temperature": 4.0}),
)
OURS = {name: cls for name, cls in catalogue().items() if issubclass(cls, TheftMethod) and cls.__module__.startswith("modelward.")}
CASES = [pytest.param(row, id=f"{row.name}{number}") for number, row in enumerate(ROWS)]
every = pytest.mark.parametrize("row", CASES)
each_mode = pytest.mark.parametrize(
    ("row", "labels"),
    [
        pytest.param(row, labels, id=f"{row.name}{i}-{labels}")
        for i, row in enumerate(ROWS)
        if row.name in OURS
        for labels in OURS[row.name].labels
    ],
)


class BlindSet(ImageSet):
    """Images whose labels may not be looked at."""

    @property
    def labels(self) -> NoReturn:
        """Fail."""
        raise AssertionError("the true labels were read")


def blind(images: ImageSet) -> ImageSet:
    """Return ``images`` as a set whose labels raise."""
    made = object.__new__(BlindSet)
    for name in ("pixels", "classes", "name"):
        object.__setattr__(made, name, getattr(images, name))
    return made


def make(row: Row) -> TheftMethod:
    """Return the method of a row."""
    return OURS[row.name].configured(row.fields)


def view(model: nn.Module, images: ImageSet, labels: Labels = Labels.STOLEN, access: Access = Access.WEIGHTS, **more: Any) -> AttackerView:
    """Return an attacker's position."""
    return AttackerView(Suspect.of_model(model, access=access), images, labels, **more)


def changed(theft: Theft, model: nn.Module) -> set[str]:
    """Return the names of the tensors that are not bit for bit those of ``model``."""
    before, after = model.state_dict(), theft.model.state_dict()
    assert list(before) == list(after)
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_every_registered_method_has_a_row() -> None:
    assert {row.name for row in ROWS} == set(OURS)


@each_mode
def test_a_theft_is_a_model_in_evaluation_mode_and_the_victim_is_untouched(
    row: Row, labels: Labels, scarred: Net, untouched: Callable[..., Any], parts: Study
) -> None:
    attacker = view(scarred, parts.attacker, labels)
    with untouched(scarred):
        result = make(row).run(attacker, rng=generator(0))
    theft = result.value
    assert predict(theft.model, parts.test.pixels[:5]).shape == (5, 3)
    assert not any(module.training for module in theft.model.modules())
    assert all(parameter.requires_grad for parameter in theft.model.parameters())
    assert changed(theft, scarred)
    assert not {p.data_ptr() for p in scarred.parameters()} & {p.data_ptr() for p in theft.model.parameters()}
    assert result.steps == row.fields.get("epochs", 1)
    assert result.seconds > 0
    assert theft.log["epochs"] == row.fields.get("epochs", 0)


@each_mode
def test_queries_are_counted(row: Row, labels: Labels, victim: Net, parts: Study) -> None:
    attacker = view(victim, parts.attacker, labels)
    attacker.victim.queries = 7
    result = make(row).run(attacker, rng=generator(0))
    assert result.queries == (len(parts.attacker) if row.asks and labels is Labels.STOLEN else 0)
    assert attacker.victim.queries == 7 + result.queries


@each_mode
def test_true_labels_are_read_in_true_mode_only(row: Row, labels: Labels, victim: Net, parts: Study) -> None:
    attacker = view(victim, blind(parts.attacker), labels)
    if labels is Labels.TRUE and row.asks:
        with pytest.raises(AssertionError, match="the true labels were read"):
            make(row).run(attacker, rng=generator(0))
    else:
        seen = make(row).steal(attacker, rng=generator(0))
        plain = make(row).steal(view(victim, parts.attacker, labels), rng=generator(0))
        assert state_digest(seen.model) == state_digest(plain.model)


@every
def test_the_generator_decides(row: Row, victim: Net, parts: Study) -> None:
    first, again, other = (
        state_digest(make(row).steal(view(victim, parts.attacker), rng=generator(seed)).model) for seed in (3, 3, 4)
    )  # fmt: skip
    assert first == again
    assert (first != other) == row.random


@every
def test_more_access_than_needed_changes_nothing(row: Row, victim: Net, parts: Study) -> None:
    method = make(row)
    arch = None if method.needs is Access.WEIGHTS else MLP
    allowed = ORDER[: ORDER.index(method.needs) + 1]
    digests = {state_digest(method.steal(view(victim, parts.attacker, access=a, arch=arch), rng=generator(0)).model) for a in allowed}
    assert len(digests) == 1


@every
def test_less_access_than_needed_is_refused_without_a_query(row: Row, victim: Net, parts: Study) -> None:
    method = make(row)
    for access in ORDER[ORDER.index(method.needs) + 1 :]:
        attacker = view(victim, parts.attacker, access=access, arch=MLP)
        with pytest.raises(AccessError):
            method.run(attacker, rng=generator(0))
        assert attacker.victim.queries == 0


@every
def test_labels_it_does_not_work_with_are_refused(row: Row, victim: Net, parts: Study) -> None:
    method = make(row)
    for labels in {*Labels} - {*method.labels}:
        with pytest.raises(UsageError, match=f"{row.name} works with labels"):
            method.run(view(victim, parts.attacker, labels), rng=generator(0))


@every
def test_a_broken_victim_gives_no_theft(row: Row, mlp_victim: Net, parts: Study, train_net: Callable[..., Net]) -> None:
    broken = train_net(MLP, parts.owner, 9, epochs=0)
    with torch.no_grad():
        next(broken.parameters())[0, 0] = float("nan")
    with pytest.raises(InputError):
        make(row).run(view(broken, parts.attacker), rng=generator(0))
    assert make(row).run(view(mlp_victim, parts.attacker), rng=generator(0)).flags == ()


@every
def test_settings_survive_json(row: Row) -> None:
    method = make(row)
    again = type(method).configured(json.loads(canonical_json(method.settings())))
    assert again == method
    assert again.fingerprint() == method.fingerprint()
    name = next(iter(row.fields))
    with pytest.raises(UsageError, match=rf"{row.name} has no setting '{name}x'; did you mean '{name}'\?"):
        type(method).configured({f"{name}x": 1})


READER = """
import json, sys, torch
torch.set_num_threads(1)
from modelward.core.guard import predict, state_digest
from modelward.models import load_model
pixels = torch.arange(4 * 192).mul(37).remainder(256).to(torch.uint8).view(4, 3, 8, 8)
found = {}
for path in sys.argv[1:]:
    loaded = load_model(path)
    found[path] = [loaded.arch, loaded.digest, predict(loaded.model, pixels).tolist()]
print(json.dumps(found))
"""


def test_a_stolen_model_read_in_another_process_gives_the_same_logits(tmp_path: Path, victim: Net, parts: Study) -> None:
    pixels = torch.arange(4 * 192).mul(37).remainder(256).to(torch.uint8).view(4, 3, 8, 8)
    thefts, expected = {}, {}
    for number, row in enumerate(ROWS):
        path = str(tmp_path / f"{number}.safetensors")
        thefts[path] = make(row).steal(view(victim, parts.attacker), rng=generator(0)).model
        save_model(path, thefts[path])
        here = load_model(path)
        assert here.digest == state_digest(thefts[path])
        expected[path] = ["cnn:width=4", here.digest, predict(here.model, pixels).tolist()]
    done = subprocess.run([sys.executable, "-c", READER, *expected], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found == expected
    for path, model in thefts.items():  # in memory the weights may lie in another order, which rounds sums differently
        assert torch.allclose(torch.tensor(found[path][2]), predict(model, pixels), atol=1e-4)


def test_fine_tuning_the_last_layer_leaves_every_other_tensor(victim: Net, parts: Study) -> None:
    for labels in FTLL.labels:
        theft = FTLL(epochs=2).steal(view(victim, parts.attacker, labels), rng=generator(0))
        name, layer = head(victim)
        assert changed(theft, victim) == {f"{name}.{part}" for part, _ in layer.named_parameters()}


def test_fine_tuning_all_layers_changes_every_weight_and_keeps_the_accuracy(victim: Net, parts: Study) -> None:
    theft = FTAL(epochs=3).steal(view(victim, parts.attacker, Labels.TRUE), rng=generator(0))
    assert {name for name, _ in victim.named_parameters()} <= changed(theft, victim)
    assert accuracy(theft.model, parts.test) >= accuracy(victim, parts.test) - 0.02


def test_a_new_last_layer_owes_nothing_to_the_old_one(victim: Net, parts: Study, train_net: Callable[..., Net]) -> None:
    name, layer = head(victim)
    other = train_net("cnn:width=4", parts.attacker, 8, epochs=1)
    first, second = (RTAL(epochs=0).steal(view(model, parts.attacker), rng=generator(0)) for model in (victim, other))
    assert changed(first, victim) == {f"{name}.{part}" for part, _ in layer.named_parameters()}
    assert torch.equal(head(first.model)[1].weight, head(second.model)[1].weight)
    bound = layer.in_features**-0.5 if isinstance(layer, nn.Linear) else 0.0  # the uniform initialisation of a linear layer
    assert 0 < float(head(first.model)[1].weight.detach().abs().max()) <= bound
    assert state_digest(FTAL(epochs=0).steal(view(victim, parts.attacker), rng=generator(0)).model) == state_digest(victim)


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.37, 0.5, 0.9, 1.0])
def test_pruning_reaches_the_exact_sparsity_with_the_smallest_weights(scope: str, sparsity: float, victim: Net, parts: Study) -> None:
    theft = Prune(sparsity=sparsity, scope=scope).steal(view(victim, parts.attacker, Labels.NONE), rng=generator(0))
    before, after = ([layer.weight.detach().flatten() for _, layer in weight_layers(m)] for m in (victim, theft.model))
    if scope == "global":
        before, after = [torch.cat(before)], [torch.cat(after)]
    zeroed = 0
    for old, new in zip(before, after, strict=True):
        gone = new == 0
        assert not bool((old == 0).any())
        assert int(gone.sum()) == round(sparsity * len(old))
        assert torch.equal(new[~gone], old[~gone])
        assert not bool(gone.any() and (~gone).any()) or float(old[gone].abs().max()) <= float(old[~gone].abs().min())
        zeroed += int(gone.sum())
    assert theft.log["zeroed"] == zeroed
    assert theft.log["sparsity"] == zeroed / sum(map(len, before))
    assert changed(theft, victim) <= {f"{name}.weight" for name, _ in weight_layers(victim)}


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_quantisation_leaves_so_many_levels_and_rounds_to_the_nearest(bits: int, victim: Net, parts: Study) -> None:
    theft = Quantise(bits=bits).steal(view(victim, parts.attacker, Labels.NONE), rng=generator(0))
    for (_, old), (_, new) in zip(weight_layers(victim), weight_layers(theft.model), strict=True):
        low, high = (float(value) for value in old.weight.detach().aminmax())
        step = (high - low) / (2**bits - 1)
        assert len(new.weight.unique()) <= min(2**bits, old.weight.numel())
        assert float((new.weight - old.weight).detach().abs().max()) <= step / 2 + 1e-6 * (high - low)
        ranks = (new.weight.detach().double() - low) / step
        assert float((ranks - ranks.round()).abs().max()) <= 1e-6 * 2**bits
    assert changed(theft, victim) <= {f"{name}.weight" for name, _ in weight_layers(victim)}


@pytest.mark.parametrize("method", [ExtractLabels(epochs=8), ExtractProbabilities(epochs=8)])
def test_extraction_learns_the_victims_answers_in_the_thiefs_architecture(method: TheftMethod, victim: Net, parts: Study) -> None:
    theft = method.steal(view(victim, parts.attacker, access=method.needs, arch=MLP), rng=generator(0))
    assert isinstance(theft.model, Net)
    assert theft.arch == theft.model.arch == MLP
    answers = predict(victim, parts.test.pixels).argmax(1)
    agreement = float((predict(theft.model, parts.test.pixels).argmax(1) == answers).float().mean())
    assert agreement >= 0.85


@pytest.mark.parametrize("method", [ExtractLabels(), ExtractProbabilities()])
def test_extraction_by_queries_needs_an_architecture_and_says_so_before_it_asks(method: TheftMethod, victim: Net, parts: Study) -> None:
    attacker = view(victim, parts.attacker, access=method.needs)
    with pytest.raises(UsageError, match="AttackerView"):
        method.run(attacker, rng=generator(0))
    assert attacker.victim.queries == 0


def test_label_answers_and_soft_answers_train_different_thieves(victim: Net, parts: Study) -> None:
    def stolen(method: TheftMethod) -> Tensor:
        return predict(method.steal(view(victim, parts.attacker), rng=generator(0)).model, parts.test.pixels)

    assert not torch.equal(stolen(ExtractLabels(epochs=2)), stolen(ExtractProbabilities(epochs=2)))


def test_a_view_hands_out_labels_by_its_mode(victim: Net, parts: Study) -> None:
    few = parts.attacker.take(slice(9))
    assert torch.equal(view(victim, few, Labels.TRUE).targets(), few.labels)
    assert torch.equal(view(victim, blind(few)).targets(), predict(victim, few.pixels).argmax(1))
    assert torch.allclose(view(victim, blind(few)).targets(soft=True), predict(victim, few.pixels).softmax(1))
    for attacker, soft in (
        (view(victim, few, Labels.NONE), False),
        (view(victim, few, Labels.TRUE), True),
        (view(victim, few, access=Access.LABEL), True),
    ):
        with pytest.raises(AccessError):
            attacker.targets(soft=soft)
    with pytest.raises(AccessError):
        _ = view(victim, few, access=Access.PROBABILITIES).weights


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("prune", {"sparsity": 1.1}),
        ("prune", {"sparsity": -0.1}),
        ("prune", {"scope": "net"}),
        ("quantise", {"bits": 0}),
        ("quantise", {"bits": 17}),
    ],
)
def test_bad_settings_are_refused(name: str, fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        OURS[name].configured(fields)


@pytest.mark.parametrize("name", ["ftal", "ftll", "rtal", "extract-l", "extract-p"])
def test_impossible_training_is_refused(name: str, victim: Net, parts: Study) -> None:
    attacker = view(victim, parts.attacker, Labels.STOLEN)
    for fields in ({"epochs": -1}, {"lr": 0.0}, {"batch": 0}):
        with pytest.raises(UsageError):
            OURS[name].configured(fields).run(attacker, rng=generator(0))
    assert attacker.victim.queries == 0
