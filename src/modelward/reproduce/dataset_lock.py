"""Dataset lock: what a thief learns from locked images, beside noise as large, random guides, few clean images, and what he tries against it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from modelward.core.errors import UsageError
from modelward.core.images import ImageSet
from modelward.core.rng import derive_seed
from modelward.data import load_data, study
from modelward.evaluation.budget import train_seconds
from modelward.evaluation.cell import Cell
from modelward.evaluation.engine import Engine, Run
from modelward.evaluation.parcels import put_images
from modelward.evaluation.store import Store
from modelward.evaluation.zoo import NullSpec, null_recipe, put_parts, train_cell
from modelward.reproduce.dataset_lock_tables import tables
from modelward.reproduce.dataset_lock_thieves import every
from modelward.reproduce.fingerprint_tables import SMOKE, Rows

WORK = "modelward.reproduce.dataset_lock_work"
Fields = dict[str, Any]
SHARES = (0.01, 0.05, 0.1, 0.2)
CONTROLS = ("noise", "shuffled")


@dataclass(frozen=True)
class Task:
    """One data set: images a split, the surrogate, the victims (the surrogate's architecture first), the lock, and how much is measured on it.

    ``owner``: images to lock, instead of half of the training images.
    """

    data: str
    limit: int | None
    surrogate: str
    victims: tuple[str, ...]
    lock: Fields
    seeds: int
    flip: bool = True
    levels: tuple[int, ...] = ()
    others: dict[str, Fields] = field(default_factory=dict)
    thieves: tuple[str, ...] = ()
    shares: tuple[float, ...] = ()
    epochs: int = 0
    owner: int | None = None


OTHERS: dict[str, Fields] = {
    "paper": {"variant": "paper"}, "pattern": {"shared": "pattern"}, "one derangement": {"mixed": 1},
    "random guides": {"guide": "random"},
    "ten steps of each image's own": {"finish": 10}, "blocks of 2": {"block": 2}, "pixels, sidecar": {"form": "pixel", "backend": "sidecar"},
}  # fmt: skip
TASKS = {
    "smoke": (
        Task("fashion-mini", 200, "mlp:width=16", ("mlp:width=16",), {"eps": 20, "unit": 10, "steps": 4}, 1, levels=(32,),
             others={"random guides": OTHERS["random guides"]}, thieves=("blur", "adversarial training", "hidden data taken out"), shares=(0.1,), epochs=2),
    ),
    "quick": (
        Task("fashion-mini", None, "lenet5", ("lenet5", "cnn", "resnet8:width=8"), {"eps": 20, "unit": 10}, 3, levels=(8, 16, 32), others=OTHERS,
             thieves=every(), shares=SHARES),
        Task("gtsrb-32", 6000, "cnn", ("cnn", "lenet5", "resnet8:width=8"), {"eps": 16, "unit": 8}, 3, flip=False),
    ),
    "full": (
        Task("cifar10-jpeg", 10_000, "resnet8", ("resnet8", "cnn", "resnet14"), {"eps": 16, "unit": 8}, 3, levels=(8, 24, 32), others=OTHERS,
             thieves=every(), shares=SHARES),
        Task("gtsrb-32", 10_000, "resnet8", ("resnet8", "cnn", "lenet5"), {"eps": 16, "unit": 8}, 3, flip=False, owner=6000),
    ),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Scene:
    """One data set and seed: the owner's images, the test images, the surrogate."""

    task: Task
    number: int
    owner: ImageSet
    parts: dict[str, str]
    surrogate: Cell
    seed: int


Asked = list[tuple[str, str, Scene, Cell]]


def dataset_lock(*, profile: str, seed: int, store: Store, jobs: int | None, command: str) -> dict[str, Any]:
    """Lock, train as thieves do, ask on clean test images; return the results document.

    Raises
    ------
    UsageError
        for an unknown profile.
    """
    if profile not in TASKS:
        message = f"profile is {', '.join(TASKS)}, not {profile!r}"
        raise UsageError(message)
    engine = Engine(store, jobs=jobs)
    asked: Asked = []
    for task in TASKS[profile]:
        for number in range(task.seeds):
            asked += _scene_cells(_scene(task, number, seed, store))
    run = engine.run([cell for *_, cell in asked], task="dataset-lock")
    rows = _rows(run, asked, profile, command)
    first = (
        "Xue et al., arXiv 2109.07921: accuracy of a network trained on the protected images 86.21 -> 38.23 (CIFAR-10) and 74.00 -> 16.20 "
        "(TinyImageNet). Every figure is accuracy on clean test images that nobody trained on; victims are trained with crops and, but for traffic "
        "signs, flips; all images go through PNG. A thief has the whole locked set with its true labels. 'chosen' is the hardened variant at the "
        "settings of this data set, 'paper' the paper's at the same: one derangement."
    )
    failed = [f"Not run: {label}." for label in list(run.failed.values())[:5]]
    return {
        "title": f"dataset-lock, profile {profile}", "paragraphs": [*([SMOKE] if profile == "smoke" else []), first, *failed],
        "tables": tables(rows), "rows": rows,
    }  # fmt: skip


def _scene(task: Task, number: int, seed: int, store: Store) -> Scene:
    """Return the images of one seed, and the net that decides what they are turned into."""
    base = derive_seed("dataset-lock", seed, task.data, number)
    made = study(load_data(task.data, limit=task.limit), seed=base, owner_size=task.owner)
    parts = put_parts(store, made)
    parts["test"] = put_images(store, made.test)
    surrogate = train_cell(NullSpec(task.surrogate, "owner", 1.0, "surrogate", 0), null_recipe(task.surrogate), parts, made, base)
    return Scene(task, number, made.owner, parts, surrogate, base)


def _scene_cells(scene: Scene) -> Asked:
    """Return what is asked of one scene: configuration, victim and cell. The first scene of the first task is asked the most."""
    task, asked = scene.task, list[tuple[str, str, Scene, Cell]]()
    chosen = _lock_cell(scene, "chosen", task.lock)
    asked.append(("chosen", "", scene, chosen))
    noises = {kind: _noise_cell(scene, chosen, kind) for kind in CONTROLS}
    asked += [(kind, "", scene, cell) for kind, cell in noises.items()]
    for arch in task.victims:
        asked.append(("clean", arch, scene, _train_cell(scene, arch, "original", scene.parts["owner"], task.lock)))
        asked.append(("chosen", arch, scene, _train_cell(scene, arch, "unauthorised", chosen, task.lock)))
        asked += [(kind, arch, scene, _train_cell(scene, arch, "control", cell, task.lock)) for kind, cell in noises.items()]
    asked.append(("unlocked", task.victims[0], scene, _train_cell(scene, task.victims[0], "authorised", chosen, task.lock)))
    if scene.number:
        return asked
    second = task.victims[min(1, len(task.victims) - 1)]
    for name, more in {**{f"eps {eps}": {"eps": eps, "unit": eps // 2} for eps in task.levels}, **task.others}.items():
        lock = {**task.lock, **more}
        cell = _lock_cell(scene, name, lock)
        asked.append((name, "", scene, cell))
        asked += [
            (name, arch, scene, _train_cell(scene, arch, "unauthorised", cell, lock)) for arch in dict.fromkeys((task.victims[0], second))
        ]
    tried = [(name, 0.0) for name in task.thieves] + [("clean images", share) for share in task.shares]
    asked += [("chosen", second, scene, _train_cell(scene, second, "recovered", chosen, task.lock, thief, share)) for thief, share in tried]
    return asked


def _lock_cell(scene: Scene, name: str, lock: Fields) -> Cell:
    inputs: dict[str, str | Cell] = {"images": scene.parts["owner"], "surrogate": scene.surrogate}
    return Cell(work=f"{WORK}:lock", settings={"fields": lock}, inputs=inputs, seed=derive_seed(scene.seed, "lock"),
                label=f"lock {scene.task.data} #{scene.number}, {name}", seconds=20)  # fmt: skip


def _noise_cell(scene: Scene, locked: Cell, kind: str) -> Cell:
    inputs: dict[str, str | Cell] = {"images": scene.parts["owner"], "locked": locked}
    return Cell(work=f"{WORK}:noise", settings={"kind": kind}, inputs=inputs, seed=derive_seed(scene.seed, kind),
                label=f"{kind} {scene.task.data} #{scene.number}", seconds=1)  # fmt: skip


def _train_cell(scene: Scene, arch: str, metric: str, images: str | Cell, lock: Fields, thief: str = "none", share: float = 0.0) -> Cell:
    """Return the cell that trains one victim; the seed is the same for the same architecture, whatever it is trained on."""
    task = scene.task
    settings = {"metric": metric, "arch": arch, "thief": thief, "budget": share, "epochs": task.epochs, "flip": task.flip, "fields": lock}
    inputs: dict[str, str | Cell] = {"images": images, "clean": scene.parts["owner"], "test": scene.parts["test"]}
    epochs = (task.epochs or null_recipe(arch).epochs) * (6 if thief == "adversarial training" else 1)
    return Cell(work=f"{WORK}:train", settings=settings, inputs=inputs, seed=derive_seed(scene.seed, "train", arch),
                label=f"{arch} on {task.data} #{scene.number}, {metric} {thief}",
                seconds=train_seconds(arch, len(scene.owner), epochs, scene.owner.shape))  # fmt: skip


def _rows(run: Run, asked: Asked, profile: str, command: str) -> Rows:
    """Return all rows with data set, configuration, victim and seed written in."""
    made: Rows = []
    for name, arch, scene, cell in asked:
        for row in finished.rows if (finished := run.of(cell)) else []:
            said = {"task": scene.task.data, "configuration": name, "victim": arch, "scene": scene.number}
            made.append({**row, **said, "profile": profile, "command": command})
    return made
