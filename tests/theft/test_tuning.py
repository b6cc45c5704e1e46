"""The thefts that train the copy: what they change, what they leave, and that they are no weaker than they claim."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from modelward.attacks.evasion import PGD
from modelward.attacks.theft import (
    FTAL,
    FTLL,
    RTAL,
    RTLL,
    AdversarialFinetune,
    FinePrune,
    PruneFinetune,
    Regularise,
    SmoothLabels,
    Transfer,
    WeightShift,
)  # fmt: skip
from modelward.attacks.theft.fine_prune import activity, late
from modelward.core.errors import InputError, UsageError
from modelward.core.guard import predict, state_digest
from modelward.core.images import ImageSet
from modelward.core.rng import generator
from modelward.core.view import AttackerView
from modelward.models import Net, head, weight_layers
from modelward.training import accuracy


@pytest.mark.parametrize("method", [FTLL(epochs=2), RTLL(epochs=2)])
@pytest.mark.parametrize("labels", ["true", "stolen"])
def test_training_the_last_layer_leaves_every_other_tensor(method, labels, victim, few, changed):
    theft = method.steal(AttackerView.of_model(victim, few, labels=labels), rng=generator(0))
    name, layer = head(victim)
    assert changed(theft.model, victim) == {f"{name}.{part}" for part, _ in layer.named_parameters()}


def test_fine_tuning_all_layers_changes_every_weight_and_keeps_the_accuracy(victim, parts, changed):
    theft = FTAL(epochs=3).steal(AttackerView.of_model(victim, parts.attacker), rng=generator(0))
    assert {name for name, _ in victim.named_parameters()} <= changed(theft.model, victim)
    assert accuracy(theft.model, parts.test) >= accuracy(victim, parts.test) - 0.02


@pytest.mark.parametrize("kind", [RTAL, RTLL])
def test_a_new_last_layer_owes_nothing_to_the_old_one(kind, victim, few, train_net, changed):
    name, layer = head(victim)
    other = train_net("cnn:width=4", few, 8, epochs=1)
    first, second = (kind(epochs=0).steal(AttackerView.of_model(model, few), rng=generator(0)).model for model in (victim, other))
    assert changed(first, victim) == {f"{name}.{part}" for part, _ in layer.named_parameters()}
    assert torch.equal(head(first)[1].weight, head(second)[1].weight)
    bound = layer.in_features**-0.5  # the uniform initialisation of a linear layer
    assert 0 < float(head(first)[1].weight.detach().abs().max()) <= bound
    assert state_digest(FTAL(epochs=0).steal(AttackerView.of_model(victim, few), rng=generator(0)).model) == state_digest(victim)


def test_smoothed_labels_make_a_less_confident_copy(victim, parts):
    view = AttackerView.of_model(victim, parts.attacker, labels="stolen")
    hard, soft = (
        predict(SmoothLabels(smoothing=s, lr=0.05).steal(view, rng=generator(0)).model, parts.test.pixels).softmax(1).amax(1).mean()
        for s in (0.0, 0.5)
    )
    assert float(soft) < float(hard) - 0.1


def test_adversarial_fine_tuning_makes_a_more_robust_copy(victim, parts):
    view = AttackerView.of_model(victim, parts.attacker)

    def robust(method: FTAL) -> float:
        copy = method.steal(view, rng=generator(0)).model
        x_adv = PGD(eps=0.05, step=0.0125, steps=10).perturb(copy, parts.test.batch(slice(None)), parts.test.labels, rng=generator(1))
        return float((predict(copy, x_adv).argmax(1) == parts.test.labels).float().mean())

    assert robust(AdversarialFinetune(epochs=8, lr=0.05, eps=0.05, step=0.015, steps=5)) >= robust(FTAL(epochs=8, lr=0.05)) + 0.08


def test_the_first_phase_of_regularisation_shrinks_the_weights(victim, parts):
    view = AttackerView.of_model(victim, parts.attacker)

    def norm(decay: float) -> float:
        copy = Regularise(decay=decay, phase=2, epochs=0).steal(view, rng=generator(0)).model
        return float(sum(layer.weight.detach().square().sum() for _, layer in weight_layers(copy)))

    assert norm(1.0) < 0.9 * norm(0.0)


def test_weight_shifting_takes_the_mean_filter_away(victim, mlp_victim, few, changed):
    method = WeightShift(shift=1.5, noise=0.0, epochs=0)
    copy = method.steal(AttackerView.of_model(victim, few), rng=generator(0)).model
    convolutions = [(name, m) for name, m in victim.named_modules() if isinstance(m, nn.Conv2d)]
    for name, old in convolutions:
        wanted = old.weight - 1.5 * old.weight.mean(0, keepdim=True)
        assert torch.allclose(copy.get_submodule(name).weight, wanted, atol=1e-6)
    assert changed(copy, victim) == {f"{name}.weight" for name, _ in convolutions}
    flat = method.steal(AttackerView.of_model(mlp_victim, few), rng=generator(0)).model
    assert changed(flat, mlp_victim) == {"body.1.weight", "body.3.weight"}  # not the last layer
    noisy = WeightShift(shift=0.0, noise=0.5, epochs=0).steal(AttackerView.of_model(mlp_victim, few), rng=generator(0)).model
    drawn = (noisy.body[1].weight - mlp_victim.body[1].weight).detach()
    assert float(drawn.std() / mlp_victim.body[1].weight.detach().std()) == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_pruned_weights_stay_zero_while_the_others_are_trained(scope, victim, few):
    theft = PruneFinetune(sparsity=0.4, scope=scope, epochs=2, batch=16).steal(AttackerView.of_model(victim, few), rng=generator(0))
    layers = [(old.weight, new.weight) for (_, old), (_, new) in zip(weight_layers(victim), weight_layers(theft.model), strict=True)]
    zeros = sum(int((new == 0).sum()) for _, new in layers)
    assert zeros == theft.log["zeroed"]
    assert theft.log["sparsity"] == pytest.approx(0.4, abs=0.01)
    assert all(bool((new[new != 0] != old[new != 0]).any()) for old, new in layers if bool((new != 0).any()))
    assert all(not parameter._backward_hooks for parameter in theft.model.parameters())


@pytest.mark.parametrize("arch", ["cnn:width=4", "resnet14:width=4", "mlp:width=24", "wrn16:width=1", "mobilenet:width=4"])
def test_removed_channels_are_the_silent_ones_and_stay_silent(arch, few, train_net):
    net = train_net(arch, few, 5, epochs=1)
    before = activity(net, late(net), few.pixels)
    theft = FinePrune(ratio=0.5, epochs=2, batch=16).steal(AttackerView.of_model(net, few), rng=generator(0))
    after = activity(theft.model, late(theft.model), few.pixels)
    gone = before.argsort(stable=True)[: theft.log["removed"]]
    assert theft.log["removed"] == round(0.5 * len(before))
    if arch.startswith(("cnn", "resnet", "mlp", "wrn")):  # after the last sum or ReLU nothing revives them
        assert float(after[gone].max()) == 0
    kept = torch.ones(len(before), dtype=torch.bool).index_fill(0, gone, value=False)
    assert float(after[kept].max()) > 0


def test_transfer_answers_the_classes_of_the_thief(victim, parts):
    coarse = ImageSet(parts.attacker.pixels, (parts.attacker.labels > 0).long(), ("red", "other"), "coarse")
    theft = Transfer(epochs=5).steal(AttackerView.of_model(victim, coarse), rng=generator(0))
    assert isinstance(theft.model, Net)
    assert theft.model.classes == 2
    answers = predict(theft.model, parts.test.pixels)
    assert answers.shape[1] == 2
    assert float((answers.argmax(1) == (parts.test.labels > 0)).float().mean()) > 0.85
    only = Transfer(epochs=1, only_head=True).steal(AttackerView.of_model(victim, coarse), rng=generator(0)).model.state_dict()
    assert all(torch.equal(value, only[name]) for name, value in victim.state_dict().items() if name.partition(".14.")[1] == "")


def test_a_single_layer_has_no_head_to_replace(few):
    net = nn.Linear(3, 2)
    with pytest.raises(InputError, match="single layer"):
        Transfer().steal(AttackerView.of_model(net, few), rng=generator(0))


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (FinePrune, {"ratio": 1.0}), (PruneFinetune, {"sparsity": 2.0}), (PruneFinetune, {"scope": "net"}), (WeightShift, {"shift": -1.0}),
        (WeightShift, {"noise": -1.0}), (Regularise, {"decay": -0.1}), (Regularise, {"phase": -1}), (AdversarialFinetune, {"eps": 0.0}),
        (AdversarialFinetune, {"steps": 0}), (AdversarialFinetune, {"step": -1.0}),
    ],
)  # fmt: skip
def test_bad_settings_are_refused(kind: type, fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        kind.configured(fields)


@pytest.mark.parametrize(
    "kind", [FTAL, FTLL, RTAL, RTLL, FinePrune, PruneFinetune, Regularise, SmoothLabels, WeightShift, AdversarialFinetune]
)
def test_impossible_training_is_refused_before_a_query(kind: type, victim: Net, few: ImageSet) -> None:
    view = AttackerView.of_model(victim, few, labels="stolen")
    for fields in ({"epochs": -1}, {"lr": 0.0}, {"batch": 0}):
        with pytest.raises(UsageError):
            kind.configured(fields).run(view, rng=generator(0))
    with pytest.raises(UsageError):
        SmoothLabels(smoothing=1.0).run(view, rng=generator(0))
    assert view.victim.queries == 0
