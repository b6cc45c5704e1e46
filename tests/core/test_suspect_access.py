from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from modelward.core.errors import AccessError, InputError
from modelward.core.guard import state_digest
from modelward.core.images import ImageSet
from modelward.core.suspect import Access, Suspect
from modelward.core.view import AttackerView, Labels
from modelward.models import build


@pytest.fixture
def net() -> nn.Module:
    return build("mlp:width=8", classes=3, size=(4, 4), rng=torch.Generator().manual_seed(0))


@pytest.fixture
def x() -> Tensor:
    return torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(1))


def test_weights_grant_everything(net: nn.Module, x: Tensor) -> None:
    suspect = Suspect.of_model(net)
    assert suspect.model is net
    assert torch.equal(suspect.logits(x), net(x))
    assert torch.allclose(suspect.probabilities(x), net(x).softmax(1))
    assert torch.equal(suspect.labels(x), net(x).argmax(1))
    assert suspect.queries == 3 * len(x)


def test_probabilities_hide_the_weights(net: nn.Module, x: Tensor) -> None:
    suspect = Suspect.of_model(net, access="probabilities")
    assert suspect.access is Access.PROBABILITIES
    assert torch.allclose(suspect.probabilities(x).sum(1), torch.ones(5))
    assert torch.equal(suspect.labels(x), net(x).argmax(1))
    with pytest.raises(AccessError, match="weights were asked for"):
        _ = suspect.model
    with pytest.raises(AccessError):
        suspect.logits(x)


def test_labels_hide_the_probabilities(net: nn.Module, x: Tensor) -> None:
    suspect = Suspect.of_model(net, access=Access.LABEL)
    assert torch.equal(suspect.labels(x), net(x).argmax(1))
    assert suspect.labels(x).dtype == torch.int64
    with pytest.raises(AccessError, match="labels only"):
        suspect.probabilities(x)
    with pytest.raises(AccessError):
        _ = suspect.model


@pytest.mark.parametrize("access", [Access.PROBABILITIES, Access.LABEL])
def test_a_refused_question_costs_no_query(net: nn.Module, x: Tensor, access: Access) -> None:
    suspect = Suspect.of_model(net, access=access)
    with pytest.raises(AccessError):
        suspect.logits(x)
    if access is Access.LABEL:
        with pytest.raises(AccessError):
            suspect.probabilities(x)
    assert suspect.queries == 0


def test_a_callable_never_has_weights(x: Tensor) -> None:
    suspect = Suspect.of_callable(lambda x: x.flatten(1)[:, :3].softmax(1), access="weights")
    assert suspect.probabilities(x).shape == (5, 3)
    with pytest.raises(AccessError):
        _ = suspect.model


def test_collected_answers(x: Tensor) -> None:
    probabilities = torch.eye(3)[[0, 1, 2, 0, 1]]
    assert torch.equal(Suspect.of_answers(probabilities).probabilities(x), probabilities)
    assert Suspect.of_answers(probabilities).labels(x).tolist() == [0, 1, 2, 0, 1]
    labels = Suspect.of_answers(torch.tensor([2, 1, 0, 2, 1]))
    assert labels.access is Access.LABEL
    assert labels.labels(x).tolist() == [2, 1, 0, 2, 1]
    with pytest.raises(InputError, match="5 answers were collected but 2 probes"):
        labels.labels(x[:2])


def test_broken_answers_are_refused(x: Tensor) -> None:
    def nan(x: Tensor) -> Tensor:
        return torch.full((len(x), 3), torch.nan)

    for answer in (nan, lambda _: torch.zeros(2, 3)):
        with pytest.raises(InputError, match="answers for 5 queries"):
            Suspect.of_callable(answer, access="probabilities").probabilities(x)
    with pytest.raises(InputError, match=r"shape \(N, K\)"):
        Suspect.of_callable(lambda x: torch.zeros(len(x)), access="probabilities").probabilities(x)


def test_asking_leaves_the_model_alone(net: nn.Module, x: Tensor) -> None:
    net.train()
    first = next(net.parameters()).requires_grad_(requires_grad=False)
    digest = state_digest(net)
    suspect = Suspect.of_model(net)
    suspect.probabilities(x), suspect.labels(x), suspect.logits(x)
    assert state_digest(net) == digest
    assert net.training
    assert [p.requires_grad for p in net.parameters()] == [p is not first for p in net.parameters()]


class Truth(ImageSet):
    """Fails when anybody reads the true labels after it was made."""

    armed = False

    def __getattribute__(self, name: str) -> object:
        if name == "labels" and Truth.armed:
            raise AssertionError("true labels were read")
        return super().__getattribute__(name)


def test_a_thief_without_labels_never_reads_them(net: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    images = Truth(torch.zeros(4, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 1, 2, 0]), ("a", "b", "c"), "toy")
    monkeypatch.setattr(Truth, "armed", True)
    view = AttackerView(Suspect.of_model(net), images, Labels.STOLEN)
    assert torch.equal(view.targets(), net(images.batch(slice(None))).argmax(1))
    assert view.targets(soft=True).shape == (4, 3)
    with pytest.raises(AccessError, match="no labels"):
        AttackerView(Suspect.of_model(net), images, Labels.NONE).targets()


def test_an_attacker_gets_what_his_position_grants(net: nn.Module) -> None:
    images = ImageSet(torch.zeros(4, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 1, 2, 0]), ("a", "b", "c"), "toy")
    owner = AttackerView(Suspect.of_model(net), images)
    assert owner.weights is net
    assert torch.equal(owner.targets(), images.labels)
    with pytest.raises(AccessError, match="true labels are not probabilities"):
        owner.targets(soft=True)
    client = AttackerView(Suspect.of_model(net, access="label"), images, Labels.STOLEN)
    with pytest.raises(AccessError):
        _ = client.weights
    with pytest.raises(AccessError, match="labels only"):
        client.targets(soft=True)
    assert client.victim.queries == 0
