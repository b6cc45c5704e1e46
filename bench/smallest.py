"""Time Carlini-Wagner and DeepFool against the pure passes that they make: ``python bench/smallest.py --out FILE``.

What the attack asks of the net is written down first: for every forward pass how many samples were still active and how many backward passes
followed. The pure passes are those again, of the same sizes and in the same layout, without anything that the attack does besides. A round is
attack, passes, passes, attack (ABBA), so that a load which grows or falls weighs on both; the ratio of a round is the one sum over the other.
Images that a forward pass of DeepFool finds fooled take part in that step's backward passes, on both sides.

The exit code says whether every median is at most 1.15.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from nets import fashion_resnet8
from torch import Tensor, nn

from modelward import CarliniWagner, DeepFool, embedded_model, generator, load_data
from modelward.attacks.evasion.descent import leaf_of
from modelward.core.evasion import EvasionMethod
from modelward.core.guard import predict

TARGET = 1.15
ATTACKS: dict[str, EvasionMethod] = {
    "C&W L2, 4 x 50 steps": CarliniWagner(steps=50, search_steps=4, first=1.0, rate=0.02),
    "DeepFool L2": DeepFool(norm="l2"),
    "DeepFool Linf": DeepFool(norm="linf"),
}


@dataclass
class Call:
    """One forward pass of ``active`` samples, and how many backward passes went through it."""

    active: int
    backwards: int = 0


@dataclass
class Log:
    """The passes of one attack, in order."""

    calls: list[Call] = field(default_factory=list)

    def watch(self, _: nn.Module, __: tuple[Tensor, ...], logits: Tensor) -> None:
        """Write down a forward pass; called by the net."""
        call = Call(len(logits))
        self.calls.append(call)
        if logits.requires_grad:
            logits.register_hook(lambda _: setattr(call, "backwards", call.backwards + 1))


def passes_of(method: EvasionMethod, net: nn.Module, x: Tensor, y: Tensor) -> list[Call]:
    """Return the passes that an attack makes."""
    log = Log()
    handle = net.register_forward_hook(log.watch)
    method.perturb(net, x, y, rng=generator(0))
    handle.remove()
    return log.calls


def pure(net: nn.Module, x: Tensor, calls: list[Call]) -> None:
    """Make the same passes and nothing else, in the layout that the attacks choose."""
    for call in calls:
        leaf = leaf_of(x[: call.active]).requires_grad_(call.backwards > 0)
        with torch.set_grad_enabled(call.backwards > 0):
            logits = net(leaf)
        ones = torch.ones_like(logits)
        for number in range(1, call.backwards + 1):
            torch.autograd.grad(logits, leaf, ones, retain_graph=number < call.backwards)


def seconds(work: Callable[[], object]) -> float:
    """Return the processor time of ``work``: on one thread that is the time it takes, less what other programs take."""
    gc.collect()
    started = time.process_time()
    work()
    return time.process_time() - started


def measure(method: EvasionMethod, net: nn.Module, x: Tensor, y: Tensor, rounds: int) -> dict[str, object]:
    """Return median, smallest and largest ratio over the rounds, and what was counted."""
    calls = passes_of(method, net, x, y)
    attack, passes = (lambda: method.perturb(net, x, y, rng=generator(0))), (lambda: pure(net, x, calls))
    attack(), passes()
    ratios, times = [], []
    for _ in range(rounds):
        first, second, third, fourth = (seconds(work) for work in (attack, passes, passes, attack))
        ratios.append((first + fourth) / (second + third))
        times.append((first + fourth) / 2)
    found = attack()
    fooled = predict(net, found).argmax(1) != y
    return {
        "against": "pure fp32 forward and backward passes of the samples still active", "value": statistics.median(ratios),
        "low": min(ratios), "high": max(ratios), "target": f"<= {TARGET}", "rounds": rounds, "n": len(x), "fooled": float(fooled.float().mean()),
        "forwards": sum(call.active for call in calls), "backwards": sum(call.active * call.backwards for call in calls),
        "seconds": statistics.median(times),
    }  # fmt: skip


def main() -> int:
    """Print a row an attack and net; return 1 when one misses the target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="attacks whose name starts so")
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    home = Path(os.environ.get("MODELWARD_HOME", Path.home() / ".cache" / "modelward"))
    test, rows = load_data("fashion-mini").test, []
    for name, net in {"LeNet-5": embedded_model().model, "ResNet-8": fashion_resnet8(home / "bench")}.items():
        for parameter in net.eval().parameters():
            parameter.requires_grad_(False)
        right = (predict(net, test.pixels).argmax(1) == test.labels).nonzero().squeeze(1)[: options.images]
        for attack, method in ATTACKS.items():
            if attack.startswith(options.only):
                rows.append({"figure": f"{attack}, {name}", **measure(method, net, test.batch(right), test.labels[right], options.rounds)})
                print(
                    "{figure:32}{value:6.3f} [{low:.3f}, {high:.3f}]  {seconds:5.1f} s  fooled {fooled:.3f}".format(**rows[-1]), flush=True
                )
    if options.out:
        facts = {
            "torch": torch.__version__,
            "python": platform.python_version(),
            "cpu": torch.backends.cpu.get_cpu_capability(),
            "threads": 1,
        }
        options.out.write_text(json.dumps({**facts, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    return int(any(float(row["value"]) > TARGET for row in rows))


if __name__ == "__main__":
    sys.exit(main())
