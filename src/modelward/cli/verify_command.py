"""``modelward verify``: ask a suspect, and keep what it answered as evidence."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelward.cli.audit_commands import Arch
from modelward.cli.commitment_options import CommitmentFile, OpeningFile, Released, TsaRoot, committed_of
from modelward.cli.key_commands import PassphraseFd, PassphraseFile, passphrase_of
from modelward.cli.key_standing import lapsed
from modelward.cli.options import Options, working
from modelward.cli.output import emit, note, say, warn
from modelward.cli.service_options import (
    Batch,
    Budget,
    Function,
    HeaderFile,
    Rate,
    Resume,
    Retries,
    Send,
    Timeout,
    asking_of,
    suspect_of,
    told,
)
from modelward.cli.verdict_screen import EXIT_CODES, VERDICT_VERSION, show_verdict, verdict_facts
from modelward.core.errors import UsageError
from modelward.core.verdict import ALPHA

if TYPE_CHECKING:
    from modelward.audit.committing import Committed
    from modelward.core.key import Key
    from modelward.core.verdict import Verdict
    from modelward.keys.evidence import SigningKey

Evidence = Annotated[
    Path | None, typer.Option("--evidence", metavar="FILE", help="Write answers, key and verdict as a signed bundle; needs --signing-key.")
]
Signing = Annotated[
    Path | None, typer.Option("--signing-key", metavar="FILE", help="Key that signs the bundle: modelward evidence keygen.")
]
Obtained = Annotated[
    str, typer.Option("--obtained", metavar="TEXT", help="How you got at the suspect, in your words; stands in the evidence.")
]
Sheet = Annotated[
    Path | None, typer.Option("--sheet", metavar="FILE", help="Draw probes and relevance maps side by side as a PNG; of infip keys.")
]


def verify(
    options: Options,
    suspect: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SUSPECT...",
            help="Model (safetensors or ONNX), address of a service, or answers.csv for the probes; several files are asked one after the other.",
            show_default=False,
        ),
    ] = None,
    *,
    key: Annotated[Path, typer.Option("--key", metavar="KEY", help="Key file that protect wrote.")],
    arch: Arch = None,
    commitment: CommitmentFile = None,
    opening: OpeningFile = None,
    tsa_root: TsaRoot = None,
    released: Released = None,
    evidence: Evidence = None,
    signing_key: Signing = None,
    obtained: Obtained = "not said",
    sheet: Sheet = None,
    function: Function = None,
    send: Send = None,
    batch: Batch = None,
    rate: Rate = None,
    budget: Budget = None,
    retries: Retries = None,
    timeout: Timeout = None,
    header_file: HeaderFile = None,
    resume: Resume = None,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    convention: Any = None,
) -> int:
    """Say whether a suspect was made from the protected model.

    "Stolen" needs a --commitment whose date is older than the day on which you first saw the suspect (--released). Without one a fingerprint says
    "related" at most, and a key that could be forged says nothing.

    Of several suspects each is judged by itself, and it is said how many false claims are to be expected among them.

    Exit code 1: stolen or related (one of them), 0: not stolen, 3: undecided.
    """
    if suspect is not None and len(suspect) > 1:
        _require_plain(function, evidence, sheet)
        files = [suspect_of(one, None) for one in suspect]
        with working(options):
            return _each(
                files,
                key,
                arch,
                (commitment, opening, tsa_root, released),
                passphrase_of(passphrase_file, passphrase_fd),
                convention,
                options,
            )
    chosen = suspect_of(suspect[0] if suspect else None, function)
    asking = asking_of(chosen, header_file, rate, send=send, batch=batch, budget=budget, retries=retries, timeout=timeout, resume=resume)
    _require_evidence(evidence, signing_key)
    with working(options):
        from modelward.keys import read_key

        passphrase = passphrase_of(passphrase_file, passphrase_fd)  # read once: a descriptor gives it once
        found = read_key(key, passphrase=passphrase)
        if sheet is not None:
            from modelward.audit.sheet import require_maps

            require_maps(found)
        committed = committed_of(found, commitment, opening, tsa_root, released)
        given = {"convention": convention, "asking": asking}
        if evidence is None or signing_key is None:
            from modelward.audit import judge

            verdict = judge(chosen, found, arch, **given, committed=committed)
        else:
            from modelward.keys.evidence import SigningKey

            signer = SigningKey.read(signing_key, passphrase=passphrase)
            verdict = _testify(chosen, found, arch, evidence, signer, committed, obtained, seed=options.seed, **given)
        if sheet is not None:
            _draw(sheet, chosen, found, arch, verdict, convention)
    _tell(options, verdict, chosen, key, lapsed(found, key), evidence)
    return EXIT_CODES[verdict.decision.value]


def _tell(options: Options, verdict: Verdict, chosen: Any, key: Path, over: str, evidence: Path | None) -> None:
    """Say the verdict on a suspect, on screen or as JSON, with what is to be known of key and evidence."""
    if over:
        warn(over)
    if evidence is not None:
        note(f"evidence: {evidence}; it holds the key, give it to nobody who must not know it", quiet=options.quiet)
    if options.as_json:
        what = {"suspect": chosen if isinstance(chosen, Path) else told(chosen), "key": key}
        more = ({"evidence": evidence} if evidence else {}) | ({"grant": over} if over else {})
        emit("verdict", verdict_facts(verdict) | what | more, version=VERDICT_VERSION)
    else:
        show_verdict(verdict, suspect=told(chosen), key=key.name, quiet=options.quiet)


def _require_plain(function: str | None, evidence: Path | None, sheet: Path | None) -> None:
    """Raise `UsageError` for what goes with one suspect alone."""
    if function is not None or evidence is not None or sheet is not None:
        raise UsageError("--suspect, --evidence and --sheet go with one suspect; ask the others by calls of their own")


def _each(
    suspects: list[str | Path], key: Path, arch: str | None, dated: tuple[Path | None, Path | None, Path | None, str | None],
    passphrase: Any, convention: Any, options: Options,
) -> int:  # fmt: skip
    """Judge several suspects by one key; return 1 when one is found, else 3 when one is undecided."""
    from modelward.audit import judge
    from modelward.keys import read_key

    found = read_key(key, passphrase=passphrase)
    committed = committed_of(found, *dated)
    verdicts = [judge(one, found, arch, convention=convention, committed=committed) for one in suspects]
    expected = ALPHA * len(verdicts)
    told_so = f"{len(verdicts)} suspects were asked: were none of them made from the model, {expected:.2g} would be claimed all the same"
    if options.as_json:
        facts = [verdict_facts(verdict) | {"suspect": told(one)} for one, verdict in zip(suspects, verdicts, strict=True)]
        emit("verdicts", {"verdicts": facts, "false_claims_expected": expected, "key": key})
    else:
        for one, verdict in zip(suspects, verdicts, strict=True):
            show_verdict(verdict, suspect=told(one), key=key.name, quiet=True)
        say(told_so)
    codes = {EXIT_CODES[verdict.decision.value] for verdict in verdicts}
    return 1 if 1 in codes else max(codes)


def _draw(sheet: Path, suspect: str | Path, key: Key, arch: str | None, verdict: Verdict, convention: Any) -> None:
    """Write the picture of a verdict on relevance maps; weights show the same maps whenever they are read."""
    from modelward.audit import observe
    from modelward.audit.sheet import write_sheet

    write_sheet(sheet, key, observe(suspect, key, arch, convention=convention), verdict)


def _require_evidence(evidence: Path | None, signing_key: Path | None) -> None:
    """Raise `UsageError` when a bundle could not be signed or written, before anybody is asked."""
    if (evidence is None) != (signing_key is None):
        raise UsageError("--evidence and --signing-key go together; make a key with: modelward evidence keygen --out sign.pem")
    if evidence is not None and evidence.exists():
        message = f"{evidence} exists, and evidence is never overwritten; pass another name"
        raise UsageError(message)


def _testify(
    suspect: str | Path, key: Key, arch: str | None, target: Path, signer: SigningKey, committed: Committed | None, obtained: str, *,
    seed: int, **given: Any,
) -> Verdict:  # fmt: skip
    """Ask a suspect, write what it answered as a bundle, and return the verdict."""
    from modelward.audit import observe
    from modelward.audit.evidence import Taken, make_bundle
    from modelward.audit.judging import weigh
    from modelward.io.atomic import write_bytes
    from modelward.io.files import sha256_file

    observed = observe(suspect, key, arch, **given)
    taken = Taken(told(suspect), sha256_file(suspect) if isinstance(suspect, Path) else None, obtained)
    write_bytes(target, make_bundle(key, observed, taken, signer, committed=committed, seeds={"seed": seed}), mode=0o600)
    return weigh(observed, key, committed)
