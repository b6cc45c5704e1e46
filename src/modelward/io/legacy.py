"""Legacy ``.pt`` files: checked as a zip, then opened in a throw-away child with limits; what comes back is checked again."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from modelward.core.errors import InputError, UnsafeFileError
from modelward.io.archives import open_zip
from modelward.io.atomic import write_bytes
from modelward.io.files import read_bytes, read_head
from modelward.io.safetensors import parse_tensors

FILE_CAP = 2 * 2**30
MEMBER_CAP = 20_000
SECONDS = 120.0


def convert_pt(source: Path | str, target: Path | str, *, seconds: float = SECONDS, digest: str | None = None) -> int:
    """Convert a legacy ``.pt`` state dict to safetensors and return the number of tensors.

    The file is never opened in this process. The child reads it with ``weights_only=True`` under memory, time and file limits, and hands
    back plain tensors.

    Parameters
    ----------
    digest
        the SHA-256 that the file must have: one that is known beforehand may be in the format from before torch 1.6, which cannot be checked
        as an archive.

    Raises
    ------
    UnsafeFileError
        compressed archives, pickles outside an archive, code in the pickle, sparse or odd tensors, a child over its limits.
    FormatError
        anything that is no ``.pt`` file.
    """
    source, target = Path(source), Path(target)
    if target.suffix != ".safetensors":
        message = f"{target.name}: the converted file must end in .safetensors"
        raise InputError(message)
    if digest is None:
        check_archive(source)
    else:
        read_bytes(source, cap=FILE_CAP, digest=digest)
    with tempfile.TemporaryDirectory(prefix="modelward-convert-") as folder:
        out = Path(folder) / "converted.safetensors"
        _run_child(source, out, seconds)
        data = read_bytes(out, cap=FILE_CAP) if out.exists() else b""
    if not data:
        message = f"{source.name} was refused: the child that read it was stopped by its limits"
        raise UnsafeFileError(message)
    tensors, _ = parse_tensors(data, target.name)
    write_bytes(target, data)
    return len(tensors)


def check_archive(path: Path) -> None:
    """Refuse everything that torch's own writer does not make: stored members, one top folder, no doubles, bounded sizes."""
    if read_head(path, 4) != b"PK\x03\x04":
        what = "a bare pickle, which can run code when loaded" if read_head(path, 1) == b"\x80" else "no .pt file"
        message = f"{path.name} is {what}; save it again with torch.save (torch 1.6 or newer) as a state dict"
        raise UnsafeFileError(message)
    with open_zip(path) as archive:
        entries = archive.infolist()
    why = _why_not(entries, path.stat().st_size)
    if why:
        message = f"{path.name} was refused: {why}"
        raise UnsafeFileError(message)


def _why_not(entries: list[zipfile.ZipInfo], size: int) -> str | None:
    """Return what about the members of an archive of ``size`` bytes is not as torch's own writer makes it, as a clause."""
    names = [entry.filename for entry in entries]
    script = any("/code/" in name or name.endswith("/constants.pkl") for name in names)
    found = {
        f"it has {len(entries):,} members": len(entries) > MEMBER_CAP,
        "it is a TorchScript archive, which holds code; save the state dict instead: torch.save(model.state_dict(), FILE)": script,
        "it is compressed, as torch never writes it; a small file could fill the memory": any(
            entry.compress_type != zipfile.ZIP_STORED for entry in entries
        ),
        "it unpacks to more than 2 GiB": sum(entry.file_size for entry in entries) > FILE_CAP,
        "its members overlap": sum(entry.file_size for entry in entries) > size,
        "a name occurs twice": len(set(names)) != len(names),
        "its names do not lie in one folder": any(name.startswith("/") or ".." in name.split("/") for name in names)
        or len({name.split("/")[0] for name in names}) != 1,
        "it holds no data.pkl": not any(name.endswith("/data.pkl") for name in names),
    }
    return next((why for why, holds in found.items() if holds), None)


def _run_child(source: Path, out: Path, seconds: float) -> None:
    """Run the child and turn its one-line answer into an error."""
    command = [sys.executable, "-I", "-m", "modelward.io.legacy_child", str(source.resolve()), str(out)]
    environment = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT", "TEMP", "TMPDIR") if name in os.environ}
    environment["OMP_NUM_THREADS"] = "1"  # the child may not start threads once it is locked
    try:
        done = subprocess.run(command, capture_output=True, timeout=seconds, check=False, env=environment, cwd=out.parent)  # noqa: S603
    except subprocess.TimeoutExpired as error:
        message = f"{source.name} was refused: reading it took longer than {seconds:.0f} s"
        raise UnsafeFileError(message) from error
    if done.returncode == 0:
        return
    lines = done.stdout[-4096:].decode(errors="replace").splitlines()
    why = f"the child that read it failed (exit {done.returncode})"
    if done.returncode < 0:
        why = "the child that read it was stopped by its limits"
    elif lines and done.returncode == 3:
        why = "".join(char if char.isprintable() else "?" for char in lines[-1][:300])  # the file chose some of these words
    message = f"{source.name} was refused: {why}"
    raise UnsafeFileError(message)
