"""Print the speed figures as ratios, each against its plain counterpart in the same run: ``make bench``.

A ratio is the median over rounds in which both sides are timed one after the other, on one torch thread.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from nets import nets
from torch import Tensor, nn
from torch.nn import functional as F

from modelward import PGD, SACJC, Recipe, Zhang, build, fit, generator, load_data, siblings
from modelward.core.guard import predict
from modelward.core.siblings import Siblings
from modelward.core.suspect import Suspect
from modelward.evaluation.robustness import robust_under
from modelward.evaluation.store import Store
from modelward.models.relevance import Relevance
from modelward.ownership import IPGuard, UnitOrder

HERE = Path(__file__).resolve().parent
BATCH, STEPS = 128, 20
PART = 4  # of the 20 plain passes that are timed; the ratio is scaled
Row = tuple[str, str, float, str]


def ratio(ours: Callable[[], object], plain: Callable[[], object], rounds: int) -> float:
    """Return the median ratio of our time to the plain time."""
    ours(), plain()
    found = []
    for _ in range(rounds):
        gc.collect()
        times = []
        for work in (plain, ours):
            started = time.perf_counter()
            work()
            times.append(time.perf_counter() - started)
        found.append(times[1] / times[0])
    return statistics.median(found)


def passes(model: nn.Module, x: Tensor, y: Tensor, count: int) -> Callable[[], None]:
    """Return pure fp32 forward and backward passes to the input, NCHW, in batches."""

    def work() -> None:
        for _ in range(count):
            for part, labels in zip(x.split(BATCH), y.split(BATCH), strict=True):
                leaf = part.clone().requires_grad_()
                torch.autograd.grad(F.cross_entropy(model(leaf), labels, reduction="sum"), leaf)

    return work


def plain_copy(model: nn.Module) -> nn.Module:
    """Return the model in plain NCHW layout with frozen parameters."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model.to(memory_format=torch.contiguous_format).eval()


def pgd_rows(rounds: int) -> list[Row]:
    """Time PGD and robust accuracy."""
    found, images = nets(Path(os.environ.get("MODELWARD_HOME", Path.home() / ".cache" / "modelward")) / "bench")
    images = images.take(slice(0, 384))
    x, y, rows = images.batch(slice(None)), images.labels, []
    net = plain_copy(found["plain"])
    attack = PGD(early_stop=False)
    value = ratio(lambda: attack.perturb(net, x[:BATCH], y[:BATCH], rng=generator(0)), passes(net, x[:BATCH], y[:BATCH], STEPS), rounds)
    rows.append(("PGD Linf, 20 steps, early_stop=False", "pure fp32 forward+backward, same batch", value, "<= 1.05"))
    for name, targets in (("plain", (0.22, 0.12)), ("adversarial", (0.50, 0.28))):
        net = plain_copy(found[name])
        pure = passes(net, x, y, PART)
        scores = {}
        for fast, target in zip((False, True), targets, strict=True):
            method = PGD(fast=fast)
            scores[fast] = float(robust_under(method, net, images, rng=generator(1)).robust.float().mean())
            value = ratio(lambda m=method, n=net: robust_under(m, n, images, rng=generator(1)), pure, rounds) * PART / STEPS
            text = f"robust accuracy, {name} ResNet-14{', fast' if fast else ''}: {scores[fast]:.3f} (clean {accuracy(net, images):.3f})"
            rows.append((text, "pure fp32 forward+backward x 20", value, f"<= {target}"))
        rows.append((f"fast against exact, {name}: difference in points", "exact", abs(scores[True] - scores[False]) * 100, "<= .5"))
    return rows


def accuracy(model: nn.Module, images: object) -> float:
    """Return the clean accuracy."""
    return float((predict(model, images.pixels).argmax(1) == images.labels).float().mean())


def training_rows(rounds: int) -> list[Row]:
    """Time training against a plain fp32 NCHW eager loop on the same images, network, batch size and optimiser."""
    images = load_data("fashion-mini").train.take(slice(0, 2048))
    rows = []
    for arch in ("resnet8", "resnet14", "cnn"):
        recipe = Recipe(epochs=1, batch=BATCH, lr=0.05)

        def ours(arch: str = arch, recipe: Recipe = recipe) -> None:
            fit(build(arch, classes=10, rng=generator(0)), images.pixels, images.labels, recipe, rng=generator(1))

        def plain(arch: str = arch) -> None:
            net = build(arch, classes=10, rng=generator(0)).train()
            optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=True)
            for part in torch.randperm(len(images), generator=generator(1)).split(BATCH):
                loss = F.cross_entropy(net(images.batch(part)), images.labels[part])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

        rows.append((f"training throughput, {arch}", "plain fp32 NCHW eager loop", 1 / ratio(ours, plain, rounds), ">= 2"))
    return rows


def verify_rows(rounds: int) -> list[Row]:
    """Time verifications, by SAC-JC and by trigger keys, against the suspect's forward pass on the probes."""
    images = load_data("fashion-mini").test.take(slice(0, 1000))
    nets_ = [build("resnet8", classes=10, rng=generator(seed)) for seed in range(9)]
    method = SACJC()
    _, key = method.protect(nets_[0], images, nulls=nets_[1:], rng=generator(0))
    suspect = nets_[-1]
    probes = key.tensors["probes"]
    value = ratio(lambda: method.verify(Suspect.of_model(suspect), key), lambda: predict(suspect, probes), rounds)
    marked = Zhang().claim(nets_[0], images, secret=bytes(32), nulls=nets_[1:], rng=generator(0))
    keys = marked.tensors["probes"]
    asked = ratio(lambda: Zhang().verify(Suspect.of_model(suspect), marked), lambda: predict(suspect, keys), rounds)
    return [
        ("SAC-JC verification of one suspect", "pure forward time of its probes", value, "<= 1.3"),
        ("verification of 100 trigger keys", "pure forward time of the keys", asked, "<= 1.3"),
    ]


def relevance_rows(rounds: int) -> list[Row]:
    """Time the relevance maps of 50 probes, tracing included, against one forward and backward pass of the same images."""
    rows = []
    for arch, channels, side in (("lenet5", 1, 28), ("cnn", 3, 32), ("resnet8", 3, 32)):
        net = plain_copy(build(arch, classes=10, channels=channels, size=(side, side), rng=generator(0)))
        x, y = torch.rand(50, channels, side, side, generator=generator(1)), torch.arange(50) % 10
        for rule in ("epsilon", "dtd"):
            value = ratio(lambda n=net, x=x, y=y, r=rule: Relevance(n, contrast=True).maps(x, y, rule=r), passes(net, x, y, 1), rounds)
            rows.append((f"relevance maps of 50 probes, {arch}, {rule}", "one fp32 forward+backward", value, "<= 6"))
    return rows


def sibling_rows() -> list[Row]:
    """Time what a rank among siblings costs beside training them plainly, or crafting once, and 10,000 orders of units in processor seconds."""
    import tempfile

    images, recipe = load_data("fashion-mini").train.take(slice(0, 2000)), Recipe(epochs=10)
    pool = load_data("fashion-mini").test.take(slice(0, 1000))

    def plain(seed: int) -> nn.Module:
        net = build("lenet5", classes=10, channels=1, size=(28, 28), rng=generator(seed))
        fit(net, images.pixels, images.labels, recipe, rng=generator(seed))
        return net

    owner, began = plain(0), time.perf_counter()
    own = [plain(1 + seed) for seed in range(59)]
    trained = time.perf_counter() - began
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        family = siblings(recipe, images, 59, model=owner, base="none", tuning=0, store=Store(Path(folder)), jobs=1)
        SACJC().protect(owner, pool, siblings=family, rng=generator(0))
        spent = time.perf_counter() - began
    method, tuning = IPGuard(), tuple(own[19:24])
    few = Siblings(models=tuple(own[:19]), origin="models", start="none", images=images, tuning=tuning)
    crafted = timed(lambda: method._craft(owner, pool, tuning, rng=generator(0)))  # noqa: SLF001 - the part of an enrolment that is compared
    points = timed(lambda: method.protect(owner, pool, siblings=few, rng=generator(0)))
    deep = [build("resnet20", classes=10, rng=generator(seed)) for seed in range(2)]
    _, key = UnitOrder().protect(deep[0], load_data("cifar10-jpeg").test.take(slice(0, 100)), rng=generator(0))
    began = time.process_time()
    UnitOrder().verify(deep[1], key)
    return [
        ("sac-jc, LeNet-5: 59 siblings and the key", "training 59 plainly", spent / trained, "<= 1.1"),
        ("ipguard, LeNet-5: a key of 19 siblings", "crafting the points of one model", points / crafted, "<= 25"),
        ("unit-order, ResNet-20: 10,000 orders", "seconds on one thread", time.process_time() - began, "<= 60"),
    ]


def timed(work: Callable[[], object]) -> float:
    """Return how many seconds something takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def of_script(name: str, *words: str) -> list[dict[str, object]]:
    """Return the rows that another script of this folder prints, in a process of its own."""
    done = subprocess.run([sys.executable, str(HERE / name), *words], check=True, capture_output=True, text=True)
    return list(json.loads(done.stdout)["rows"])


def search_rows(rounds: int) -> list[Row]:
    """Time the trigger search over ten classes in one batch against the same class by class."""
    found = of_script("trigger_search.py", "--rounds", str(rounds))
    return [(row["figure"], row["against"], row["value"], row["target"]) for row in found]


def lock_rows(rounds: int) -> list[Row]:
    """Time the locks: a moved parameter, a crafting step, authorised answers, the coder of image sets. Each runs by itself."""
    rows: list[Row] = []
    for name in ("advparams", "activeguard", "sample"):
        found = of_script(f"locks_{name}.py", "--rounds", str(rounds))
        rows += [(row["figure"], row["against"], row["value"], row["target"]) for row in found]
    for row in of_script("locks_dataset.py"):
        for way in ("hidden", "recovered"):
            figure = f"dataset-lock, images {way}, blocks of {row['block']}"
            rows.append((figure, "images of 3x32x32 a second", row[f"{way}_per_second"], f">= {row['goal']}"))
    return rows


def start_rows(rounds: int) -> list[Row]:
    """Time the start of the command line and of the import, torch not among the modules."""
    rows: list[Row] = []
    for name, command in (
        ("modelward --help", [sys.executable, "-m", "modelward", "--help"]),
        ("import modelward", [sys.executable, "-c", "import modelward, sys; assert 'torch' not in sys.modules"]),
    ):
        times = []
        for _ in range(rounds + 2):
            started = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            times.append(time.perf_counter() - started)
        rows.append((name, "seconds", statistics.median(times), "<= .3"))
    return rows


def demo_rows() -> list[Row]:
    """Run the demo's audit in a fresh store and measure time and peak memory of the process and its workers together."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "modelward", "audit", "--quiet", "--out", f"{folder}/demo"]
        env = {**os.environ, "MODELWARD_HOME": f"{folder}/store", "OMP_NUM_THREADS": "1"}
        rows: list[Row] = []
        for name, target in (("demo audit, cold", "<= 240"), ("demo audit, again", "<= 10")):
            started = time.perf_counter()
            peak = watch(subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL))
            rows.append((name, "seconds", time.perf_counter() - started, target))
            if name.endswith("cold"):
                rows.append(("demo peak memory, all processes", "GB (proportional set size)", peak / 1e9, "<= 1.5"))
    return rows


def watch(process: subprocess.Popen[bytes]) -> float:
    """Return the largest sum of proportional set sizes, in bytes, of a process and its descendants."""
    peak = 0.0
    while process.poll() is None:
        total = 0.0
        for pid in [process.pid, *children(process.pid)]:
            try:
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    total += int(line.split()[1]) * 1024 if line.startswith("Pss:") else 0
            except OSError:
                continue
        peak = max(peak, total)
        time.sleep(0.5)
    if process.returncode not in {0, 1}:
        raise SystemExit(f"the audit ended with {process.returncode}")
    return peak


def children(pid: int) -> list[int]:
    """Return all descendants of a process."""
    try:
        direct = [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return direct + [below for child in direct for below in children(child)]


def page(rows: list[Row], raw: str) -> str:
    """Return the figures as Markdown."""
    machine = f"{os.cpu_count()} cores ({platform.machine()}, {torch.backends.cpu.get_cpu_capability()})"
    lead = (
        f"`make bench` on an idle machine of {machine}, torch {torch.__version__}, one torch thread a process; the demo uses all cores. Ratios "
        f"are medians over rounds in which both sides are timed one after the other; robust accuracy over 384 CIFAR-10 images. Raw rows: [{raw}]({raw})."
    )
    lines = ["# Speed", "", lead, "", "| figure | measured | target | against |", "|---|---|---|---|"]
    return "\n".join([*lines, *(f"| {figure} | {value:.3g} | {target} | {against} |" for figure, against, value, target in rows)]) + "\n"


def main() -> None:
    """Measure, print a table, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="pgd, training, verify, start, demo, siblings, relevance, search, locks")
    parser.add_argument("--out", type=Path, help="JSON file; the page goes beside it")
    options = parser.parse_args()
    torch.set_num_threads(1)
    parts = {
        "start": lambda: start_rows(options.rounds), "verify": lambda: verify_rows(options.rounds), "training": lambda: training_rows(options.rounds),
        "pgd": lambda: pgd_rows(options.rounds), "demo": demo_rows, "siblings": sibling_rows,
        "relevance": lambda: relevance_rows(options.rounds), "search": lambda: search_rows(options.rounds), "locks": lambda: lock_rows(options.rounds),
    }  # fmt: skip
    rows: list[Row] = []
    for name, part in parts.items():
        if not options.only or name in options.only.split(","):
            rows += part()
    width = max(len(row[0]) for row in rows)
    sys.stdout.write(f"{'figure':{width}}  {'measured':>9}  {'target':>7}  against\n")
    for figure, against, value, target in rows:
        sys.stdout.write(f"{figure:{width}}  {value:9.3f}  {target:>7}  {against}\n")
    if options.out:
        options.out.with_suffix(".md").write_text(page(rows, options.out.name))
        facts = {
            "torch": torch.__version__,
            "python": platform.python_version(),
            "cpu": torch.backends.cpu.get_cpu_capability(),
            "threads": 1,
        }
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        named = [dict(zip(("figure", "against", "value", "target"), row, strict=True)) for row in rows]
        options.out.write_text(json.dumps({"rows": named, **facts, "peak_of_this_process": peak}, indent=1) + "\n")


if __name__ == "__main__":
    main()
