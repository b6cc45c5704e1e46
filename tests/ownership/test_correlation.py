"""Sample correlation against hand-computed cases, numpy and the invariances of the paper."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from modelward.core.errors import InputError, UsageError
from modelward.core.rng import generator
from modelward.ownership.correlation import (
    TOP,
    correlation,
    distance,
    log_probabilities,
    matched_temperature,
    overlap,
    shared_deviation,
    view_of,
)

KERNELS = ("cos", "rbf")
FIRST = torch.sin(torch.arange(40, dtype=torch.float64)).view(8, 5)
SECOND = torch.sin(1.01 * torch.arange(40, dtype=torch.float64)).view(8, 5)
shapes = st.tuples(st.integers(2, 20), st.integers(2, 7), st.integers(0, 2**31))


def outputs(n: int, k: int, seed: int) -> Tensor:
    """Return logits (n, k) in double precision."""
    return 3 * torch.randn(n, k, generator=generator(seed), dtype=torch.float64)


def test_golden_anchor_of_the_paper_and_its_halved_form() -> None:
    value = distance(correlation(FIRST), correlation(SECOND))
    assert value == pytest.approx(0.076824, abs=5e-7)
    assert value / 2 == pytest.approx(0.038412, abs=5e-7)
    assert distance(correlation(FIRST) / 2, correlation(SECOND) / 2) == pytest.approx(value / 2, rel=1e-12)


def test_single_precision_keeps_the_anchor() -> None:
    assert distance(correlation(FIRST.float()), correlation(SECOND.float())) == pytest.approx(0.076824, abs=1e-6)


@pytest.mark.parametrize("kernel", KERNELS)
def test_against_numpy(kernel: str) -> None:
    x = FIRST.numpy()
    unit = x / np.sqrt((x * x).sum(1))[:, None]
    squares = ((unit[:, None] - unit[None]) ** 2).sum(2)
    expected = squares / 2 if kernel == "cos" else np.exp(-squares)  # |u - w|^2 = 2 - 2 cos
    np.testing.assert_allclose(correlation(FIRST, kernel).numpy(), expected, atol=1e-12)


def test_by_hand() -> None:
    rows = torch.tensor([[1.0, 0.0], [0.0, 5.0], [-2.0, 0.0]])
    assert correlation(rows).tolist() == [[0, 1, 2], [1, 0, 1], [2, 1, 0]]
    rbf = correlation(rows, "rbf")
    assert torch.allclose(rbf, torch.exp(torch.tensor([[0.0, -2, -4], [-2, 0, -2], [-4, -2, 0]])))


@settings(max_examples=40, deadline=None)
@given(shapes)
def test_shape_of_the_matrix(shape: tuple[int, int, int]) -> None:
    for kernel, diagonal, low, high in (("cos", 0.0, 0.0, 2.0), ("rbf", 1.0, 0.0, 1.0)):
        matrix = correlation(outputs(*shape), kernel)
        assert matrix.shape == (shape[0], shape[0])
        assert float((matrix - matrix.T).abs().max()) <= 4 * torch.finfo(torch.float64).eps  # the product is summed in another order
        assert bool((matrix.diagonal() == diagonal).all())
        assert low <= float(matrix.min()) <= float(matrix.max()) <= high


@settings(max_examples=40, deadline=None)
@given(shapes, st.sampled_from(KERNELS))
def test_scale_of_a_sample_and_order_of_classes_do_not_matter(shape: tuple[int, int, int], kernel: str) -> None:
    raw, rng = outputs(*shape), generator(shape[2] + 1)
    scales = 10 ** (4 * torch.rand(len(raw), 1, generator=rng, dtype=torch.float64) - 2)
    changed = (raw * scales)[:, torch.randperm(raw.shape[1], generator=rng)]
    assert distance(correlation(raw, kernel), correlation(changed, kernel)) <= 1e-12


@settings(max_examples=40, deadline=None)
@given(shapes, st.sampled_from(KERNELS))
def test_distance_is_a_metric(shape: tuple[int, int, int], kernel: str) -> None:
    n, k, seed = shape
    a, b, c = (correlation(outputs(n, k, seed + i), kernel) for i in range(3))
    assert distance(a, a) == 0.0
    assert distance(a, b) == distance(b, a) >= 0
    assert distance(a, c) <= distance(a, b) + distance(b, c) + 1e-12


def test_models_with_other_numbers_of_classes_can_be_compared() -> None:
    assert 0 < distance(correlation(outputs(9, 3, 0)), correlation(outputs(9, 7, 1))) < 2


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_row_of_zeros_is_refused(kernel: str) -> None:
    rows = FIRST.clone()
    rows[3] = 0
    with pytest.raises(InputError, match="1 of 8 outputs are all zeros"):
        correlation(rows, kernel)


def test_unknown_words_and_other_numbers_of_probes_are_refused() -> None:
    with pytest.raises(UsageError, match="kernel is cos or rbf"):
        correlation(FIRST, "sine")
    with pytest.raises(InputError, match="8 and 5 probes"):
        distance(correlation(FIRST), correlation(SECOND[:5]))
    with pytest.raises(UsageError, match="view is logits"):
        view_of(FIRST, "logit")
    with pytest.raises(InputError, match="view='label'"):
        view_of(torch.tensor([0, 1]), "softmax")


@settings(max_examples=40, deadline=None)
@given(shapes)
def test_matched_temperature_makes_the_mean_top_probability_seventy_percent(shape: tuple[int, int, int]) -> None:
    logits = outputs(*shape).float()
    temperature = matched_temperature(logits)
    assert float((logits / temperature).softmax(1).amax(1).mean()) == pytest.approx(TOP, abs=2e-3)
    assert matched_temperature(8 * logits) == pytest.approx(8 * temperature, rel=1e-2)


def test_matched_temperature_ends_at_the_grid_when_nothing_matches() -> None:
    flat = torch.zeros(4, 3)
    assert matched_temperature(flat) == pytest.approx(1e-3, rel=0.01)
    assert matched_temperature(torch.tensor([[1e6, 0.0, 0.0]])) == pytest.approx(1e3, rel=0.01)


def test_centred_view_has_mean_zero_and_differs_from_the_plain_one_by_a_constant() -> None:
    plain, centred = (view_of(FIRST, view, are_logits=True) for view in ("temp", "temp_c"))
    assert torch.allclose(centred.mean(0), torch.zeros(5), atol=1e-6)
    assert torch.allclose(plain - centred, plain.mean(0).expand(8, 5), atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(shapes)
def test_probabilities_and_logits_give_the_same_matrix(shape: tuple[int, int, int]) -> None:
    logits = outputs(*shape).float()
    probabilities = logits.double().softmax(1)
    for view in ("logp", "softmax", "temp", "label"):
        first, second = view_of(logits, view, are_logits=True), view_of(probabilities, view)
        assert distance(correlation(first), correlation(second)) <= 1e-4


def test_zero_probabilities_stay_finite_and_keep_their_order() -> None:
    answers = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.25, 0.25], [0.98, 0.02, 0.0]])
    logs = log_probabilities(answers)
    assert bool(torch.isfinite(logs).all())
    assert float(logs.min()) == pytest.approx(np.log(0.01), rel=1e-6)  # half the smallest positive answer
    assert torch.equal(logs[1], answers[1].log())
    assert bool(torch.isfinite(log_probabilities(torch.eye(3))).all())


def test_label_view_by_hand_and_from_each_kind_of_answer() -> None:
    labels = torch.tensor([0, 2, 2])
    high, low = np.exp(1.01), np.exp(0.01)
    top, rest = high / (high + 2 * low), low / (high + 2 * low)
    expected = torch.tensor([[top, rest, rest], [rest, rest, top], [rest, rest, top]], dtype=torch.float32)
    view = view_of(labels, "label", classes=3)
    assert torch.allclose(view, expected)
    assert torch.equal(view_of(5 * torch.eye(3)[labels], "label", are_logits=True), view)
    assert torch.equal(view_of(0.1 + 0.7 * torch.eye(3)[labels], "label"), view)
    assert view_of(torch.tensor([4, 0]), "label", classes=3).shape == (2, 5)


@settings(max_examples=40, deadline=None)
@given(shapes, st.sampled_from(KERNELS))
def test_overlap_is_the_inner_product_of_the_similarity_matrices(shape: tuple[int, int, int], kernel: str) -> None:
    n, k, seed = shape
    first, second = outputs(n, k, seed), outputs(n, k + 1, seed + 1)
    similar = [1 - correlation(o) if kernel == "cos" else correlation(o, "rbf") for o in (first, second)]
    assert overlap(first, second, kernel) == pytest.approx(float((similar[0] * similar[1]).sum()), rel=1e-9, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(KERNELS))
def test_shared_deviation_is_the_projection_and_one_for_the_source(seed: int, kernel: str) -> None:
    suspect, source, *siblings = (outputs(12, 4, seed + i) for i in range(5))
    similar = [1 - correlation(o) if kernel == "cos" else correlation(o, "rbf") for o in (suspect, source, *siblings)]
    mean = torch.stack(similar[2:]).mean(0)
    own = similar[1] - mean
    expected = float(((similar[0] - mean) * own).sum() / own.square().sum())
    assert shared_deviation(suspect, source, siblings, kernel) == pytest.approx(expected, rel=1e-8, abs=1e-8)
    assert shared_deviation(source, source, siblings, kernel) == pytest.approx(1, rel=1e-9)
    means = [shared_deviation(sibling, source, siblings, kernel) for sibling in siblings]
    assert sum(means) / len(means) == pytest.approx(0, abs=1e-8)  # the siblings themselves are at 0 on average


def test_a_source_like_its_siblings_is_refused() -> None:
    with pytest.raises(InputError, match="answers like its siblings"):
        shared_deviation(FIRST, SECOND, [SECOND, 2 * SECOND])
