"""A net that was trained on bytes in BGR, from intake to the verdict: what goes wrong is told, and the options mend it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from modelward.audit import judge
from modelward.core.guard import predict
from modelward.core.rng import generator
from modelward.data.study import Study
from modelward.evaluation.work_clean import GUESSES, intake_checks
from modelward.io.safetensors import save_tensors
from modelward.models import Convention, Net, load_model
from modelward.ownership import SACJC

OUTSIDE = Convention(range=(0, 255), channels="bgr", mean=(128,))


@pytest.fixture(scope="session")
def foreign(victim: Net, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return bare weights of the victim that expect bytes in BGR less 128: the first layer and the normalisation are turned over."""
    state = {name: tensor.clone() for name, tensor in victim.body.state_dict().items()}
    # the victim's own (x - .5) / .25 is (255 x - 127.5) / 63.75; the half grey level between is left
    state["0.weight"] = state["0.weight"].flip(1) / 63.75
    path = tmp_path_factory.mktemp("foreign") / "foreign.safetensors"
    save_tensors(path, {f"body.{name}": tensor for name, tensor in state.items()})
    return path


def test_the_options_mend_it(foreign: Path, victim: Net, parts: Study) -> None:
    bare, mended = (load_model(foreign, "cnn", like=(3, 8, 8), convention=convention).model for convention in (None, OUTSIDE))
    right = predict(victim, parts.test.pixels).argmax(1)
    assert float((predict(mended, parts.test.pixels).argmax(1) == right).float().mean()) > 0.98
    assert float((predict(bare, parts.test.pixels).argmax(1) == right).float().mean()) < 0.6


def test_intake_guesses_what_it_expects(foreign: Path, victim: Net, parts: Study) -> None:
    bare = load_model(foreign, "cnn", like=(3, 8, 8)).model
    checks = {check["name"]: check for check in intake_checks(bare, parts.test)}
    assert checks["input range"]["status"] == "failed"
    assert "pass --range 0,255 --channels bgr --mean" in checks["input range"]["fix"]
    plain = {check["name"]: check["status"] for check in intake_checks(victim, parts.test)}
    assert (plain["input range"], plain["channel order"]) == ("passed", "passed")


@pytest.mark.parametrize("name", GUESSES)
def test_every_guess_is_found(name: str, victim: Net, parts: Study) -> None:
    option, convention = GUESSES[name]
    low, high = convention.range
    # a net that undoes the convention before it looks: it expects just that
    scale = [s / (high - low) for s in convention.std * (3 // len(convention.std))]
    shift = [(m - low) / (high - low) for m in convention.mean * (3 // len(convention.mean))]
    order = (2, 1, 0) if convention.channels == "bgr" else None
    inner = Net(victim, "inner", classes=3, size=(8, 8), mean=[0.0] * 3, std=[1.0] * 3, order=order)
    mean = [-m / s for m, s in zip(shift, scale, strict=True)]
    net = Net(inner, "outer", classes=3, size=(8, 8), mean=mean, std=[1 / s for s in scale]).eval()
    found = {check["name"]: check for check in intake_checks(net, parts.test)}["input range"]
    x, y = parts.test.batch(slice(None)), parts.test.labels
    assert torch.allclose(predict(net, convention.applied(x)), predict(victim, x), atol=1e-3)
    asked, plain = (float((predict(n, x).argmax(1) == y).float().mean()) for n in (victim, net))
    if name in {"[0, 1]", "the mean and spread of ImageNet"}:  # the second costs this net too little to be sure
        assert asked <= plain + 0.05
        assert found["status"] == "passed"
    else:
        assert f"pass {option}," in found["fix"]


def test_a_suspect_read_wrongly_is_told_so(foreign: Path, victim: Net, parts: Study) -> None:
    _, key = SACJC(count=60).protect(victim, parts.probes, rng=generator(0))
    wrong, right = (judge(foreign, key, "cnn", convention=convention) for convention in (None, OUTSIDE))
    assert any("same label: it may expect other images" in caveat for caveat in wrong.caveats)
    assert not any("same label" in caveat for caveat in right.caveats)
