"""Image sets locked and opened in the shell: what is written, what comes back, and what is said when it cannot."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from modelward.audit import locked_sets
from modelward.core.errors import StoreError
from modelward.core.images import ImageSet
from modelward.io.images import read_image, write_png
from modelward.keys import read_key, write_key
from modelward.models import Net, save_model

FAST = ("--set", "steps=2", "-q")


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory, make_blobs: Callable[..., ImageSet], train_net: Callable[..., Net]) -> Path:
    """Return a folder with a set of PNG and JPEG files and a surrogate."""
    folder = tmp_path_factory.mktemp("sets")
    images = make_blobs(30, 6, side=16, noise=6.0)
    for i, (image, label) in enumerate(zip(images.pixels.numpy(), images.labels.tolist(), strict=True)):
        place = folder / "set" / ("train", "test")[i % 5 == 0] / images.classes[label]
        place.mkdir(parents=True, exist_ok=True)
        if i % 3:
            write_png(place / f"{i}.png", image)
        else:
            Image.fromarray(image.transpose(1, 2, 0)).save(place / f"{i}.jpg", quality=95)
    save_model(folder / "surrogate.safetensors", train_net("mlp:width=8", images, 0, epochs=1))
    save_model(folder / "small.safetensors", train_net("mlp:width=8", make_blobs(30, 7), 0, epochs=1))
    return folder


@pytest.fixture
def folder(ready: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy to work in."""
    shutil.copytree(ready, tmp_path / "w")
    monkeypatch.chdir(tmp_path / "w")
    return tmp_path / "w"


@pytest.fixture
def lock(shell: Callable[..., Any]) -> Callable[..., Any]:
    def run(*more: object, data: str = "set", out: str = "locked", key: str = "k.mw", model: str = "surrogate.safetensors") -> Any:
        return shell("lock", "dataset-lock", "--data", data, "--out-data", out, "--out-key", key, "--model", model, *FAST, *more)

    return run


@pytest.fixture
def unlock(shell: Callable[..., Any]) -> Callable[..., Any]:
    def run(*more: object, data: str = "locked", out: str = "open", key: str = "k.mw") -> Any:
        return shell("unlock", "--data", data, "--key", key, "--out-data", out, "-q", *more)

    return run


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_pixels_come_back_from_the_images_alone(folder: Path, lock: Any, unlock: Any) -> None:
    done = lock("--json")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert (said["n"], sum(said["counts"].values())) == (30, 30)
    assert said["psnr"] > 20
    assert (folder / "k.mw").stat().st_mode & 0o777 == 0o600
    before = files(folder / "set")
    shutil.rmtree(folder / "set")
    assert unlock().code == 0
    for name, data in before.items():
        found = folder / "open" / (name if name.endswith(".png") else f"{name}.png")
        assert (read_image(found) == read_image(data)).all()
        hidden = folder / "locked" / found.relative_to(folder / "open")
        assert hidden.is_file()


def test_sidecars_give_whole_files_back(folder: Path, lock: Any, unlock: Any) -> None:
    assert lock("--set", "backend=sidecar").code == 0
    assert unlock().code == 0
    assert files(folder / "open") == files(folder / "set")
    (box,) = (folder / "locked").rglob("1.png.seal")
    box.write_bytes(box.read_bytes()[:-1])
    assert "was changed since the set was locked" in unlock(out="again").err
    box.unlink()
    assert "1 sidecars are missing" in unlock(out="again").err
    assert not (folder / "again").exists()


def test_a_wrong_key_writes_nothing(folder: Path, lock: Any, unlock: Any) -> None:
    assert lock().code == 0
    assert lock(out="other", key="other.mw").code == 0
    key = read_key(folder / "k.mw")
    write_key(
        folder / "wrong.mw", type(key)(key.method, key.variant, key.model_digest, key.facts, {"secret": key.tensors["secret"].flip(0)})
    )
    before = {path.name for path in folder.iterdir()}
    for name, words in (("other.mw", "bring the key that was written for it"), ("wrong.mw", "does not open this set")):
        done = unlock(key=name)
        assert done.code == 2
        assert words in done.err
    assert {path.name for path in folder.iterdir()} == before


def test_images_that_were_changed_are_named(folder: Path, lock: Any, unlock: Any) -> None:
    assert lock().code == 0
    names = sorted(path.relative_to(folder / "locked").as_posix() for path in (folder / "locked").rglob("*.png"))
    first, second = (folder / "locked" / name for name in names[:2])

    def broken(words: str) -> None:
        done = unlock()
        assert done.code == 2
        assert words in done.err
        assert not (folder / "open").exists()

    kept = first.read_bytes()
    with Image.open(first) as image:
        image.load()
        image.save(first, "JPEG", quality=95)
    broken(f"1 of 30 images were changed since they were locked (encoded anew, or edited): {names[0]}")
    first.write_bytes(kept)
    with Image.open(second) as image:
        image.resize((8, 8)).save(second)
    broken(f"1 of 30 images were resized or changed in colour since they were locked: {names[1]}")
    second.rename(second.with_suffix(".webp"))
    broken("encoded anew")


def test_sets_that_cannot_be_locked_are_refused_in_a_sentence(folder: Path, lock: Any, shell: Any) -> None:
    assert lock().code == 0
    again = lock(data="locked", out="twice", key="twice.mw")
    assert (again.code, "is locked already" in again.err) == (2, True)
    other = lock(out="o", key="o.mw", model="small.safetensors")
    assert "the images have 3 channels of 16x16, and the surrogate takes 3 channels of 8x8" in other.err
    one = next((folder / "set").rglob("1.png"))
    with Image.open(one) as image:
        image.resize((20, 20)).save(one)
    assert "lock each size as a set of its own" in lock(out="o", key="o.mw").err
    flat = folder / "flat"
    flat.mkdir()
    shutil.copy(one, flat / "1.png")
    assert "one folder of images for each of two or more classes" in lock(data="flat", out="o", key="o.mw").err
    assert not {"o", "o.mw", "twice", "twice.mw", ".o.partial"} & {path.name for path in folder.iterdir()}
    bare = shell("lock", "dataset-lock", "--data", "set", "--out-key", "o.mw")
    assert (bare.code, "dataset-lock needs --out-data DIR" in bare.err) == (4, True)
    mixed = shell("unlock", "--key", "k.mw", "--out-data", "x")
    assert (mixed.code, "say what to unlock" in mixed.err) == (4, True)


def zipped(folder: Path, name: str) -> str:
    return Path(shutil.make_archive(str(folder.with_name(name)), "zip", folder)).name


def test_a_locked_set_is_not_locked_again(folder: Path, lock: Any) -> None:
    assert lock("--set", "backend=sidecar").code == 0
    shutil.copytree("locked", "parent/locked")
    shutil.copytree("locked", "bare")
    (folder / "bare" / "manifest.json").unlink()
    cut = folder / "parent" / "locked" / "manifest.json"
    cut.write_bytes(cut.read_bytes()[:200])
    for data, words in (
        ("locked", "is locked already: manifest.json is the manifest of a locked set"),
        (zipped(folder / "locked", "published"), "published.zip is locked already: manifest.json"),
        ("parent", "locked already: locked/manifest.json"),  # cut off, and one folder down
        ("locked/train", "locked already: ../manifest.json"),
        ("bare", "locked already: 30 of 30 images have a sidecar (.seal) beside them, and the manifest.json is gone"),
        (zipped(folder / "bare", "stripped"), "stripped.zip is locked already: 30 of 30"),
    ):
        done = lock(data=data, out="twice", key="twice.mw")
        assert (done.code, words in done.err) == (2, True), (data, done.err)
    for sidecar in (folder / "bare").rglob("*.seal"):
        sidecar.unlink()
    done = lock(data="bare", out="twice", key="twice.mw")
    assert (done.code, "bare is locked already: " in done.err, "says so, and the manifest.json is gone" in done.err) == (2, True, True)
    assert not {"twice", "twice.mw", ".twice.partial"} & {path.name for path in folder.iterdir()}


def test_a_zip_is_locked_as_its_folder_is_and_a_manifest_of_others_is_none(folder: Path, lock: Any, unlock: Any) -> None:
    (folder / "set" / "manifest.json").write_text('{"schema": "somebody/else"}')
    assert lock("--set", "backend=sidecar", data=zipped(folder / "set", "packed")).code == 0
    assert unlock().code == 0
    (folder / "set" / "manifest.json").unlink()
    assert files(folder / "open") == files(folder / "set")


def test_images_without_a_label_are_counted_and_not_dropped(folder: Path, lock: Any) -> None:
    one = next((folder / "set").rglob("1.png"))
    for name in ("x.png", "y.png"):
        shutil.copy(one, folder / "set" / name)
    for data in ("set", zipped(folder / "set", "packed")):
        done = lock(data=data)
        assert "2 images lie beside the class folders of train and test, the first is x.png: labels are missing" in done.err, done.err
        assert done.code == 2
    for name in ("x.png", "y.png"):
        (folder / "set" / name).unlink()
    one.rename(one.with_suffix(".bmp"))
    assert "1 image lies there in a format that is not read, the first is train/" in lock().err
    assert not (folder / "k.mw").exists()


def test_the_form_of_an_image_comes_back_or_is_refused(folder: Path, lock: Any, unlock: Any) -> None:
    grey, palette, clear = (next((folder / "set").rglob(f"{i}.png")) for i in (1, 2, 4))
    for path, mode in ((grey, "L"), (palette, "P"), (clear, "RGBA")):
        with Image.open(path) as image:
            image.convert(mode).save(path)
    name = clear.relative_to(folder / "set").as_posix()
    done = lock()
    assert (done.code, f"set: {name} has transparency, and backend=rdh gives back" in done.err, "backend=sidecar" in done.err) == (
        2,
        True,
        True,
    )
    assert not (folder / "k.mw").exists()
    assert lock("--set", "backend=sidecar", out="beside", key="beside.mw").code == 0
    assert unlock(data="beside", out="whole", key="beside.mw").code == 0
    assert files(folder / "whole") == files(folder / "set")
    clear.unlink()
    assert lock().code == 0
    assert unlock().code == 0
    for path, mode in ((grey, "L"), (palette, "RGB")):
        with Image.open(folder / "open" / path.relative_to(folder / "set")) as found, Image.open(path) as image:
            assert (found.mode, found.tobytes()) == (mode, image.convert(mode).tobytes())
    assert unlock("--customer", "ann", out="copy").code == 0
    with Image.open(folder / "copy" / grey.relative_to(folder / "set")) as copy:
        assert copy.mode == "RGB"  # the mark lies in all channels


def test_a_full_disk_leaves_nothing_half_written_and_the_same_command_goes_on(
    folder: Path, lock: Any, unlock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def until(count: int) -> Callable[..., None]:
        left = [count]

        def write(path: Path, data: bytes) -> None:
            left[0] -= 1
            if left[0] < 0:
                message = f"{path} cannot be written: No space left on device"
                raise StoreError(message)
            path.write_bytes(data)

        return write

    with monkeypatch.context() as full:
        full.setattr(locked_sets, "write_bytes", until(11))
        done = lock()
    assert done.code == 2
    assert "No space left on device" in done.err
    assert "the same command goes on from there" in done.err
    assert not (folder / "locked").exists()
    key = (folder / "k.mw").read_bytes()
    other = lock("--set", "eps=8", "--set", "unit=4")
    assert (other.code, "was written for other images, settings or another surrogate" in other.err) == (4, True)
    with monkeypatch.context() as room:
        room.setattr(locked_sets, "write_bytes", until(30 + 1 - 11))  # the eleven that are there are not written again
        assert lock().code == 0
    assert (folder / "k.mw").read_bytes() == key
    assert not (folder / ".locked.partial").exists()
    with monkeypatch.context() as full:
        full.setattr(locked_sets, "write_bytes", until(5))
        assert unlock().code == 2
    assert not (folder / "open").exists()
    assert unlock().code == 0
    assert len(files(folder / "open")) == 30


def test_a_manifest_of_a_strangers_is_no_way_out_of_the_folder(folder: Path, lock: Any, unlock: Any) -> None:
    assert lock().code == 0
    path = folder / "locked" / "manifest.json"
    said = json.loads(path.read_bytes())
    for where in ("files", "originals"):
        path.write_text(json.dumps({**said, where: ["../../escaped.png", *said[where][1:]]}))
        assert "damaged or was altered" in unlock().err
    swapped = [said["originals"][1], said["originals"][0], *said["originals"][2:]]
    path.write_text(json.dumps({**said, "originals": swapped}))
    assert "was altered since it was locked" in unlock().err
    path.write_text("{")
    assert unlock().code == 2


def test_a_customers_copy(folder: Path, lock: Any, unlock: Any) -> None:
    assert lock().code == 0
    done = unlock("--customer", "ann")
    assert done.code == 0
    assert "the copy of ann" in done.out
    name = min(path.relative_to(folder / "locked").as_posix() for path in (folder / "locked" / "train").rglob("*.png"))
    original = read_image(folder / "set" / name.removesuffix(".png") if name.endswith(".jpg.png") else folder / "set" / name)
    gap = read_image(folder / "open" / name).astype(int) - original
    assert abs(gap).max() == 1


@pytest.mark.usefixtures("folder")
def test_a_copy_that_turned_up_names_its_customer(lock: Any, unlock: Any, shell: Any) -> None:
    assert lock().code == 0
    assert unlock("--customer", "ann").code == 0
    ask = ("trace", "open", "--method", "dataset-lock", "--key", "k.mw", "--locked", "locked")
    found = shell(*ask, "--user", "bob", "--user", "ann", "--json")
    said = json.loads(found.out)
    assert (found.code, said["user"], list(said["votes"])) == (1, "ann", ["ann"])
    assert said["votes"]["ann"] == said["images"] == 30
    for words, code, told in (
        ((*ask, "--user", "bob"), 3, "UNKNOWN"),  # nobody else is named
        (("trace", "set", *ask[2:], "--user", "ann"), 3, "UNKNOWN"),  # the originals name nobody
        (ask, 3, "nobody to look for"),
        ((*ask[:-2], "--user", "ann"), 4, "say --locked DIR"),
        (("trace", "nowhere", *ask[2:], "--user", "ann"), 2, "holds no images"),
        (("trace", "open", "--method", "sample-lock", *ask[4:], "--user", "ann"), 4, "a key of dataset-lock"),
    ):
        found = shell(*words)
        assert (found.code, told in found.out + found.err) == (code, True), (words, found)
