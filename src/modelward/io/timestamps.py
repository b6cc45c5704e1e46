"""RFC 3161 time stamps: the request, the authority that answers it, and the check of its token without any network."""

from __future__ import annotations

import datetime as dt
import importlib
from dataclasses import dataclass
from typing import Any

from cryptography import x509

from modelward.core.errors import FormatError, InputError, UnavailableError
from modelward.io.age import Secret
from modelward.io.endpoint_http import TransientError, address_of, meaning, post, shown
from modelward.io.files import one_line

CAP = 2**20
SECONDS = 30.0
_SHA256 = "2.16.840.1.101.3.4.2.1"


@dataclass(frozen=True)
class Stamp:
    """What a verified token says: the time (ISO 8601, UTC) and the authority, by the subject of its certificate."""

    time: str
    authority: str


def _library() -> Any:
    """Return the package that reads time stamps."""
    try:
        return importlib.import_module("rfc3161_client")
    except ImportError as error:
        raise UnavailableError("time stamps need the package rfc3161-client: pip install 'modelward[evidence]'") from error


def stamp_request(message: bytes) -> bytes:
    """Return a request (DER) for a time stamp on the SHA-256 of ``message``; the message itself is not in it.

    >>> len(stamp_request(b"what I had")) > 50
    True
    """
    client = _library()
    built = client.TimestampRequestBuilder().data(message).hash_algorithm(client.HashAlgorithm.SHA256).build()
    return bytes(built.as_bytes())


def ask_authority(url: str, request: bytes, *, timeout: float = SECONDS) -> bytes:
    """Send a request to a time-stamping authority and return its reply (DER); only the digest leaves this machine.

    Raises
    ------
    UsageError
        for an address that is none.
    InputError
        when the authority cannot be reached, or does not answer with a time stamp.
    """
    parts = address_of(url)
    headers = {"Content-Type": Secret("application/timestamp-query"), "Accept": Secret("application/timestamp-reply")}
    try:
        reply = post(url, request, headers, timeout=timeout)
    except TransientError as error:
        message = f"the time-stamping authority {shown(parts)} cannot be reached: {error}"
        raise InputError(message) from error
    if not 200 <= reply.status < 300 or not reply.body or len(reply.body) > CAP:
        message = f"the time-stamping authority {shown(parts)} gave no time stamp (status {reply.status}): {meaning(reply.status)}"
        raise InputError(message)
    return reply.body


def certificates(pem: bytes, name: str) -> list[x509.Certificate]:
    """Return the certificates of a PEM file; raises `FormatError` when there are none."""
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        message = f"{name} holds no certificate in PEM form: {one_line(error)}"
        raise FormatError(message) from error


def verified_stamp(token: bytes, digest: bytes, roots: list[x509.Certificate]) -> Stamp:
    """Return what a token (the authority's whole reply, DER) says, once its signature leads to one of ``roots``.

    Parameters
    ----------
    digest
        the SHA-256 that the token must be on.

    Raises
    ------
    FormatError
        when it is no token, is on something else, or is not signed by an authority that ``roots`` vouch for.
    """
    client = _library()
    errors = importlib.import_module("rfc3161_client.errors")
    try:
        reply = client.decode_timestamp_response(token)
        info = reply.tst_info
        if info.message_imprint.hash_algorithm.dotted_string != _SHA256:
            raise FormatError("the time stamp does not hold: it is not on a SHA-256 digest")
        builder = client.VerifierBuilder()
        for root in roots:
            builder = builder.add_root_certificate(root)
        builder.build().verify(reply, digest)
        return Stamp(info.gen_time.astimezone(dt.UTC).isoformat(timespec="seconds"), _authority(reply))
    except (ValueError, TypeError, errors.VerificationError) as error:
        text = f"the time stamp does not hold: {one_line(error)}"
        raise FormatError(text) from error


def _authority(reply: Any) -> str:
    """Return the subject of the certificate that signed."""
    (signer,) = reply.signed_data.signer_infos
    for raw in reply.signed_data.certificates:
        found = x509.load_der_x509_certificate(raw)
        if found.serial_number == signer.serial_number and found.issuer == signer.issuer:
            return one_line(found.subject.rfc4514_string())
    return one_line(signer.issuer.rfc4514_string())
