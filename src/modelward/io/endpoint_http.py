"""One question to a service over HTTP: bounded in size and time, never led to another host, its secrets never shown."""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import ipaddress
import re
import socket
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from modelward._version import __version__
from modelward.core.errors import InputError, UnsafeFileError, UsageError
from modelward.io.age import Secret

BODY_CAP = 64 * 2**20
REDIRECTS = 3
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
_SECRET_NAMES = re.compile(r"key|token|secret|passw|signature|^sig$|auth", re.IGNORECASE)
_MEANINGS = {
    400: "it did not understand the request: try the other --send", 401: "it wants a token: pass --header-file",
    403: "it forbids the request: check the token in --header-file", 404: "there is nothing at this address",
    405: "this address takes no POST", 413: "the request is too large for it: pass a smaller --batch",
    415: "it does not take this kind of body: try the other --send", 422: "it did not understand the images: try the other --send",
}  # fmt: skip


@dataclass(frozen=True)
class Reply:
    """A whole answer; ``wait`` is the Retry-After in seconds, ``body`` empty unless the status is 2xx."""

    status: int
    body: bytes = b""
    html: bool = False
    wait: float | None = None
    location: str | None = None


class TransientError(Exception):
    """The service could not be reached, or broke off; another try may succeed."""


def address_of(url: str) -> urllib.parse.SplitResult:
    """Return the parts of a service's address.

    Raises
    ------
    UsageError
        for other schemes than http and https, an address without a host, or one that carries a secret.

    Examples
    --------
    >>> address_of("https://models.example/v1/cats").hostname
    'models.example'
    """
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError("the address of the service is malformed") from error
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0 or re.search(r"[\s\x00-\x1f\x7f]", url):
        message = f"a service has an address such as https://host/path, not one of the scheme {parts.scheme[:20]!r}"
        raise UsageError(message if parts.hostname else "a service has an address such as https://host/path")
    named = [name for name, _ in urllib.parse.parse_qsl(parts.query) if _SECRET_NAMES.search(name)]
    if parts.username or parts.password or named:
        raise UsageError("the address holds a secret, which others can read in the list of processes; put it into a --header-file")
    return parts


def shown(parts: urllib.parse.SplitResult) -> str:
    """Return what may be told of an address: host and path."""
    return f"{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"


def is_local(host: str) -> bool:
    """Return whether a host is this machine itself.

    >>> is_local("127.0.0.1"), is_local("localhost"), is_local("models.example")
    (True, True, False)
    """
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def post(url: str, body: bytes, headers: Mapping[str, Secret], *, timeout: float) -> Reply:
    """Send ``body`` as JSON and return the reply; redirects within the same scheme, host and port are followed.

    Raises
    ------
    TransientError
        when the service cannot be reached, breaks off, or takes longer than ``timeout`` seconds.
    UnsafeFileError
        when it leads to another host, or its answer is too large.
    InputError
        when its certificate cannot be verified, or it leads in a circle.
    """
    first = urllib.parse.urlsplit(url)
    for _ in range(REDIRECTS + 1):
        reply = _once(url, body, headers, timeout)
        if reply.location is None:
            return reply
        target = urllib.parse.urlsplit(urllib.parse.urljoin(url, reply.location))
        if (target.scheme, target.hostname, target.port) != (first.scheme, first.hostname, first.port):
            message = f"{shown(first)} leads to another address ({target.scheme}://{target.hostname}); pass that one if you trust it"
            raise UnsafeFileError(message)
        url = target.geturl()
    message = f"{shown(first)} leads in a circle"
    raise InputError(message)


def _once(url: str, body: bytes, headers: Mapping[str, Secret], timeout: float) -> Reply:
    """Send one request and read one reply."""
    own = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": f"modelward/{__version__}"}
    given = {name: secret.reveal() for name, secret in headers.items()}
    request = urllib.request.Request(url, data=body, headers=own | given, method="POST")  # noqa: S310  # the scheme was checked
    deadline = time.monotonic() + timeout
    opened: list[http.client.HTTPConnection] = []
    try:
        with _watched(opened, timeout), _opener(url, opened).open(request, timeout=timeout) as response:
            return Reply(response.status, _read(response, deadline, timeout), "html" in response.headers.get("Content-Type", "").lower())
    except urllib.error.HTTPError as error:
        with error:
            location = error.headers.get("Location") if error.code in {301, 302, 303, 307, 308} else None
            return Reply(error.code, wait=_wait(error.headers.get("Retry-After")), location=location)
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            message = f"the certificate of {urllib.parse.urlsplit(url).hostname} cannot be verified; nothing was sent"
            raise InputError(message) from None
        raise TransientError(_reason(error.reason)) from None
    except (OSError, http.client.HTTPException) as error:
        raise TransientError(_reason(error)) from None


def _reason(error: object) -> str:
    """Return in short why there was no reply, in words that the service did not choose."""
    if isinstance(error, TimeoutError):
        return "it is too slow: it did not answer in time; pass a longer --timeout or a smaller --batch"
    if isinstance(error, socket.gaierror):
        return "its host name is unknown"
    if isinstance(error, ConnectionRefusedError):
        return "nobody answers there"
    return "the connection broke off"


def _read(response: Any, deadline: float, timeout: float) -> bytes:
    """Return the body, piece by piece within size and time."""
    data = bytearray()
    while piece := response.read1(2**16):
        data += piece
        if len(data) > BODY_CAP:
            message = f"the service answers with more than {BODY_CAP // 2**20} MiB; pass a smaller --batch"
            raise UnsafeFileError(message)
        if time.monotonic() > deadline:
            raise TimeoutError(timeout)
    return bytes(data)


def _opener(url: str, opened: list[http.client.HTTPConnection]) -> urllib.request.OpenerDirector:
    """Return an opener that follows no redirect and remembers its connections; this machine is reached without a proxy."""

    def plain(host: str, **options: Any) -> http.client.HTTPConnection:
        opened.append(http.client.HTTPConnection(host, **options))
        return opened[-1]

    def secure(host: str, **options: Any) -> http.client.HTTPSConnection:
        made = http.client.HTTPSConnection(host, **options)
        opened.append(made)
        return made

    class Plain(urllib.request.HTTPHandler):
        def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(plain, req)

    class Secure(urllib.request.HTTPSHandler):
        def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(secure, req, context=ssl.create_default_context())

    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_: Any, **__: Any) -> None:
            """Follow nothing: the status comes back as it is."""

    local = is_local(urllib.parse.urlsplit(url).hostname or "")
    handlers = [Plain(), Secure(), Stay(), *([urllib.request.ProxyHandler({})] if local else [])]
    return urllib.request.build_opener(*handlers)


@contextlib.contextmanager
def _watched(opened: list[http.client.HTTPConnection], timeout: float) -> Iterator[None]:
    """Break connections off that have sent no whole header after ``timeout`` seconds: a socket's own limit starts anew at every byte."""
    late = threading.Event()

    def stop() -> None:
        late.set()
        for connection in opened:
            with contextlib.suppress(OSError, AttributeError):
                connection.sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(timeout, stop)
    timer.daemon = True
    timer.start()
    try:
        yield
        if late.is_set():  # a connection that was shut looks like a body that ended
            raise TimeoutError(timeout)
    except (OSError, http.client.HTTPException) as error:
        if late.is_set() and not isinstance(error, urllib.error.HTTPError):
            raise TimeoutError(timeout) from None
        raise
    finally:
        timer.cancel()


def _wait(text: str | None) -> float | None:
    """Return the seconds that a Retry-After asks for: a number, or a date.

    >>> _wait("3"), _wait(None), _wait("soon")
    (3.0, None, None)
    """
    if text is None:
        return None
    if text.strip().isascii() and text.strip().isdigit() and len(text.strip()) < 10:
        return float(text)
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    return None


def meaning(status: int) -> str:
    """Return what a status that is no answer says, in a sentence of ours.

    >>> meaning(404), meaning(418)
    ('there is nothing at this address', 'it refused the request')
    """
    return _MEANINGS.get(status, "it is out of order or wants fewer requests" if status in TRANSIENT else "it refused the request")
