"""``modelward commit``, ``evidence keygen`` and ``evidence check``: what is fixed before a dispute, and what is shown in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelward.cli.audit_commands import Arch, Jobs
from modelward.cli.calibration_options import Base, Start, Train, TrainingSet
from modelward.cli.commitment_options import Released, TsaRoot
from modelward.cli.key_commands import PassphraseFd, PassphraseFile, passphrase_of
from modelward.cli.options import Options, working
from modelward.cli.output import emit, facts, say, warn
from modelward.cli.verdict_screen import EXIT_CODES, verdict_facts
from modelward.core.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

    from modelward.audit.committing import Committed
    from modelward.audit.evidence import Checked
    from modelward.audit.retraining import Retraining
    from modelward.core.key import Key

UNKNOWN = 3
Bundle = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Evidence that verify wrote.", show_default=False)]
Trusted = Annotated[
    Path | None, typer.Option("--trusted-key", metavar="PUB", help="Public key (PEM) that the bundle should be signed with.")
]
Claimed = Annotated[
    Path | None, typer.Option("--model", metavar="FILE", help="The claimant's model: without it no fingerprint says 'related'.")
]
AskAgain = Annotated[
    Path | None, typer.Option("--sibling-models", metavar="DIR", help="The siblings that the key names: they are asked again.")
]
Retrain = Annotated[
    int | None, typer.Option("--retrain", metavar="N", help="Train N of the key's siblings anew, and see whether they are those.")
]
TrainedData = Annotated[str | None, typer.Option("--data", metavar="SET", help="Set that --trained-on owner or train is a part of.")]
Summary = Annotated[Path | None, typer.Option("--summary", metavar="FILE.html", help="Write one page in plain words.")]
Keys = Annotated[
    list[Path],
    typer.Argument(metavar="KEY...", help="Key that decides, then further keys, which stand beside it.", show_default=False),
]
Authority = Annotated[
    str | None, typer.Option("--timestamp-authority", metavar="URL", help="RFC 3161 authority; it is sent the digest and nothing else.")
]
Token = Annotated[Path | None, typer.Option("--token", metavar="FILE", help="Reply of an authority that you asked by other means.")]
Publication = Annotated[
    str | None, typer.Option("--publication", metavar="TEXT", help="Where the commitment can be looked up, so that a reader finds it.")
]
Published = Annotated[str | None, typer.Option("--published", metavar="DATE", help="Day of the publication.")]


def commit(
    options: Options,
    key: Keys,
    *,
    timestamp_authority: Authority = None,
    token: Token = None,
    tsa_root: TsaRoot = None,
    publication: Publication = None,
    published: Published = None,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
) -> int:
    """Commit to a key before its model is published: write the commitment to --out, and date it.

    Of several keys the one that is named first decides; the p-value of another one counts as often as there are keys.

    Beside --out stand the private half (keep it with the key) and a request that any time-stamping authority answers. Run it again on the same
    --out with --token or --publication to add what dates it: until then it counts for nothing.
    """
    if options.out is None:
        raise UsageError("say where the commitment goes: --out FILE.json")
    if timestamp_authority is not None and token is not None:
        raise UsageError("--timestamp-authority asks for a token and --token brings one; pass one of the two")
    if published is not None and publication is None:
        raise UsageError("--published is the day of a --publication; say where that is")
    with working(options):
        from modelward.audit.committing import commit_to, date, read_committed
        from modelward.io.files import read_bytes
        from modelward.io.timestamps import CAP
        from modelward.keys import read_key

        passphrase = passphrase_of(passphrase_file, passphrase_fd)
        first, *others = (read_key(path, passphrase=passphrase) for path in key)
        fresh = not options.out.exists()
        committed = commit_to(first, options.out, others=others) if fresh else read_committed(options.out, first)
        committed.require(first, *others)
        if tsa_root is not None:
            committed = committed.trusting(tsa_root)
        raw = None if token is None else read_bytes(token, cap=CAP)
        if timestamp_authority or raw or publication:
            committed = date(committed, options.out, authority=timestamp_authority, token=raw, publication=publication, published=published)
        request = _request(committed, options.out) if committed.record.token is None else None
    _tell_commitment(committed, options.out, request, as_json=options.as_json)
    return 0


def _request(committed: Committed, path: Path) -> Path | None:
    """Write the request that an authority answers, where the package for it is installed, and return its place."""
    from modelward.core.errors import UnavailableError
    from modelward.io.atomic import write_bytes

    target = path.with_suffix(".tsq")
    try:
        write_bytes(target, committed.opening.request)
    except UnavailableError as error:
        warn(str(error))
        return None
    return target


def _tell_commitment(committed: Committed, path: Path, request: Path | None, *, as_json: bool) -> None:
    """Print what a commitment is, and what it is worth by now."""
    from modelward.audit.committing import opening_path

    worth, notes = committed.worth()
    if as_json:
        content = {
            "keys": committed.count,
            "digest": worth.digest,
            "kind": worth.kind,
            "time": worth.time,
            "where": worth.where,
            "notes": notes,
        }
        emit("commitment-state", content | {"file": path, "opening": opening_path(path), "request": request})
        return
    lines = [
        ("commitment", str(path)),
        ("keys", str(committed.count)),
        ("digest", worth.digest),
        ("private half", f"{opening_path(path)}: keep it with the key"),
    ]
    if committed.record.token is not None:
        lines.append(("time stamp", f"{len(committed.record.token)} bytes, kept"))
    if request is not None:
        lines.append(("request", f"{request}: any RFC 3161 authority answers it; add the reply with --token"))
    facts([*lines, ("worth", str(worth))])
    for text in notes:
        say(text)


def evidence_keygen(options: Options, *, passphrase_file: PassphraseFile = None, passphrase_fd: PassphraseFd = None) -> int:
    """Make a key that signs evidence: the private half at --out, the public half beside it as NAME.pub.pem.

    Give the public half to those who should trust your evidence, by a way that nobody can tamper with.
    """
    if options.out is None:
        raise UsageError("say where the signing key goes: --out FILE.pem")
    from modelward.io.atomic import write_bytes
    from modelward.keys.evidence import SigningKey, fingerprint

    public = options.out.with_suffix(".pub.pem")
    key = SigningKey.fresh()
    key.write(options.out, passphrase=passphrase_of(passphrase_file, passphrase_fd))
    write_bytes(public, key.public_pem)
    if options.as_json:
        emit("signing-key", {"private": options.out, "public": public, "fingerprint": fingerprint(key.public)})
    else:
        facts([("signing key", f"{options.out}: keep it secret"), ("public key", str(public)), ("fingerprint", fingerprint(key.public))])
    return 0


def evidence_check(
    options: Options, bundle: Bundle, *, trusted_key: Trusted = None, tsa_root: TsaRoot = None, released: Released = None,
    model: Claimed = None, sibling_models: AskAgain = None, retrain: Retrain = None, train: Train = None, data: TrainedData = None,
    trained_on: TrainingSet = None, base: Base = None, start: Start = None, arch: Arch = None, summary: Summary = None, jobs: Jobs = None,
    convention: Any = None,
) -> int:  # fmt: skip
    """Check an evidence bundle: its signature, and its verdict computed again from the answers in it.

    "Stolen" needs the day on which you first saw the suspect (--released), and a commitment that is older. A fingerprint without one says "related",
    once you were shown the claimant's model (--model).

    --retrain N trains N siblings of the key anew, by the code and on the images that you were given (--train, --trained-on, and --base or --start as the
    key was made with): those that are not the key's own, and do not lie among them, make the verdict undecided.

    Exit code 1: stolen or related, 0: not stolen, 3: undecided, or consistent but the signer is unknown; 5: something was altered.
    """
    again = _retraining(
        retrain,
        model,
        arch,
        data=data,
        trained_on=trained_on,
        train=train,
        base=base,
        start=start,
        seed=options.seed,
        jobs=jobs,
        convention=convention,
    )
    with working(options):
        from modelward.audit.evidence import check_bundle
        from modelward.io.files import read_bytes
        from modelward.io.timestamps import CAP as ROOT_CAP
        from modelward.keys.evidence import CAP, read_public
        from modelward.keys.grants import require_day

        checked = check_bundle(
            read_bytes(bundle, cap=CAP), trusted=None if trusted_key is None else read_public(trusted_key),
            roots=b"" if tsa_root is None else read_bytes(tsa_root, cap=ROOT_CAP), released=require_day(released),
            model=None if model is None else lambda key: _claimed(model, arch, key, convention), siblings=sibling_models, retraining=again, arch=arch,
            name=bundle.name,
        )  # fmt: skip
    code = EXIT_CODES[checked.verdict.decision.value] if checked.known else UNKNOWN
    _tell_evidence(checked, bundle, summary, code, as_json=options.as_json)
    return code


def _retraining(
    count: int | None, model: Path | None, arch: str | None, *, data: str | None, trained_on: str | None, train: str | None, base: str | None,
    start: Path | None, seed: int, jobs: int | None, convention: Any,
) -> Retraining | None:  # fmt: skip
    """Return how siblings are trained anew, where that was asked for; raises `UsageError` for options that miss one."""
    if count is None:
        if train or trained_on or data or base or start:
            raise UsageError(
                "--train, --trained-on, --data, --base and --start say how siblings are trained anew; pass them with --retrain N"
            )
        return None
    if model is None or trained_on is None:
        raise UsageError(
            "--retrain needs the claimant's model (--model FILE) and exactly the images that it was trained on (--trained-on SET)"
        )
    from modelward.audit.calibrating import Calibrating
    from modelward.audit.retraining import Retraining, question_of

    asked = Calibrating(train=train, base=base, start=start, trained_on=trained_on)
    return Retraining(count, question_of(model, arch, data, trained_on, convention=convention), asked, seed, jobs)


def _claimed(path: Path, arch: str | None, key: Key, convention: Any) -> nn.Module:
    """Return the claimant's model as a net for the images that the key asks."""
    from modelward.audit.judging import asked_images
    from modelward.models import load_model

    images = asked_images(key)
    if images is None:
        return load_model(path, arch, convention=convention).model
    channels, height, width = images.shape[1:]
    return load_model(path, arch, size=(height, width), like=(channels, height, width), convention=convention).model


def _tell_evidence(checked: Checked, bundle: Path, target: Path | None, code: int, *, as_json: bool) -> None:
    """Print what a bundle is worth, and write its page."""
    from modelward.io.atomic import write_text
    from modelward.report.evidence_page import evidence_html, summary

    verdict = verdict_facts(checked.verdict)
    page = summary(checked.statement, verdict, signer=checked.signer, known=checked.known, notes=checked.notes)
    if target is not None:
        write_text(target, evidence_html(page))
    if as_json:
        state = "consistent, signer trusted" if checked.known else "consistent, signer unknown"
        what = {
            "bundle": bundle,
            "state": state,
            "signer": checked.signer,
            "verdict": verdict,
            "defeats": page["defeats"],
            "exit_code": code,
        }
        emit("evidence-check", what | {"notes": checked.notes, "suspect": checked.statement["suspect"]})
        return
    say(
        "Consistent, signer trusted." if checked.known else "Consistent, signer unknown.",
        style="bold green" if checked.known else "bold yellow",
    )
    say(page["headline"], style="bold")
    say(page["signed"])
    say()
    facts(page["facts"])
    for title, texts in (("What would defeat this evidence", page["defeats"]), ("What this does not show", page["caveats"]),
                         ("How it was checked", page["notes"])):  # fmt: skip
        say(f"\n{title}", style="bold")
        facts([("-", text) for text in texts])
