"""The thefts by query, the votes and the sequences: what they learn, what they ask, what they refuse."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from modelward.attacks.theft import (
    Combined,
    Distil,
    Ensemble,
    ExtractAdversarial,
    ExtractCross,
    ExtractLabels,
    ExtractProbabilities,
    ExtractSmooth,
    KnockOff,
)
from modelward.core.errors import AccessError, InputError, UsageError
from modelward.core.families import TheftMethod
from modelward.core.guard import predict, state_digest
from modelward.core.images import ImageSet
from modelward.core.rng import generator
from modelward.core.suspect import Access, Suspect
from modelward.core.view import AttackerView
from modelward.data.study import Study
from modelward.models import Net
from modelward.models.assembly import Assembly

MLP = "mlp:width=16"
QUERYING = [
    ExtractLabels(epochs=8),
    ExtractProbabilities(epochs=8),
    ExtractSmooth(epochs=8, copies=3),
    Distil(epochs=20),
    ExtractAdversarial(epochs=25, steps=2, eps=0.02, step=0.01),
    Ensemble(fields={"epochs": 8}),
    Ensemble(fields={"epochs": 8}, vote="soft"),
]


def agreement(model: torch.nn.Module, victim: Net, images: ImageSet) -> float:
    return float((predict(model, images.pixels).argmax(1) == predict(victim, images.pixels).argmax(1)).float().mean())


@pytest.mark.parametrize("method", QUERYING, ids=lambda method: method.card.name)
def test_extraction_learns_the_victims_answers_in_the_thiefs_architecture(method: TheftMethod, victim: Net, parts: Study) -> None:
    view = AttackerView.of_model(victim, parts.attacker, labels="stolen", access=method.needs, arch=MLP)
    theft = method.steal(view, rng=generator(0))
    inside = list(theft.model.parts) if isinstance(theft.model, Assembly) else [theft.model]
    assert all(isinstance(model, Net) and model.arch == MLP for model in inside)
    assert theft.arch == MLP
    assert agreement(theft.model, victim, parts.test) >= 0.85


@pytest.mark.parametrize(
    "method", [m for m in QUERYING if not isinstance(m, Ensemble)] + [KnockOff(), Ensemble()], ids=lambda m: m.card.name
)
def test_extraction_by_queries_needs_an_architecture_and_says_so_before_it_asks(method: TheftMethod, victim: Net, few: ImageSet) -> None:
    view = AttackerView.of_model(victim, few, labels="stolen", access=method.needs)
    with pytest.raises(UsageError, match="AttackerView"):
        method.run(view, rng=generator(0))
    assert view.victim.queries == 0


def test_label_answers_and_soft_answers_train_different_thieves(victim: Net, few: ImageSet) -> None:
    def stolen(method: TheftMethod) -> Tensor:
        return predict(method.steal(AttackerView.of_model(victim, few, labels="stolen"), rng=generator(0)).model, few.pixels)

    answers = [stolen(kind(epochs=2)) for kind in (ExtractLabels, ExtractProbabilities, Distil)]
    assert not any(torch.equal(answers[i], answers[j]) for i in range(3) for j in range(i))


def test_a_view_hands_out_labels_by_its_mode(victim: Net, few: ImageSet) -> None:
    def view(labels: str, access: Access = Access.WEIGHTS) -> AttackerView:
        return AttackerView.of_model(victim, few, labels=labels, access=access)

    assert torch.equal(view("true").targets(), few.labels)
    assert torch.equal(view("stolen").targets(), predict(victim, few.pixels).argmax(1))
    assert torch.allclose(view("stolen").targets(soft=True), predict(victim, few.pixels).softmax(1))
    for attacker, soft in ((view("none"), False), (view("true"), True), (view("stolen", Access.LABEL), True)):
        with pytest.raises(AccessError):
            attacker.targets(soft=soft)
    with pytest.raises(AccessError):
        _ = view("stolen", Access.PROBABILITIES).weights


def test_another_architecture_is_another_architecture(victim: Net, mlp_victim: Net, few: ImageSet) -> None:
    method = ExtractCross(epochs=0, other="mlp:width=8")

    def arch(model: Net, **more: Any) -> str | None:
        return method.steal(AttackerView.of_model(model, few, labels="stolen", **more), rng=generator(0)).arch

    assert arch(victim) == "mlp:width=8"
    assert arch(mlp_victim) == "cnn"  # its own choice would be the victim's
    assert arch(mlp_victim, access="label") == "mlp:width=8"  # which it cannot see
    assert arch(mlp_victim, arch="resnet8:width=2") == "resnet8:width=2"
    with pytest.raises(UsageError, match="another architecture"):
        arch(mlp_victim, arch="mlp:width=3")
    with pytest.raises(UsageError):
        ExtractCross(other="alexnet")


def test_smooth_labels_are_averages_over_the_answers_to_changed_queries(few: ImageSet) -> None:
    asked: list[Tensor] = []

    def answer(x: Tensor) -> Tensor:
        asked.append(x)
        return torch.full((len(x),), len(asked) % 2)

    view = AttackerView(Suspect.of_callable(answer, access="label"), few, labels="stolen", arch=MLP)  # type: ignore[arg-type]
    _, targets = ExtractSmooth(copies=4, shift=0)._asked(view, rng=generator(0))
    assert torch.equal(targets, torch.tensor([0.5, 0.5, 0.0]).expand(len(few), 3))
    assert len(asked) == 4
    assert len({batch.numpy().tobytes() for batch in asked}) == 4
    assert all(
        0.02 < float((batch - few.batch(slice(None))).abs().mean()) < 0.05 for batch in asked
    )  # .05 * sqrt(2 / pi), less the clamping


def test_knock_off_asks_about_the_unrelated_images_and_reads_no_label(victim: Net, few: ImageSet, make_blobs: Any) -> None:
    seen: list[Tensor] = []

    def answer(x: Tensor) -> Tensor:
        seen.append(x)
        return predict(victim, x).softmax(1)

    other = make_blobs(30, 77)
    for method, unrelated, count in (
        (KnockOff(epochs=1), other, 30),
        (KnockOff(epochs=1), None, 64),
        (KnockOff(epochs=1, abstract=50), other, 50),
    ):
        view = AttackerView(Suspect.of_callable(answer, access="probabilities"), few, "stolen", MLP, unrelated)  # type: ignore[arg-type]
        assert method.run(view, rng=generator(0)).queries == count
    assert torch.equal(seen[0], other.batch(slice(None)))
    assert torch.equal(seen[1], few.batch(slice(None)))
    assert not torch.equal(seen[2][:30], seen[0])


def test_a_vote_goes_by_labels_then_by_probability() -> None:
    class Fixed(torch.nn.Module):
        def __init__(self, *p: float) -> None:
            super().__init__()
            self.p = torch.tensor(p)

        def forward(self, x: Tensor) -> Tensor:
            return self.p.log().expand(len(x), -1)

    x = torch.zeros(2, 1, 2, 2)
    two_to_one = [Fixed(0.5, 0.4, 0.1), Fixed(0.5, 0.4, 0.1), Fixed(0.01, 0.98, 0.01)]
    assert Ensemble(vote="hard").assemble(two_to_one)(x).argmax(1).tolist() == [0, 0]
    assert Ensemble(vote="soft").assemble(two_to_one)(x).argmax(1).tolist() == [1, 1]
    tie = [Fixed(0.5, 0.4, 0.1), Fixed(0.01, 0.98, 0.01)]
    assert Ensemble(vote="hard").assemble(tie)(x).argmax(1).tolist() == [1, 1]
    assert torch.allclose(Ensemble(vote="soft").assemble(tie)(x)[0].exp(), torch.tensor([0.255, 0.69, 0.055]))


def test_the_members_of_a_vote_differ(victim: Net, few: ImageSet) -> None:
    view = AttackerView.of_model(victim, few, labels="stolen")
    for method in (Ensemble(fields={"epochs": 1}), Ensemble(member="rtal", fields={"epochs": 1})):
        assembly = method.steal(view, rng=generator(0)).model
        assert isinstance(assembly, Assembly)
        assert len({state_digest(part) for part in assembly.parts}) == 3


def test_steps_are_done_in_order_on_what_the_one_before_left(victim: Net, few: ImageSet) -> None:
    view = AttackerView.of_model(victim, few, labels="stolen")
    method = Combined(steps=[["prune", {"sparsity": 0.5}], "permute", ["quantise", {"bits": 4}], "wrap-flip", "wrap-label"])
    theft = method.steal(view, rng=generator(0))
    assert [step["method"] for step in theft.log["steps"]] == ["prune", "permute", "quantise", "wrap-flip", "wrap-label"]
    outer = theft.model
    assert isinstance(outer, Assembly)
    assert isinstance(outer.parts[0], Assembly)
    weight = outer.first.body[0].weight.detach()  # type: ignore[index]
    assert len(weight.unique()) <= 16
    assert float((weight.abs() < 0.03 * weight.abs().max()).float().mean()) >= 0.4
    trained = Combined(steps=[["extract-l", {"epochs": 1}], ["ftal", {"epochs": 1}]]).run(view, rng=generator(0))
    assert trained.queries == 2 * len(few)  # the extraction's and the labels of the second step
    assert trained.value.log["epochs"] == trained.steps == 2


def test_a_thief_with_labels_of_his_own_extracts_from_the_copy_that_he_trained(victim: Net, few: ImageSet) -> None:
    view = AttackerView.of_model(victim, few, labels="true")
    steps = [["ftal", {"epochs": 1, "images": 20}], ["distil", {"epochs": 1}]]
    made = Combined(steps=steps).run(view, rng=generator(0))
    assert made.queries == 0  # the copy is his own
    assert [step["method"] for step in made.value.log["steps"]] == ["ftal", "distil"]
    with pytest.raises(UsageError, match="works with labels stolen, not true"):
        Combined(steps=["distil", "ftal"]).run(view, rng=generator(0))  # the owner's model is not his to ask


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        (["wrap-flip", "ftal"], "wrappers come last"),
        (["pgd"], "no single theft"),
        (["combined"], "no single theft"),
        (["nothing"], "no method"),
        ([["ftal", {"epoch": 1}]], "did you mean 'epochs'"),
        ([], "list of thefts"),
        ("ftal", "list of thefts"),
        ([["ftal", 3]], "a step is a name"),
        ([7], "a step is a name"),
    ],
)
def test_sequences_that_cannot_work_are_refused_before_a_query(steps: Any, words: str, victim: Net, few: ImageSet) -> None:
    view = AttackerView.of_model(victim, few, labels="stolen")
    with pytest.raises(UsageError, match=words):
        Combined(steps=steps).run(view, rng=generator(0))
    assert view.victim.queries == 0


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (ExtractSmooth, {"copies": 0}),
        (ExtractSmooth, {"noise": -1.0}),
        (KnockOff, {"abstract": -1}),
        (ExtractAdversarial, {"eps": 2.0}),
        (Ensemble, {"count": 0}),
        (Ensemble, {"vote": "loud"}),
        (Ensemble, {"fields": "epochs"}),
    ],
)
def test_bad_settings_are_refused(kind: Any, fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        kind.configured(fields)


def test_only_thefts_vote_and_broken_views_are_refused(victim: Net, few: ImageSet) -> None:
    view = AttackerView.of_model(victim, few, labels="stolen")
    with pytest.raises(UsageError, match="no theft"):
        Ensemble(member="pgd").run(view, rng=generator(0))
    with pytest.raises(InputError):
        ExtractLabels(epochs=1).run(AttackerView.of_model(victim, few.take(slice(0)), labels="stolen"), rng=generator(0))
    assert view.victim.queries == 0
