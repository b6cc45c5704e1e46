"""Windows of confidence: where they lie, whose they are, and images crafted into them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelward.core.errors import InputError, UsageError
from modelward.core.guard import predict
from modelward.core.rng import generator
from modelward.data.study import Study
from modelward.imaging.codecs import roundtrip
from modelward.imaging.quantise import to_float
from modelward.locks.probing import Crafting
from modelward.locks.windows import assign, inside, log_odds, null_answers, place, require_windows
from modelward.models import Net

LOGITS = st.lists(st.floats(-30, 30, width=32), min_size=2, max_size=6)


@given(LOGITS)
def test_log_odds_are_those_of_the_softmax_and_keep_digits_where_it_has_none(values: list[float]) -> None:
    logits = torch.tensor([values])
    for label in range(len(values)):
        odds = log_odds(logits, torch.tensor([label]))
        assert odds.sigmoid().item() == pytest.approx(logits.double().softmax(1)[0, label].item(), rel=1e-9, abs=1e-15)
    assert log_odds(torch.tensor([[90.0, 0.0]]), torch.tensor([0])).item() == 90


@given(st.floats(0.002, 0.2), st.floats(0, 1), st.integers(2, 5), st.integers(1, 200), st.integers(0, 2**20))
@settings(max_examples=40, deadline=None)
def test_windows_keep_inside_their_span_and_apart(width: float, share: float, classes: int, keep: int, seed: int) -> None:
    nulls = 3 * torch.randn((60, classes), generator=generator(seed))
    windows = place(nulls, width=width, guard=share * width, keep=keep)
    chances = windows[:, 1:].sigmoid()
    assert chances.min() >= 0.5 - 1e-9
    assert chances.max() <= 0.95 + 1e-9
    assert torch.allclose(chances[:, 1] - chances[:, 0], torch.tensor(width, dtype=torch.float64))
    for label in range(classes):
        mine = chances[windows[:, 0] == label].sort(0).values
        assert bool((mine[1:, 0] - mine[:-1, 1] >= share * width - 1e-9).all())
        assert 1 <= len(mine) <= -(-keep // classes)


def test_windows_lie_where_nulls_do_not() -> None:
    chances = torch.cat([0.5 + 0.2 * torch.rand(500, generator=generator(0)), torch.tensor([0.9])])  # crowded below .7
    nulls = torch.stack([torch.zeros(501), chances.logit()], 1)
    windows = place(nulls, width=0.02, guard=0.005, keep=16)
    mine = windows[windows[:, 0] == 1]
    assert bool((mine[:, 1].sigmoid() > 0.69).all())
    answers = nulls.repeat_interleave(len(windows), 0), windows.repeat(len(nulls), 1)
    assert int(inside(*answers).sum()) <= 1


def test_users_windows_hang_on_secret_and_name_and_run_out_at_the_end() -> None:
    windows = place(torch.zeros(1, 5), width=0.05, guard=0.0, keep=10)  # two a class
    taken: list[torch.Tensor] = []
    for number in range(len(windows)):
        taken.append(assign(b"0" * 32, str(number), windows, 1, taken))
    assert len({tuple(row[0].tolist()) for row in taken}) == len(windows) == 10
    with pytest.raises(UsageError, match="no windows are left for late"):
        assign(b"0" * 32, "late", windows, 1, taken)
    with pytest.raises(UsageError, match="11 probes a user need as many windows"):
        assign(b"0" * 32, "ann", windows, 11)
    anns = assign(b"0" * 32, "ann", windows, 4)
    assert len(anns[:, 0].unique()) == 4  # as many classes as there are
    assert not torch.equal(anns, assign(b"1" * 32, "ann", windows, 4))
    assert not torch.equal(anns, assign(b"0" * 32, "bob", windows, 4))


def test_probes_are_in_their_windows_as_files_and_near_where_they_began(victim: Net, parts: Study) -> None:
    nulls = null_answers(victim, parts.owner, count=32, eps=0.1, rng=generator(0))
    windows = place(nulls, width=0.02, guard=0.005, keep=30)[:20]
    seeds = parts.owner.pixels[:16]
    made = Crafting(steps=60).craft(victim, seeds, windows, rng=generator(0))
    assert bool(made.found.all())
    logits = predict(victim, roundtrip(made.pixels, "png"))
    assert bool(inside(logits, windows).all())
    assert bool(inside(logits, windows, slack=-1e-3).all())  # with room for another machine's rounding
    apart = (to_float(made.pixels)[:, None] - to_float(seeds)[None]).flatten(2).norm(dim=2)
    assert bool(
        (apart - made.distances[:, None]).abs().min(1).values.max() < 1e-4
    )  # each is so far from one of the images it may have begun at
    assert made.distances.max() < apart.median()
    again = Crafting(steps=60).craft(victim, seeds, windows, rng=generator(0))
    assert torch.equal(again.pixels, made.pixels)
    lazy = Crafting(steps=1, turns=1).craft(victim, seeds, windows, rng=generator(0))
    assert int(lazy.found.sum()) <= 2  # the null control: without a search nothing lies in a window


def test_a_search_that_cannot_begin_or_windows_that_are_none_are_refused(victim: Net, parts: Study) -> None:
    answers = predict(victim, parts.owner.pixels).argmax(1)
    same = parts.owner.pixels[answers == 1][:4]
    with pytest.raises(InputError, match="every image to begin at is of the class"):
        Crafting(steps=1).craft(victim, same, torch.tensor([[1.0, 0.0, 1.0]], dtype=torch.float64), rng=generator(0))
    with pytest.raises(UsageError, match="no window of width"):
        place(torch.zeros(1, 2), width=0.46, guard=0.0, keep=1)
    for rows in ([], [[1, 2]], [["a", 0, 1]], [[-1, 0, 1]], [[3, 0, 1]], [[0, float("nan"), 1]]):
        with pytest.raises(InputError, match="windows of this credential"):
            require_windows(rows, 3)
