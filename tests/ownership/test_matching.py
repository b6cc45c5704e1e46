"""IPGuard and CAE on a tiny farm: what they promise, what their parts are good for, and controls that must fail."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from modelward.attacks.theft import FTAL, Prune
from modelward.core.errors import InputError, UsageError
from modelward.core.guard import predict, state_digest
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.rng import generator
from modelward.core.suspect import Access, Suspect
from modelward.core.view import AttackerView
from modelward.io.images import png_bytes
from modelward.models import Net
from modelward.ownership import CAE, IPGuard
from modelward.ownership.cae import conferrability, extracted
from modelward.ownership.ipguard import boundary_loss
from modelward.ownership.matching import MatchingMethod, matching_rate, robustness_uniqueness
from modelward.training import Recipe

ARCH = "mlp:width=24"
RECIPE = Recipe(epochs=4, batch=64, lr=0.05)
POINTS = IPGuard(count=40, k=1.0, steps=100, lr=0.02)
EXAMPLES = CAE(count=40, surrogates=4, epochs=4, mixes=1, eps=0.15, steps=30, lr=0.02)
METHODS = pytest.mark.parametrize("method", [POINTS, EXAMPLES, dataclasses.replace(POINTS, variant="paper"),
                                             dataclasses.replace(EXAMPLES, variant="paper")],
                                  ids=["ipguard", "cae", "ipguard, paper", "cae, paper"])  # fmt: skip
rates = st.lists(st.integers(0, 20).map(lambda n: n / 20), min_size=1, max_size=12)


@dataclasses.dataclass(frozen=True)
class Farm:
    """A source, models made from it, and models that were not."""

    source: Net
    nulls: list[Net]
    strangers: list[Net]
    thieves: dict[str, list[nn.Module]]
    probes: ImageSet
    attacker: ImageSet


@pytest.fixture(scope="module")
def farm(make_blobs: Callable[..., ImageSet], train_net: Callable[..., Net]) -> Farm:
    """Return nets that err on a tenth of the images."""
    owner, attacker = (make_blobs(256, seed, noise=75) for seed in (10, 11))
    source = train_net(ARCH, owner, 1)
    view = AttackerView(Suspect.of_model(source), attacker)
    thieves = {
        "tuned": [FTAL(epochs=2, lr=0.02).steal(view, rng=generator(seed)).model for seed in range(3)],
        "pruned": [
            Prune(sparsity=s).steal(AttackerView.of_model(source, attacker, labels="none"), rng=generator(0)).model for s in (0.1, 0.2)
        ],
        "extracted": [extracted(source, attacker, RECIPE, mixes=1, rng=generator(seed)) for seed in range(5)],
    }
    nulls, strangers = (
        [train_net(ARCH, part, first + i) for i in range(n) for part in (owner, attacker)] for first, n in ((100, 13), (300, 4))
    )
    return Farm(source, nulls, strangers, thieves, make_blobs(200, 12, noise=75, name="probes"), attacker)


def enrol(
    method: MatchingMethod, farm: Farm, *, nulls: Sequence[nn.Module] | None = None, thieves: Sequence[nn.Module] = (), seed: int = 0
) -> Key:
    """Return the source's key."""
    return method.protect(farm.source, farm.probes, nulls=farm.nulls if nulls is None else nulls, thieves=thieves, rng=generator(seed))[1]


def matched(method: MatchingMethod, key: Key, models: Sequence[nn.Module]) -> float:
    """Return the mean matching rate of models that answer with labels alone."""
    return float(np.mean([1 - method.verify(Suspect.of_model(model, access="label"), key).statistic for model in models]))


# the statistic


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30))
def test_the_matching_rate_counts(pairs: list[tuple[int, int]]) -> None:
    answers, labels = (torch.tensor(side) for side in zip(*pairs, strict=True))
    assert matching_rate(answers, labels) == pytest.approx(sum(a == b for a, b in pairs) / len(pairs), abs=1e-12)
    with pytest.raises(InputError, match="need as many labels"):
        matching_rate(answers[1:], labels)


@settings(deadline=None, max_examples=40)
@given(rates, rates)
def test_the_area_is_that_of_a_fine_sum(copies: list[float], independents: list[float]) -> None:
    curve, area = robustness_uniqueness(copies, independents)
    held, free = np.array(copies), np.array(independents)
    fine = (np.arange(200) + 0.5) / 200
    assert area == pytest.approx(np.mean([min((held >= t).mean(), (free < t).mean()) for t in fine]), abs=1e-9)
    robust, unique = ([point[i] for point in curve] for i in (1, 2))
    assert robust == sorted(robust, reverse=True)
    assert unique == sorted(unique)
    assert curve[-1][0] == 1


def test_the_area_of_the_extremes() -> None:
    assert robustness_uniqueness([1.0] * 3, [0.0] * 5)[1] == 1
    assert robustness_uniqueness([0.0], [1.0])[1] == 0
    same = np.linspace(0, 1, 201)
    assert robustness_uniqueness(same, same)[1] == pytest.approx(0.25, abs=0.01)
    for copies, independents in (([], [0.5]), ([0.5], []), ([1.5], [0.5]), ([float("nan")], [0.5])):
        with pytest.raises(InputError, match="matching rates are numbers"):
            robustness_uniqueness(copies, independents)


# IPGuard


def test_the_loss_is_zero_past_the_boundary_only() -> None:
    logits = torch.tensor([[0.0, 2.0, -1.0], [0.0, 1.9, -1.0], [0.0, 2.0, 0.5], [0.0, 9.0, 0.5]])
    i, j = torch.zeros(4, dtype=torch.int64), torch.ones(4, dtype=torch.int64)
    assert boundary_loss(logits, i, j, 2.0).tolist() == pytest.approx([0, 0.1, 0.5, 0.5])
    assert boundary_loss(logits[:, :2], i, j, 2.0).tolist() == pytest.approx([0, 0.1, 0, 0])
    leaf = logits[:, :2].clone().requires_grad_()
    boundary_loss(leaf, i, j, 5.0).sum().backward()
    assert bool(torch.isfinite(leaf.grad).all())  # type: ignore[arg-type]


@pytest.mark.parametrize("k", [0.0, 1.0, 3.0])
def test_hardened_points_are_k_past_the_boundary_in_the_file(farm: Farm, k: float) -> None:
    key = enrol(dataclasses.replace(POINTS, k=k, references=0, steps=300), farm)
    starts = predict(farm.source, farm.probes.pixels[key.tensors["index"]])
    logits = predict(farm.source, key.tensors["probes"])
    i, j = starts.argmax(1), starts.argmin(1)
    assert bool((boundary_loss(logits, i, j, k) == 0).all())
    if k:
        assert torch.equal(key.tensors["labels"], j)
        assert bool((logits.gather(1, j[:, None]) - logits.gather(1, i[:, None]) >= k).all())


def test_a_loss_of_the_file_loses_no_point_to_rounding(farm: Farm) -> None:
    lost = {}
    for variant in ("paper", "hardened"):
        facts = enrol(dataclasses.replace(POINTS, variant=variant, count=100, pool=1, steps=300), farm).facts["crafting"]
        lost[variant] = facts["made"] - facts["reached"]
    assert lost["hardened"] == 0
    assert lost["paper"] > 0


def test_points_further_past_the_boundary_hold_longer_and_are_shared_more(farm: Farm) -> None:
    near, far = (dataclasses.replace(POINTS, variant="paper", count=100, k=k, steps=300) for k in (0.0, 4.0))
    keys = {method.k: enrol(method, farm) for method in (near, far)}
    assert matched(far, keys[4.0], farm.thieves["tuned"]) >= matched(near, keys[0.0], farm.thieves["tuned"]) + 0.05
    assert matched(far, keys[4.0], farm.strangers) > matched(near, keys[0.0], farm.strangers)


def test_without_crafting_strangers_answer_as_copies_do(farm: Farm) -> None:
    plain = dataclasses.replace(POINTS, variant="paper", k=0.3, steps=0, count=100)
    crafted = dataclasses.replace(plain, steps=100)
    apart = {m.steps: matched(m, k := enrol(m, farm), farm.thieves["tuned"]) - matched(m, k, farm.strangers) for m in (plain, crafted)}
    assert apart[100] >= 0.35
    assert apart[0] <= 0.15


def test_references_make_points_that_are_the_sources_own(farm: Farm) -> None:
    chosen, drawn = POINTS, dataclasses.replace(POINTS, references=0)
    assert matched(chosen, enrol(chosen, farm), farm.strangers) < matched(drawn, enrol(drawn, farm), farm.strangers)


def test_starts_and_targets(farm: Farm) -> None:
    noise = enrol(dataclasses.replace(POINTS, variant="paper", start="noise", steps=0), farm)
    assert set(noise.tensors["index"].tolist()) == {-1}
    assert float((noise.tensors["probes"].float() / 255).std()) == pytest.approx(1 / 12**0.5, abs=0.01)
    plain = enrol(dataclasses.replace(POINTS, variant="paper", steps=0), farm)
    assert torch.equal(plain.tensors["probes"], farm.probes.pixels[plain.tensors["index"]])
    loose = enrol(dataclasses.replace(POINTS, target="random", references=0), farm)
    own = predict(farm.source, farm.probes.pixels[loose.tensors["index"]])
    assert bool((loose.tensors["labels"] != own.argmax(1)).all())
    assert bool((loose.tensors["labels"] != own.argmin(1)).any())


# CAE


def test_conferrability_by_hand() -> None:
    surrogates, references = torch.tensor([[1.0, 0.8], [0.5, 0.0]]), torch.tensor([[0.2, 1.0], [0.0, 1.0], [0.1, 1.0]])
    assert conferrability(surrogates, references).tolist() == pytest.approx([0.75 * 0.9, 0.0])
    assert conferrability(surrogates, torch.zeros(0, 2)).tolist() == pytest.approx([0.75, 0.4])


def test_surrogates_learn_from_the_source_alone(farm: Farm) -> None:
    lying = dataclasses.replace(farm.attacker, labels=farm.attacker.labels.flip(0))
    made = [extracted(farm.source, images, RECIPE, mixes=1, rng=generator(3)) for images in (farm.attacker, lying)]
    assert state_digest(made[0]) == state_digest(made[1]) != state_digest(farm.source)
    other = extracted(farm.source, farm.attacker, RECIPE, mixes=1, rng=generator(4))
    assert state_digest(other) != state_digest(made[0])
    agreement = [float((predict(net, farm.probes.pixels).argmax(1) == predict(farm.source, farm.probes.pixels).argmax(1)).float().mean())
                 for net in made]  # fmt: skip
    assert min(agreement) > 0.8


def test_examples_stay_within_eps_and_leave_the_class(farm: Farm) -> None:
    key = enrol(EXAMPLES, farm)
    change = (key.tensors["probes"].float() - farm.probes.pixels[key.tensors["index"]].float()).abs().max()
    assert float(change) <= 0.15 * 255 + 0.5
    assert bool((key.tensors["labels"] != farm.probes.labels[key.tensors["index"]]).all())


def test_examples_confer_to_surrogates_held_out_and_points_near_the_boundary_do_not(farm: Farm) -> None:
    """Three classes and 200 images leave less to confer than the .4 that the recipe `fingerprints` asks for on real images."""
    gaps = {}
    for method in (EXAMPLES, dataclasses.replace(EXAMPLES, variant="paper"), POINTS):
        keys = [enrol(method, farm, seed=seed) for seed in range(2)]
        gaps[method.card.name, method.variant] = np.mean(
            [matched(method, key, farm.thieves["extracted"]) - matched(method, key, farm.strangers) for key in keys]
        )
    assert gaps["cae", "hardened"] >= 0.25
    assert gaps["cae", "hardened"] >= gaps["cae", "paper"] + 0.05  # judged by nets that did not craft
    assert gaps["ipguard", "hardened"] <= 0.1


def test_plain_images_confer_nothing(farm: Farm) -> None:
    with pytest.raises(InputError, match="cae: only 0 crafted images hold as 8-bit files, 10 are needed; pass more images"):
        enrol(dataclasses.replace(EXAMPLES, steps=0), farm)


# both


@METHODS
def test_the_source_matches_all_probes_after_a_png_round_trip(method: MatchingMethod, farm: Farm) -> None:
    key = enrol(method, farm)
    read = [np.asarray(Image.open(io.BytesIO(png_bytes(image.numpy())))) for image in method.probes(key)]
    pixels = torch.from_numpy(np.stack(read)).permute(0, 3, 1, 2).contiguous()
    assert matching_rate(predict(farm.source, pixels).argmax(1), key.tensors["labels"]) == 1
    assert method.verify(farm.source, key).statistic == 0


@METHODS
def test_copies_match_more_than_any_stranger(method: MatchingMethod, farm: Farm) -> None:
    key = enrol(method, farm, thieves=farm.thieves["tuned"][:1])
    found = {name: [method.verify(model, key) for model in models] for name, models in (*farm.thieves.items(), ("others", farm.strangers))}
    worst = max(v.statistic for v in (*found["tuned"][1:], *found["pruned"]))
    assert worst < min(v.statistic for v in found["others"])
    assert all(v.stolen for v in found["tuned"])
    assert method.variant == "paper" or np.mean([1 - v.statistic for v in found["others"]]) <= 0.5


@METHODS
def test_models_that_craft_calibrate_nothing_and_the_others_craft_nothing(method: MatchingMethod, farm: Farm) -> None:
    key, split = enrol(method, farm), method.siblings(len(farm.nulls))
    scores = key.facts["scores"]["label"]
    assert len(scores["nulls"]) + len(scores["holdout"]) == len(farm.nulls) - split
    assert split == (0 if (method.card.name, method.variant) == ("ipguard", "paper") else 6)
    again = enrol(method, farm, nulls=[*farm.nulls[:split], *farm.nulls[:split:-1], farm.nulls[split]], thieves=farm.thieves["tuned"])
    assert torch.equal(again.tensors["probes"], key.tensors["probes"])
    rest = sorted(1 - matching_rate(predict(net, key.tensors["probes"]).argmax(1), key.tensors["labels"]) for net in farm.nulls[split:])
    assert sorted((*scores["nulls"], *scores["holdout"])) == pytest.approx(rest)


@METHODS
def test_labels_are_all_that_is_asked(method: MatchingMethod, farm: Farm) -> None:
    key = enrol(method, farm)
    asked: list[Tensor] = []

    def answer(x: Tensor) -> Tensor:
        asked.append(x)
        return predict(farm.thieves["tuned"][0], x).argmax(1)

    verdicts = [method.verify(Suspect.of_callable(answer, access="label"), key)]
    verdicts += [method.verify(Suspect.of_model(farm.thieves["tuned"][0], access=access), key) for access in Access]
    assert len({v.statistic for v in verdicts}) == 1
    assert [len(x) for x in asked] == [len(method.probes(key))]
    assert method.needs is Access.LABEL


@pytest.mark.parametrize(
    ("cls", "fields", "words"),
    [
        (IPGuard, {"k": -1.0}, "k must be >= 0"), (IPGuard, {"start": "zeros"}, "start is data or noise"), (IPGuard, {"pool": 0}, "pool must be"),
        (IPGuard, {"target": "best"}, "target least or random"), (IPGuard, {"count": 3}, "count must be >= 10"), (IPGuard, {"alpha": 1.0}, "alpha"),
        (CAE, {"surrogates": 1}, "surrogates must be >= 2"), (CAE, {"eps": 0.0}, r"eps must be in \(0, 1\]"), (CAE, {"dropout": 1.0}, "dropout"),
        (CAE, {"epochs": 0}, "epochs"), (CAE, {"references": -1}, "references"), (CAE, {"variant": "best"}, "variant is"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(cls: type[MatchingMethod], fields: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        cls(**fields)  # type: ignore[arg-type]
