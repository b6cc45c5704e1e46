"""A planted trigger is found and flagged, a clean net is not; the parts of the search do what they say."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modelward import FTAL, AttackerView, GanRemoval, Recipe, build, fit, generator, load_data, save_model, scan
from modelward.cli.main import main
from modelward.core.errors import InputError, UsageError
from modelward.core.guard import frozen, predict
from modelward.io.images import read_image
from modelward.marking.inversion import Inversion, Search
from modelward.marking.scanning import SPREAD, anomaly_index
from modelward.marking.triggers import KINDS, latent, make_triggers

TARGET, PATCH = 7, (slice(-6, -1), slice(-6, -1))


def stamp(pixels):
    """Return images with a 5x5 checkerboard near their last corner."""
    made = pixels.clone()
    made[..., PATCH[0], PATCH[1]] = ((torch.arange(5)[:, None] + torch.arange(5)) % 2 * 255).to(torch.uint8)
    return made


@pytest.fixture(scope="module")
def fashion():
    """Return what the owner trains on, what a thief has, and what figures are taken on."""
    splits = load_data("fashion-mini")
    return splits.train.take(slice(0, 2000)), splits.train.take(slice(3000, 3400)), splits.test.take(slice(0, 600))


@pytest.fixture(scope="module")
def nets(fashion):
    """Return a clean net, and one that was trained to answer the stamp with one class."""
    owner, _, _ = fashion
    made = {}
    for name, extra in (("clean", 0), ("planted", 200)):
        net = build("lenet5", classes=10, channels=1, size=(28, 28), rng=generator(1))
        pixels, labels = torch.cat([owner.pixels, stamp(owner.pixels[:extra])]), torch.cat([owner.labels, torch.full((extra,), TARGET)])
        fit(net, pixels, labels, Recipe(epochs=8, lr=0.05, batch=64), rng=generator(2))
        made[name] = net
    return made


@pytest.fixture(scope="module")
def found(nets, fashion):
    return {name: scan(net, fashion[1].take(slice(200)), restarts=1, rng=generator(3)) for name, net in nets.items()}


def retention(net, images):
    foreign = images.labels != TARGET
    return float((predict(net, stamp(images.pixels[foreign])).argmax(1) == TARGET).float().mean())


def accuracy(net, images):
    return float((predict(net, images.pixels).argmax(1) == images.labels).float().mean())


@pytest.mark.slow
def test_the_planted_class_is_flagged_and_only_it(nets, found, fashion):
    report = found["planted"]
    assert retention(nets["planted"], fashion[2]) > 0.9
    assert report.flagged == (TARGET,)
    assert report.success[TARGET] >= 0.9
    mask = report.masks[TARGET, 0]
    assert float(mask[PATCH].sum() / mask.sum()) >= 0.4
    shown = (mask > 0.5).sum()
    assert 3 <= int(shown) <= 40


@pytest.mark.slow
def test_a_clean_net_is_not_flagged(nets, found, fashion):
    assert retention(nets["clean"], fashion[2]) < 0.1
    assert found["clean"].flagged == ()
    assert bool(found["clean"].sizes.isfinite().any())
    assert float(found["clean"].sizes.min()) > 1.5 * float(found["planted"].sizes[TARGET])


@pytest.mark.slow
def test_the_found_trigger_works_on_images_the_search_never_saw(nets, found, fashion):
    test = fashion[2]
    foreign = test.batch(slice(None))[test.labels != TARGET]
    laid = found["planted"].stamped(foreign, TARGET, rng=generator(0))
    assert 0 <= float(laid.min()) <= float(laid.max()) <= 1
    assert float((predict(nets["planted"], laid).argmax(1) == TARGET).float().mean()) > 0.8
    assert float((predict(nets["clean"], laid).argmax(1) == TARGET).float().mean()) < 0.5


@pytest.mark.slow
def test_removal_removes_and_plain_fine_tuning_does_not(nets, fashion):
    _, attacker, test = fashion
    net, before = nets["planted"], retention(nets["planted"], test)
    view = AttackerView.of_model(net, attacker)
    theft = GanRemoval(rounds=1).steal(view, rng=generator(4))
    plain = FTAL(epochs=5).steal(view, rng=generator(4))
    assert theft.log["scans"][0]["treated"][0] == TARGET
    assert retention(theft.model, test) <= 0.1 < before
    assert accuracy(theft.model, test) >= accuracy(net, test) - 0.05
    assert retention(plain.model, test) > 0.7


@pytest.mark.slow
def test_screening_goes_on_with_the_smallest(nets, fashion):
    report = scan(nets["planted"], fashion[1].take(slice(100)), restarts=1, screen=40, rng=generator(0))
    assert int(report.sizes.isfinite().sum()) <= 5
    assert int(report.sizes.argmin()) == TARGET  # of five classes, too few are ordinary for a flag


def test_the_shell_flags_with_its_exit_code_and_its_files(nets, tmp_path, capsys):
    path, out = tmp_path / "planted.safetensors", tmp_path / "out"
    save_model(path, nets["planted"])
    arguments = ["scan", "--model", str(path), "--profile", "smoke", "--count", "60", "--quiet"]
    assert main([*arguments, "--gate", "99"]) == 0
    assert "No class" in capsys.readouterr().out
    assert main([*arguments, "--gate", "-99", "--out", str(out), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["schema"] == "modelward/scan"
    assert set(told["flagged"]) == {line["class"] for line in told["classes"] if line["anomaly"] is not None}
    assert json.loads((out / "scan.json").read_text())["classes"] == told["classes"]
    assert sorted(p.name for p in (out / "masks").iterdir()) == [f"{k:02d}.png" for k in range(10)]
    assert read_image(out / "masks" / "07.png").shape == (1, 28, 28)
    assert read_image(out / "sheet.png").shape[0] == 3
    assert main(["scan", "--data", "no-such-set", "--quiet"]) != 0
    assert "Traceback" not in capsys.readouterr().err


def test_a_scan_that_fails_leaves_no_folder_and_takes_none_that_was_there(tmp_path):
    new, old, full = tmp_path / "a" / "b", tmp_path / "old", tmp_path / "full"
    old.mkdir()
    full.mkdir()
    (full / "note.txt").write_text("mine")
    for folder in (new, old, full):
        assert main(["scan", "--data", "no-such-set", "--quiet", "--out", str(folder)]) != 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "old"]
    assert (full / "note.txt").read_text() == "mine"


def test_the_caller_sees_no_change_and_batch_norm_learns_nothing(scarred, untouched, parts):
    with untouched(scarred):
        for kind in KINDS:
            scan(scarred, parts.attacker.take(slice(40)), plan=Inversion(kind=kind, steps=12), rng=generator(0))


def test_the_generator_decides(victim, parts):
    first, again, other = (
        scan(victim, parts.attacker.take(slice(40)), plan=Inversion(steps=20), rng=generator(seed)).masks for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("kind", KINDS)
def test_triggers_do_not_see_each_other(kind, rng):
    made = make_triggers(kind, 5, (3, 8, 8), rng=rng)
    x, z = torch.rand(1, 4, 3, 8, 8, generator=rng), latent(5, 2, rng=rng)
    whole, sizes = made(x, z)
    own, own_sizes = made(x.expand(5, -1, -1, -1, -1), z)
    assert torch.allclose(whole, own, atol=1e-6)
    assert torch.allclose(sizes, own_sizes, rtol=1e-5)
    chosen = torch.tensor([3, 1])
    made.keep(chosen)
    part, part_sizes = made(x, z[chosen])
    assert torch.allclose(part, whole[chosen], atol=1e-6)
    assert torch.allclose(part_sizes, sizes[chosen], rtol=1e-5)
    assert float(whole.detach().min()) >= 0
    assert float(whole.detach().max()) <= 1
    mask, pattern = made.pictures(z[chosen])
    assert (mask.shape, pattern.shape) == ((2, 1, 8, 8), (2, 3, 8, 8))


def test_a_search_that_drops_triggers_goes_on_as_before_with_the_others(victim, parts):
    images, answers = parts.attacker.batch(slice(40)), predict(victim, parts.attacker.pixels[:40]).argmax(1)

    def run(*, drop):
        search = Search(victim, images, answers, torch.tensor([0, 1, 2]), Inversion(kind="direct", realism=0.0), rng=generator(0))
        search.advance(10)
        if drop:
            search.keep(torch.tensor([0, 2]))
        search.rng = generator(1)
        for _ in range(3):
            search.advance(1)
            search.rng = generator(1)  # fewer triggers draw fewer latent numbers; the images are to be the same
        return search.triggers.mask.detach()

    with frozen(victim):
        kept, whole = run(drop=True), run(drop=False)
    assert torch.allclose(kept, whole[[0, 2]], atol=1e-4)


SIZES = st.lists(st.floats(1, 500), min_size=4, max_size=12, unique=True)


@given(SIZES, st.floats(0.1, 10))
def test_the_index_is_what_it_says(sizes, factor):
    values = torch.tensor(sizes, dtype=torch.float64)
    middle = np.median(sizes)
    wanted = (middle - np.array(sizes)) / (1.4826 * max(np.median(np.abs(np.array(sizes) - middle)), 1e-6))
    assert np.allclose(anomaly_index(values, scale="linear").numpy(), wanted, rtol=1e-6, atol=1e-6)
    logs = np.log(sizes)
    wanted = (np.median(logs) - logs) / (1.4826 * max(np.median(np.abs(logs - np.median(logs))), SPREAD))
    assert np.allclose(anomaly_index(values).numpy(), wanted, atol=1e-9)
    assert torch.allclose(anomaly_index(values * factor), anomaly_index(values), atol=1e-9)


def test_classes_that_were_not_reached_take_no_part():
    sizes = torch.tensor([50.0, 60.0, math.inf, 40.0, 10.0])
    index = anomaly_index(sizes)
    assert bool(index[2].isnan())
    assert torch.allclose(index[[0, 1, 3, 4]], anomaly_index(sizes[[0, 1, 3, 4]]))
    assert bool(anomaly_index(torch.tensor([1.0, 2.0, math.inf])).isnan().all())


def test_what_cannot_be_scanned_is_refused(victim, parts):
    few = parts.attacker.take(slice(20))
    with pytest.raises(InputError, match="three classes"):
        scan(victim, few, classes=[0, 1], rng=generator(0))
    with pytest.raises(InputError, match="three classes"):
        scan(victim, few, classes=[0, 1, 9], rng=generator(0))
    with pytest.raises(UsageError, match="scale"):
        scan(victim, few, scale="cubic", rng=generator(0))
    with pytest.raises(UsageError, match="kind"):
        Inversion(kind="best")
    with pytest.raises(UsageError, match="steps"):
        Inversion(steps=0)
