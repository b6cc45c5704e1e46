"""Compare the evasion attacks with those of other libraries: same nets, same images, same budget, same judge.

It runs in an environment of its own, as some of the peers must be installed without their dependencies::

    python3 -m venv bench/.venv
    bench/.venv/bin/pip install -r bench/requirements-peers.txt -e .
    bench/.venv/bin/pip install --no-deps -r bench/requirements-peers-nodeps.txt
    bench/.venv/bin/python bench/peers.py --images 128 --nets lenet5

Robust accuracy may be .5 point above that of the best peer; the median distance of the smallest-change attacks may be 1 % above the best
peer's that is as successful. The exit code says whether that holds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from nets import nets
from torch import Tensor, nn

from modelward import FGSM, MIM, PGD, CarliniWagner, DeepFool, embedded_model, generator, load_data
from modelward.core.families import EvasionMethod
from modelward.core.guard import predict
from modelward.core.images import ImageSet

Attack = Callable[[Tensor, Tensor], Tensor]
BUDGETS = {"lenet5": (0.05, 1.0), "plain": (1 / 255, 0.1), "adversarial": (8 / 255, 0.5)}
STEPS, MIM_STEPS, STEPS_OF_CW, SEARCH = 20, 10, 100, 5


@dataclass
class Line:
    """One attack of one library on one net."""

    net: str
    attack: str
    library: str
    robust: float
    distance: float
    seconds: float
    holds: bool | None = None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Swallow what the peers print."""
    with Path(os.devnull).open("w", encoding="utf-8") as sink, contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
        yield


def ours(method: EvasionMethod, model: nn.Module) -> Attack:
    return lambda x, y: method.perturb(model, x, y, rng=generator(0))


def foolbox_attack(name: str, model: nn.Module, eps: float | None, **settings: Any) -> Attack:
    import foolbox

    def run(x: Tensor, y: Tensor) -> Tensor:
        attack = getattr(foolbox.attacks, name)(**settings)
        adapted = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
        found: Tensor = attack(adapted, x, y, epsilons=eps)[1]
        return found

    return run


def torchattacks_attack(name: str, model: nn.Module, **settings: Any) -> Attack:
    import torchattacks

    def run(x: Tensor, y: Tensor) -> Tensor:
        found: Tensor = getattr(torchattacks, name)(model, **settings)(x, y)
        return found.detach()

    return run


def art_attack(name: str, model: nn.Module, **settings: Any) -> Attack:
    from art.attacks import evasion
    from art.estimators.classification import PyTorchClassifier

    def run(x: Tensor, y: Tensor) -> Tensor:
        adapted = PyTorchClassifier(
            model, loss=nn.CrossEntropyLoss(), input_shape=tuple(x.shape[1:]), nb_classes=10, clip_values=(0, 1), device_type="cpu"
        )
        attack = getattr(evasion, name)(adapted, batch_size=128, **settings)
        return torch.from_numpy(attack.generate(x.numpy(), y.numpy()))

    return run


def contests(model: nn.Module, eps: float, radius: float) -> dict[str, dict[str, Attack]]:
    """Return the attacks by name, each as it is called in every library that has it."""
    step, long, slow = eps / 4, radius / 4, eps / MIM_STEPS
    inf = {"norm": "inf", "verbose": False}
    return {
        "FGSM Linf": {
            "modelward": ours(FGSM(eps=eps), model),
            "foolbox": foolbox_attack("FGSM", model, eps),
            "art": art_attack("FastGradientMethod", model, norm="inf", eps=eps),
            "torchattacks": torchattacks_attack("FGSM", model, eps=eps),
        },
        "PGD Linf": {
            "modelward": ours(PGD(eps=eps, step=step, steps=STEPS, random_start=False), model),
            "foolbox": foolbox_attack("LinfPGD", model, eps, abs_stepsize=step, steps=STEPS, random_start=False),
            "art": art_attack("ProjectedGradientDescent", model, eps=eps, eps_step=step, max_iter=STEPS, **inf),
            "torchattacks": torchattacks_attack("PGD", model, eps=eps, alpha=step, steps=STEPS, random_start=False),
        },
        "PGD L2": {
            "modelward": ours(PGD(norm="l2", eps=radius, step=long, steps=STEPS, random_start=False), model),
            "foolbox": foolbox_attack("L2PGD", model, radius, abs_stepsize=long, steps=STEPS, random_start=False),
            "art": art_attack("ProjectedGradientDescent", model, norm=2, eps=radius, eps_step=long, max_iter=STEPS, verbose=False),
            "torchattacks": torchattacks_attack("PGDL2", model, eps=radius, alpha=long, steps=STEPS, random_start=False),
        },
        "MIM Linf": {
            "modelward": ours(MIM(eps=eps, step=slow, steps=MIM_STEPS), model),
            "art": art_attack("MomentumIterativeMethod", model, eps=eps, eps_step=slow, decay=1.0, max_iter=MIM_STEPS, **inf),
            "torchattacks": torchattacks_attack("MIFGSM", model, eps=eps, alpha=slow, steps=MIM_STEPS, decay=1.0),
        },
        "DeepFool L2": {
            "modelward": ours(DeepFool(), model),
            "foolbox": foolbox_attack("L2DeepFoolAttack", model, None),
            "art": art_attack("DeepFool", model, max_iter=50, epsilon=0.02, nb_grads=10, verbose=False),
        },
        "C&W L2": {
            "modelward": ours(CarliniWagner(steps=STEPS_OF_CW, search_steps=SEARCH, first=0.1), model),
            "foolbox": foolbox_attack(
                "L2CarliniWagnerAttack", model, None, steps=STEPS_OF_CW, binary_search_steps=SEARCH, initial_const=0.1
            ),
        },
    }


def measure(net: str, model: nn.Module, attack: str, libraries: dict[str, Attack], x: Tensor, y: Tensor) -> list[Line]:
    """Run one attack in every library; the judge is the net itself on the images that come back."""
    lines = []
    for library, run in libraries.items():
        torch.manual_seed(0)
        started = time.perf_counter()
        with quiet():
            found = run(x.clone(), y.clone()).float().clamp(0, 1)
        seconds = time.perf_counter() - started
        stands = predict(model, found).argmax(1) == y
        change = (found - x)[~stands].flatten(1)
        size = change.abs().amax(1) if "Linf" in attack else change.norm(dim=1)
        lines.append(Line(net, attack, library, float(stands.float().mean()), float(size.median()) if len(size) else 0.0, seconds))
    mine, others = lines[0], lines[1:]
    if attack.startswith(("DeepFool", "C&W")):
        equals = [line.distance for line in others if line.robust <= mine.robust + 0.005]
        mine.holds = mine.robust <= min(line.robust for line in others) + 0.005 and (not equals or mine.distance <= 1.01 * min(equals))
    else:
        mine.holds = mine.robust <= min(line.robust for line in others) + 0.005
    return lines


def contestants(names: list[str], count: int) -> Iterator[tuple[str, nn.Module, Tensor, Tensor]]:
    """Yield the nets with the first ``count`` test images that each classifies correctly."""
    found: dict[str, tuple[nn.Module, ImageSet]] = {}
    if "lenet5" in names:
        found["lenet5"] = (embedded_model().model, load_data("fashion-mini").test)
    if {"plain", "adversarial"} & {*names}:
        home = Path(os.environ.get("MODELWARD_HOME", Path.home() / ".cache" / "modelward"))
        trained, images = nets(home / "bench")
        found |= {name: (net, images) for name, net in trained.items() if name in names}
    for name, (net, images) in found.items():
        for parameter in net.parameters():
            parameter.requires_grad_(False)
        right = (predict(net.eval(), images.pixels).argmax(1) == images.labels).nonzero().squeeze(1)[:count]
        yield name, net, images.batch(right), images.labels[right]


def main() -> int:
    """Print the table; return 1 when a figure does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--nets", default=",".join(BUDGETS), help="of " + ", ".join(BUDGETS))
    parser.add_argument("--attacks", default="", help="only those whose name starts so, as in PGD,FGSM")
    parser.add_argument("--json", type=Path, help="write the lines here too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    chosen = tuple(options.attacks.split(","))
    lines: list[Line] = []
    for name, net, x, y in contestants(options.nets.split(","), options.images):
        for attack, libraries in contests(net, *BUDGETS[name]).items():
            if attack.startswith(chosen):
                lines += measure(name, net, attack, libraries, x, y)
                for line in lines[-len(libraries) :]:
                    verdict = {True: "holds", False: "FAILS", None: ""}[line.holds]
                    print(
                        f"{name:12}{attack:13}{line.library:13}{line.robust:8.4f}{line.distance:9.5f}{line.seconds:8.1f} s  {verdict}",
                        flush=True,
                    )
        print(f"n = {len(x)}")
    if options.json:
        options.json.write_text(json.dumps([vars(line) for line in lines], indent=1), encoding="utf-8")
    return int(any(line.holds is False for line in lines))


if __name__ == "__main__":
    sys.exit(main())
