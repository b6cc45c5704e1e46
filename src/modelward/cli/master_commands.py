"""``modelward key new-master``, ``key rotate`` and ``key backup``: the secret that every user's secret comes from."""

from __future__ import annotations

from pathlib import Path

from modelward.cli.key_commands import PassphraseFd, PassphraseFile, passphrase_of
from modelward.cli.options import Options
from modelward.cli.output import emit, say, warn
from modelward.cli.user_commands import MasterFile, RegistryFile
from modelward.core.errors import UsageError


def new_master(options: Options, *, passphrase_file: PassphraseFile = None, passphrase_fd: PassphraseFd = None) -> int:
    """Make a master secret and write it to --out; with a passphrase it is encrypted."""
    from modelward.keys.master import Master, write_master

    path = options.out or Path("master.json")
    passphrase = passphrase_of(passphrase_file, passphrase_fd)
    write_master(path, Master.fresh(), passphrase=passphrase)
    if passphrase is None:
        warn("the master secret is not encrypted; with --passphrase-file it would be")
    warn(f"{path} has no copy: whoever loses it can trace no user any more; modelward key backup --out DIR")
    _tell(options, path, 1)
    return 0


def rotate(
    options: Options, *, master: MasterFile = Path("master.json"), passphrase_file: PassphraseFile = None, passphrase_fd: PassphraseFd = None
) -> int:  # fmt: skip
    """Add a generation to a master secret: new grants come from it, old keys stay traceable."""
    from modelward.keys.master import read_master, write_master

    passphrase = passphrase_of(passphrase_file, passphrase_fd)
    rotated = read_master(master, passphrase=passphrase).rotated()
    write_master(master, rotated, passphrase=passphrase, replace=True)
    warn(f"{master} has changed: a copy from before knows nothing of generation {rotated.generation}; modelward key backup --out DIR")
    _tell(options, master, rotated.generation)
    return 0


def _tell(options: Options, path: Path, generation: int) -> None:
    """Print where a master secret lies and how many generations it has."""
    if options.as_json:
        emit("master", {"master": path, "generation": generation})
    else:
        say(f"master secret: {path}, generation {generation}", wrap=False)


def backup(options: Options, *, master: MasterFile = Path("master.json"), registry: RegistryFile = Path("registry.sqlite")) -> int:
    """Copy master secret and registry into the folder --out, which must not hold copies yet; the registry remembers when.

    The master secret is copied as it lies there: encrypted if it is.
    """
    if options.out is None:
        raise UsageError("say where the copies go: --out DIR, best on another disk")
    from modelward.io.atomic import write_bytes
    from modelward.io.files import read_bytes
    from modelward.keys.master import CAP
    from modelward.keys.registry import Registry

    book = Registry(registry)
    copies = [options.out / master.name, options.out / registry.name]
    taken = next((copy for copy in copies if copy.exists()), None)
    if taken is not None:
        message = f"{taken} exists, and a backup overwrites nothing; pass another folder"
        raise UsageError(message)
    data = read_bytes(master, cap=CAP)
    options.out.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_bytes(copies[0], data, mode=0o600)
    book.backup(copies[1])
    if options.as_json:
        emit("backup", {"copies": copies})
    else:
        say(f"{copies[0]}, {copies[1]}: keep them apart from the originals", wrap=False)
    return 0
