"""Evidence that a third party can check: what a suspect answered, sealed with the key, so that the verdict can be computed again without it."""

from __future__ import annotations

import base64
import datetime as dt
import math
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from modelward._version import __version__
from modelward.audit.committing import Committed, told_keys
from modelward.audit.enrolment import ownership
from modelward.audit.judging import weigh
from modelward.audit.retraining import ODD, Retraining, retrain
from modelward.audit.sibling_check import UNASKED, ask_siblings
from modelward.core.canonical import canonical_json, plain
from modelward.core.errors import FormatError, InputError, ModelwardError, UnsafeFileError
from modelward.core.guard import state_digest
from modelward.core.key import Key
from modelward.core.ownership import Observation
from modelward.core.suspect import Access
from modelward.core.verdict import Decision, Verdict
from modelward.evaluation.code import code_digest
from modelward.io.documents import parse_document, texts
from modelward.io.safetensors import dump_arrays, parse_arrays
from modelward.keys.commitments import Opening, Record, opened
from modelward.keys.evidence import SigningKey, fingerprint, open_envelope, seal
from modelward.keys.files import key_digest, pack_key, unpack_key

SCHEMA = "modelward/evidence"
VERSION = 2
RELATIVE, ABSOLUTE = 1e-4, 1e-6
COMPARED = ("statistic", "threshold", "p_value", "parametric_p", "draws", "nulls", "false_claims", "queries")


@dataclass(frozen=True)
class Taken:
    """How a suspect came to be asked.

    Parameters
    ----------
    name
        what it is called.
    digest
        SHA-256 of its file, or ``None`` for a service.
    obtained
        how the owner got at it, in the owner's words.
    """

    name: str
    digest: str | None = None
    obtained: str = "not said"


@dataclass(frozen=True)
class Checked:
    """What checking a bundle gave.

    Parameters
    ----------
    statement
        the content of the bundle.
    verdict
        as computed again here.
    signer
        public key of whoever signed.
    known
        whether that is the key which the checker trusts; false when none was named.
    notes
        what was found on the way.
    """

    statement: Mapping[str, Any]
    verdict: Verdict
    signer: str
    known: bool
    notes: tuple[str, ...] = ()


def make_bundle(
    key: Key, observed: Observation, taken: Taken, signer: SigningKey, *, committed: Committed | None = None, seeds: Mapping[str, int] | None = None
) -> bytes:  # fmt: skip
    """Return the sealed evidence of what a suspect answered to ``key``.

    The key is part of it, since nobody could repeat the verdict without it: whoever reads the bundle knows the key.

    Parameters
    ----------
    observed
        the answers.
    taken
        how the suspect came to be asked.
    committed
        what dates the key.
    seeds
        of what was drawn on the way to the answers.
    """
    statement = {
        "schema": SCHEMA, "version": VERSION, "made": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "made_with": {"modelward": __version__, "code": _code(key), "torch": torch.__version__, "python": platform.python_version(),
                      "machine": platform.machine(), "threads": torch.get_num_threads()},
        "seeds": dict(seeds or {}), "suspect": asdict(taken), "key": _text(pack_key(key)), "key_digest": key_digest(key),
        "draws": key.facts.get("draws", {}), "commitment": committed.document() if committed is not None else None,
        "observation": {
            "access": observed.access.value, "queries": observed.queries, "notes": list(observed.notes), "digest": observed.digest,
            "answers": _text(dump_arrays({name: tensor.detach().cpu().contiguous().numpy() for name, tensor in observed.tensors.items()})),
        },
        "verdict": asdict(weigh(observed, key, committed)),
    }  # fmt: skip
    return seal(canonical_json(statement), signer)


def check_bundle(
    data: bytes, *, trusted: bytes | None = None, roots: bytes = b"", released: str | None = None,
    model: nn.Module | Callable[[Key], nn.Module] | None = None, siblings: Path | None = None, retraining: Retraining | None = None,
    arch: str | None = None, name: str = "the bundle",
) -> Checked:  # fmt: skip
    """Return what a bundle is worth: its signature, and the verdict computed again from its answers.

    The verdict is repeated as the maker had it; the statistic may differ by 0.0001 of itself, since other machines round otherwise. It is then
    computed with what the checker knows, which may be less favourable.

    Parameters
    ----------
    trusted
        the 32 bytes of the public key that the bundle should be signed with.
    roots
        PEM certificates of the time-stamping authorities that the checker trusts; those in the bundle were chosen by its maker.
    released
        the day on which the checker first saw the suspect; the bundle's own counts for nothing.
    model
        the claimant's model, or what reads it given the key in the bundle: without it no fingerprint says "related".
    siblings, arch
        a folder with the siblings that the key names, to ask them again, and their architecture where their files do not say it.
    retraining
        how some of the siblings are trained anew; such as do not lie among the others make the verdict undecided.

    Raises
    ------
    InputError
        when ``model`` is not the one that the key names.
    UnsafeFileError
        when anything was altered, another key signed, or the stated verdict does not follow from the answers.
    FormatError
        when it is no bundle, or one of a newer version.
    """
    payload, public = open_envelope(data, trusted=trusted, name=name)
    statement = parse_document(payload, SCHEMA, VERSION, name=name)
    if statement["version"] != VERSION:
        message = (
            f"{name} was made by an older modelward, whose verdicts counted other draws: verify the suspect again with a key that has them"
        )
        raise FormatError(message)
    try:
        key, observed, committed = _content(statement, name)
        found = weigh(observed, key, committed)
        _require_same(found, statement["verdict"], name)
        shown = model if model is None or isinstance(model, nn.Module) else model(key)
        if shown is not None and state_digest(shown) != key.model_digest:
            message = (
                f"the model that was shown is not the one that the key in {name} names: their digests differ (show it with the options that it was "
                "enrolled with)"
            )
            raise InputError(message)
        if shown is not None and "draws" in key.facts and ownership(key.method, {}).differs(shown, key):
            message = f"the model that was shown is the one that the key in {name} names, but what the key says that it answers or holds is not true of it"
            raise UnsafeFileError(message)
        own = None if committed is None else replace(committed, roots=roots or committed.roots, released=released)
        verdict = _with_siblings(weigh(observed, key, own, shown=shown is not None), key, siblings, retraining, arch)
        if own is None or own.count == 1:  # several are told with every verdict
            verdict = replace(verdict, headlines=(*verdict.headlines, told_keys(own)))
        notes = _notes(statement, key, own, own_roots=bool(roots))
    except ModelwardError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        message = f"{name} is signed, but what is in it cannot be evaluated: {type(error).__name__}"
        raise FormatError(message) from error
    return Checked(statement, verdict, fingerprint(public), trusted is not None, notes)


def _with_siblings(verdict: Verdict, key: Key, siblings: Path | None, retraining: Retraining | None, arch: str | None) -> Verdict:
    """Return the verdict with what is known of the siblings first; such as are no siblings make it undecided."""
    told = [] if siblings is None else [str(ask_siblings(key, siblings, arch))]
    made = None if retraining is None else retrain(key, retraining)
    told += [] if made is None else [str(made)]
    if ownership(key.method, {}).drawn_over == "siblings":
        verdict = replace(verdict, headlines=(*(told or [UNASKED]), *verdict.headlines))
    if made is None or not made.odd:
        return verdict
    return replace(verdict, decision=Decision.UNDECIDED, strength="", caveats=(ODD.format(why=made.odd), *verdict.caveats))


def _content(statement: Mapping[str, Any], name: str) -> tuple[Key, Observation, Committed | None]:
    """Return key, answers and commitment of a statement, each with its digests checked."""
    (packed,) = texts(dict(statement), "key", name=name)
    key = unpack_key(base64.b64decode(packed, validate=True), f"the key in {name}")
    if key_digest(key) != statement["key_digest"] or plain(key.facts.get("draws", {})) != statement["draws"]:
        message = f"{name} contradicts itself: its key is not the one it names"
        raise UnsafeFileError(message)
    given = statement["observation"]
    arrays, _ = parse_arrays(base64.b64decode(given["answers"], validate=True), f"the answers in {name}")
    tensors = {part: torch.from_numpy(array.copy()) for part, array in arrays.items()}
    observed = Observation(Access(given["access"]), tensors, int(given["queries"]), tuple(map(str, given["notes"])), given.get("digest"))
    held = statement["commitment"]
    if held is None:
        return key, observed, None
    record, opening, digest = Record.of(held["record"], name), Opening.of(held["opening"], name), key_digest(key)
    committed = Committed(opened(record, opening, digest), opening, held["roots"].encode(), held["released"], opening.place_of(digest))
    return key, observed, committed


def _require_same(found: Verdict, stated: Mapping[str, Any], name: str) -> None:
    """Raise `UnsafeFileError` when the stated verdict is not what follows from the answers."""
    again = plain(asdict(found))
    differing = [field for field in ("decision", "method", "variant", "access") if again[field] != stated[field]]
    differing += [field for field in COMPARED if not _close(again[field], stated[field])]
    if differing:
        field = differing[0]
        message = f"{name} contradicts itself: it states {field} {stated[field]}, from its answers follows {again[field]}"
        raise UnsafeFileError(message)


def _close(one: float | None, other: float | None) -> bool:
    """Return whether two figures are the same but for rounding."""
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=RELATIVE, abs_tol=ABSOLUTE)


def _notes(statement: Mapping[str, Any], key: Key, committed: Committed | None, *, own_roots: bool) -> tuple[str, ...]:
    """Return what a checker should know of how the check was made."""
    notes = ["The answers are those that the maker of the bundle says the suspect gave; ask the suspect again where that is possible."]
    if statement["made_with"]["code"] != _code(key):
        version = str(statement["made_with"]["modelward"])[:40]
        notes.append(f"The bundle was made by modelward {version} with other code of the method than this one; both give the same verdict.")
    if committed is not None and committed.record.token is not None and not own_roots:
        notes.append("The time stamp was checked against the root certificate that the maker enclosed; pass your own with --tsa-root.")
    return tuple(notes)


def _code(key: Key) -> str:
    """Return the digest of the code that judges a key."""
    return code_digest(type(ownership(key.method, {})).__module__)


def _text(data: bytes) -> str:
    """Return bytes as base64."""
    return base64.b64encode(data).decode()
