"""age files whose scrypt takes a blink, written by the specification; and a time-stamping authority that exists for one test run."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


def hkdf(key: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(hashes.SHA256(), 32, salt=salt, info=info).derive(key)


def encode(data: bytes) -> bytes:
    return base64.b64encode(data).rstrip(b"=")


def quick_age(data: bytes, passphrase: str, rounds: int = 14) -> bytes:
    """Return ``data`` (at most 64 KiB) as an age file for a passphrase with 2**rounds of scrypt."""
    file_key, salt, nonce = os.urandom(16), os.urandom(16), os.urandom(16)
    wrapping = hashlib.scrypt(
        passphrase.encode(), salt=b"age-encryption.org/v1/scrypt" + salt, n=2**rounds, r=8, p=1, maxmem=2**28, dklen=32
    )
    body = encode(ChaCha20Poly1305(wrapping).encrypt(bytes(12), file_key, None))
    head = b"age-encryption.org/v1\n-> scrypt " + encode(salt) + b" " + str(rounds).encode() + b"\n" + body + b"\n---"
    seal = hmac.new(hkdf(file_key, b"", b"header"), head, hashlib.sha256).digest()
    sealed = ChaCha20Poly1305(hkdf(file_key, nonce, b"payload")).encrypt(bytes(11) + b"\x01", data, None)
    return head + b" " + encode(seal) + b"\n" + nonce + sealed


@pytest.fixture(scope="session")
def quick() -> Callable[..., bytes]:
    """Return the maker of age files that open quickly."""
    return quick_age


class Authority:
    """A time-stamping authority of this test run: a root, a certificate for time stamps, and `openssl ts` to sign with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "ts.cnf").write_text(CONFIG)
        (folder / "serial").write_text("01\n")
        ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "3650"]
        self._openssl(
            "req", "-x509", *ec, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=Test root", "-extensions", "ca", "-config", "ts.cnf"
        )
        self._openssl("req", *ec[:-2], "-keyout", "tsa.key", "-out", "tsa.csr", "-subj", "/CN=Test authority", "-config", "ts.cnf")
        self._openssl(
            "x509", "-req", "-in", "tsa.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "3650", "-out", "tsa.pem",
            "-extfile", "ts.cnf", "-extensions", "stamps",
        )  # fmt: skip
        self.pem = (folder / "ca.pem").read_bytes()

    def _openssl(self, *arguments: str) -> None:
        done = subprocess.run(["openssl", *arguments], cwd=self.folder, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr

    def stamp(self, request: bytes) -> bytes:
        """Return the reply to a request (DER)."""
        (self.folder / "request.tsq").write_bytes(request)
        self._openssl("ts", "-reply", "-queryfile", "request.tsq", "-config", "ts.cnf", "-out", "reply.tsr")
        return (self.folder / "reply.tsr").read_bytes()

    def agrees(self, token: bytes, digest: str) -> bool:
        """Return whether openssl, which knows nothing of our reader, finds a token to be on ``digest``."""
        (self.folder / "token.tsr").write_bytes(token)
        command = ["openssl", "ts", "-verify", "-digest", digest, "-in", "token.tsr", "-CAfile", "ca.pem"]
        return subprocess.run(command, cwd=self.folder, capture_output=True, check=False, timeout=60).returncode == 0


CONFIG = """
[req]
distinguished_name = dn
[dn]
[ca]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign
[stamps]
basicConstraints = critical, CA:false
keyUsage = critical, digitalSignature
extendedKeyUsage = critical, timeStamping
[tsa]
default_tsa = stamping
[stamping]
dir = .
serial = ./serial
crypto_device = builtin
signer_cert = ./tsa.pem
signer_key = ./tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256, sha512
accuracy = secs:1
ess_cert_id_chain = no
"""


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return a time-stamping authority that nobody outside this test run trusts."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl plays the time-stamping authority, and it is not installed")
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Authority:
    """Return another authority of the same name."""
    del authority
    return Authority(tmp_path_factory.mktemp("stranger"))


@pytest.fixture
def httpd() -> Iterator[Callable[[Callable[[bytes, Any], tuple[int, bytes]]], str]]:
    """Return the maker of services on this machine: from (body, headers) to (status, body); it returns the address."""
    servers: list[ThreadingHTTPServer] = []

    def serve(answer: Callable[[bytes, Any], tuple[int, bytes]]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                status, body = answer(self.rfile.read(int(self.headers["Content-Length"])), self.headers)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()
