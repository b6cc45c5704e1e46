"""``modelward probes`` and ``key show``: what is in a key."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modelward.cli.commitment_options import CommitmentFile, OpeningFile, Released, TsaRoot, committed_of
from modelward.cli.key_facts import header, header_lines
from modelward.cli.key_standing import dated, standing
from modelward.cli.options import Options, working
from modelward.cli.output import emit, facts, say
from modelward.core.errors import UsageError

if TYPE_CHECKING:
    from modelward.core.key import Key
    from modelward.io.age import Secret

KeyFile = Annotated[Path, typer.Argument(metavar="KEY", help="Key file that protect wrote.")]
PassphraseFile = Annotated[Path | None, typer.Option("--passphrase-file", metavar="FILE", help="File that holds the key's passphrase.")]
PassphraseFd = Annotated[
    int | None, typer.Option("--passphrase-fd", min=0, metavar="N", help="Open descriptor to read the passphrase from.")
]


def passphrase_of(file: Path | None, fd: int | None) -> Secret | None:
    """Return the passphrase from a file, a descriptor or $MODELWARD_PASSPHRASE; ``None`` when there is none."""
    from modelward.io.age import read_secret

    return read_secret(file=file, fd=fd)


def key_in(path: Path, file: Path | None, fd: int | None) -> Key:
    """Return the key in ``path``."""
    from modelward.keys import read_key

    return read_key(path, passphrase=passphrase_of(file, fd))


def probes(options: Options, key: KeyFile, *, passphrase_file: PassphraseFile = None, passphrase_fd: PassphraseFd = None) -> int:
    """Write a key's query images into --out, for a suspect that only answers queries.

    Writes 00000.png ... and probes.json. Whoever sees the images knows the key's questions.
    """
    if options.out is None:
        raise UsageError("say where the images go: --out DIR")
    with working(options):
        from modelward.audit import write_probes

        found = key_in(key, passphrase_file, passphrase_fd)
        count = write_probes(found, options.out)
    if options.as_json:
        emit("probes", {"folder": options.out, "images": count})
        return 0
    say(f"{count} images: {options.out}", wrap=False)
    if "user" in found.facts:
        say("Its user shows them at the owner's gate; whoever sees them can show them too.")
        if found.facts.get("bare"):  # of a mark: the name is in the finest bits of the pixels
            say("Keep and send them as PNG: an image that was saved otherwise may have lost the name in it.")
        return 0
    say(
        "Ask the suspect about each and write answers.csv with the header file,label or file,p0,p1,... or file,label1,p1,label2,p2,...; then:"
    )
    say(f"modelward verify answers.csv --key {shlex.quote(str(key))}", wrap=False)
    return 0


def key_show(
    options: Options,
    key: KeyFile,
    *,
    registry: Annotated[
        Path | None, typer.Option("--registry", metavar="FILE", help="Registry of users; by default registry.sqlite near the key.")
    ] = None,
    commitment: CommitmentFile = None,
    opening: OpeningFile = None,
    tsa_root: TsaRoot = None,
    released: Released = None,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
) -> int:
    """Show what a key says of itself, without what is secret in it; what its user may still do, and what its commitment is worth."""
    found = key_in(key, passphrase_file, passphrase_fd)
    about = standing(found, key, registry) | dated(committed_of(found, commitment, opening, tsa_root, released))
    if options.as_json:
        emit("key-facts", header(found) | {"key": key} | about)
    else:
        say(key.name, style="bold", wrap=False)
        facts([*header_lines(found), *((name, str(value)) for name, value in about.items())])
    return 0
