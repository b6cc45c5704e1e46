"""Suspects behind an address: a server in a thread answers well, badly, slowly, rudely; nothing outside this machine is asked."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
import time
from dataclasses import dataclass, field
from email.utils import formatdate
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from modelward.core.errors import FormatError, InputError, UnsafeFileError, UsageError
from modelward.io import endpoint_http
from modelward.io.age import Secret
from modelward.io.endpoint import Asking, Endpoint
from modelward.io.images import read_image

CLASSES = ("red", "green", "blue")
TOKEN = "s3cr3t-canary-token"  # noqa: S105  # planted to be searched for
Answer = tuple[int, dict[str, str], bytes]
GUARD_S = 60.0


def fine(images: Any, key: str | None = "predictions") -> Answer:
    """Answer with made-up probabilities that depend on the image alone."""
    rows = (np.array(images, dtype=np.float64).reshape(len(images), -1)[:, :3] + 0.1) ** 2
    rows = (rows / rows.sum(1, keepdims=True)).tolist()
    return 200, {}, json.dumps(rows if key is None else {key: rows}).encode()


@pytest.fixture(autouse=True)
def _answering(service: Any) -> None:
    """Let the server answer well, until a test says otherwise."""
    service.answer = lambda _, images: fine(images)


@dataclass
class Time:
    """A clock that only sleeping moves."""

    now: float = 0.0
    naps: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds

    def clock(self) -> float:
        return self.now


PIXELS = np.random.default_rng(0).integers(0, 256, (10, 1, 2, 2), dtype=np.uint8)


def ask(service: Any, watch: Time | None = None, pixels: Any = PIXELS, classes: Any = CLASSES, **asking: Any) -> Any:
    """Ask a server about images, without waiting for real."""
    watch = watch or Time()
    given = {"batch": 4, "repeats": 0, "timeout": GUARD_S} | asking
    return Endpoint(service.url, classes, Asking(**given), sleep=watch.sleep, clock=watch.clock).ask(pixels)


def wanted(pixels: Any = PIXELS) -> np.ndarray:
    """Return what `fine` answers."""
    return np.array(json.loads(fine((pixels / np.float32(255)).tolist(), None)[2]), dtype=np.float32)


@pytest.mark.parametrize("key", ["predictions", "probabilities", None])
def test_probabilities_come_back_in_order(service: Any, key: str | None) -> None:
    service.answer = lambda _, images: fine(images, key)
    answers, _, extra = ask(service)
    assert np.allclose(answers.probabilities, wanted(), atol=1e-6)
    assert ([len(request) for request in service.requests], extra) == ([4, 4, 2], 0)
    assert np.allclose(service.requests[0], PIXELS[:4] / 255, atol=1e-8)


def test_labels_and_class_names(service: Any) -> None:
    service.answer = lambda number, images: (200, {}, json.dumps({"labels": [number, *["blue"] * (len(images) - 1)]}).encode())
    assert ask(service)[0].labels.tolist() == [0, 2, 2, 2, 1, 2, 2, 2, 2, 2]


def test_png_is_the_image_itself(service: Any) -> None:
    def decode(_: int, images: Any) -> Answer:
        return fine([(read_image(base64.b64decode(image["b64"])) / np.float32(255)).tolist() for image in images])

    service.answer = decode
    assert np.allclose(ask(service, send="png")[0].probabilities, wanted(), atol=1e-6)


def test_a_few_images_are_asked_twice_and_counted(service: Any) -> None:
    _, notes, extra = ask(service, repeats=3)
    assert (service.images, extra, notes) == (13, 3, ())
    service.answer = lambda number, images: fine(np.array(images) * (1 - 0.2 * (number % 2)))
    _, notes, _ = ask(service, repeats=3, batch=10)
    assert "3 of 3 images that were asked twice were answered differently" in notes[0]
    assert "No image was asked twice" in ask(service)[1][0]


def test_failures_in_passing_are_tried_again(service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_800_000_000
    monkeypatch.setattr(endpoint_http, "time", SimpleNamespace(time=lambda: now, monotonic=time.monotonic))
    replies = {
        0: (429, {"Retry-After": "7"}),
        1: (503, {}),
        2: (500, {"Retry-After": formatdate(now + 20, usegmt=True)}),
        5: (502, {}),
    }
    service.answer = lambda number, images: (*replies[number], b"") if number in replies else fine(images)
    watch = Time()
    answers, _, extra = ask(service, watch)
    assert np.allclose(answers.probabilities, wanted(), atol=1e-6)
    assert watch.naps == [7, 1, 20, 0.5]
    assert (service.images, extra) == (24, 14)


def test_a_service_that_stays_out_of_order(service: Any) -> None:
    service.answer = lambda _, __: (503, {}, TOKEN.encode())
    watch = Time()
    with pytest.raises(InputError, match="after 3 tries: status 503") as caught:
        ask(service, watch, retries=2)
    assert watch.naps == [0.5, 1]
    assert TOKEN not in str(caught.value)
    service.answer = lambda _, __: (429, {"Retry-After": "86400"}, b"")
    with pytest.raises(InputError, match="asks to wait 86400 s"):
        ask(service, watch)
    assert len(watch.naps) == 2


def test_rate_and_budget(service: Any) -> None:
    watch = Time()
    ask(service, watch, rate=0.5)
    assert watch.naps == [2, 2]
    service.requests.clear()
    with pytest.raises(UsageError, match=r"10 images: that is more than the --budget of 9"):
        ask(service, budget=9)
    assert service.requests == []
    assert ask(service, budget=12, repeats=4)[2] == 2
    service.answer = lambda number, images: (503, {}, b"") if number % 2 else fine(images)
    service.requests.clear()
    with pytest.raises(InputError, match="used up by retries"):
        ask(service, budget=11)
    assert service.images <= 11


def test_answers_are_never_asked_again(service: Any, tmp_path: Any) -> None:
    file = tmp_path / "asked"
    service.answer = lambda number, images: fine(images) if number < 2 else (400, {}, b"")
    with pytest.raises(InputError, match="status 400"):
        ask(service, resume=file, repeats=2)
    assert file.stat().st_mode & 0o777 == 0o600
    service.answer, before = lambda _, images: fine(images), service.images
    answers, notes, extra = ask(service, resume=file, repeats=2)
    assert np.allclose(answers.probabilities, wanted(), atol=1e-6)
    assert (service.images - before, extra, notes) == (4, 4, ())  # 2 missing and 2 twice; the 2 of the failed request count
    before = service.images
    again = ask(service, resume=file, repeats=2, budget=14)
    assert np.array_equal(again[0].probabilities, answers.probabilities)
    assert (service.images, again[2]) == (before, extra)


def test_a_run_that_is_stopped_goes_on(service: Any, tmp_path: Any) -> None:
    class Stopped(Time):
        def sleep(self, seconds: float) -> None:  # noqa: ARG002
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ask(service, Stopped(), resume=tmp_path / "asked", rate=1.0)
    assert service.images == 4
    assert np.allclose(ask(service, resume=tmp_path / "asked")[0].probabilities, wanted(), atol=1e-6)
    assert service.images == 10


def test_a_file_of_other_questions_or_bytes_is_refused(service: Any, tmp_path: Any) -> None:
    file = tmp_path / "asked"
    ask(service, resume=file)
    with pytest.raises(UsageError, match="other images"):
        ask(service, resume=file, pixels=255 - PIXELS)
    with pytest.raises(UsageError, match="other images"):
        ask(service, resume=file, send="png")
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(UnsafeFileError, match="digest differs"):
        ask(service, resume=file)
    file.write_bytes(b"nothing")
    with pytest.raises(FormatError):
        ask(service, resume=file)


@pytest.mark.parametrize(
    ("reply", "kind", "word"),
    [
        ((200, {"Content-Type": "text/html"}, b"hello"), FormatError, "web page"),
        ((200, {}, b"  <!doctype html>"), FormatError, "web page"),
        ((200, {}, b"{"), FormatError, "no JSON"),
        ((200, {}, b"\xff\xfe"), FormatError, "no JSON"),
        ((200, {}, b"[" * 100_000), FormatError, "no JSON"),
        ((200, {}, b'{"predictions": [[NaN, 0, 0]]}'), FormatError, "NaN"),
        ((200, {}, b'{"scores": []}'), FormatError, "without predictions"),
        ((200, {}, json.dumps([[0.5, 0.5]] * 4).encode()), FormatError, "2 numbers for an image.*3 classes"),
        ((200, {}, json.dumps([[0.2, 0.3, 0.5]] * 3).encode()), FormatError, "3 answers for 4 images"),
        ((200, {}, json.dumps([7] * 4).encode()), FormatError, "class 7"),
        ((401, {}, TOKEN.encode()), InputError, "status 401, it wants a token"),
        ((404, {}, b""), InputError, "status 404, there is nothing"),
        ((418, {}, b""), InputError, "status 418, it refused"),
        ((302, {"Location": "http://elsewhere.example/"}, b""), UnsafeFileError, "another address .http://elsewhere.example."),
        ((302, {"Location": "file:///etc/passwd"}, b""), UnsafeFileError, "another address"),
        ((307, {"Location": "/v1/model"}, b""), InputError, "circle"),
    ],
)  # fmt: skip
def test_one_sentence_for_what_is_no_answer(service: Any, reply: Answer, kind: type[Exception], word: str) -> None:
    service.answer = lambda _, __: reply
    with pytest.raises(kind, match=word) as caught:
        ask(service, headers={"Authorization": Secret(TOKEN)})
    assert TOKEN not in str(caught.value) + repr(caught.value.__cause__)
    assert len(str(caught.value)) < 300


def test_a_redirect_on_the_same_host_is_followed(service: Any) -> None:
    service.answer = lambda number, images: (308, {"Location": "/v2"}, b"") if number % 2 == 0 else fine(images)
    assert np.allclose(ask(service, batch=10)[0].probabilities, wanted(), atol=1e-6)


def test_labels_after_probabilities(service: Any) -> None:
    service.answer = lambda number, images: fine(images) if number == 0 else (200, {}, json.dumps([0] * len(images)).encode())
    with pytest.raises(FormatError, match="now with labels"):
        ask(service)


def test_a_body_without_end_is_cut_off(service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_http, "BODY_CAP", 2**20)
    service.answer = lambda _, __: (200, {}, b"[" + b"0," * 2**20)
    with pytest.raises(UnsafeFileError, match="more than 1 MiB"):
        ask(service)


def test_a_slow_service_is_left(service: Any) -> None:
    over, answered = threading.Event(), list[bool]()

    def slow(_: int, images: Any) -> Answer:
        answered.append(over.wait(GUARD_S))
        return fine(images)

    service.answer = slow
    with pytest.raises(InputError, match="too slow"):
        ask(service, timeout=0.2, retries=1)
    assert not answered
    over.set()


@pytest.mark.parametrize("greeting", [b"HTTP/1.0 200 OK\r\nX: ", b"HTTP/1.0 200 OK\r\n\r\n["])
def test_a_service_that_drips_is_left(greeting: bytes) -> None:
    import socket

    ended = threading.Event()

    def drip() -> None:
        with contextlib.suppress(OSError), listener.accept()[0] as peer:
            peer.sendall(greeting)
            for _ in range(round(GUARD_S / 0.05)):
                peer.sendall(b"1")
                time.sleep(0.05)
            ended.set()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=drip, daemon=True).start()
        with pytest.raises(InputError, match="too slow"):
            ask(SimpleNamespace(url=f"http://127.0.0.1:{listener.getsockname()[1]}/"), timeout=0.3, retries=0)
        assert not ended.is_set()


def test_nobody_there() -> None:
    with pytest.raises(InputError, match="after 2 tries: nobody answers there"):
        ask(SimpleNamespace(url="http://127.0.0.1:9/"), retries=1)


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("ftp://host/x", "scheme 'ftp'"), ("file:///etc/passwd", "address such as"), ("http://", "address such as"), ("https://h:x/", "malformed"),
        ("https://user:pw@host/x", "secret"), ("https://host/x?api_key=1", "secret"), ("https://ho st/", "address such as|scheme"),
    ],
)  # fmt: skip
def test_addresses_that_are_refused(url: str, word: str) -> None:
    with pytest.raises(UsageError, match=word) as caught:
        Endpoint(url, CLASSES)
    assert "pw" not in str(caught.value)


def test_headers_go_out_and_only_there(service: Any) -> None:
    ask(service, headers={"Authorization": Secret(f"Bearer {TOKEN}")})
    assert service.headers[0]["Authorization"] == f"Bearer {TOKEN}"
    assert TOKEN not in repr(Asking(headers={"Authorization": Secret(TOKEN)}))
    with pytest.raises(UsageError, match="unencrypted"):
        Endpoint("http://models.example/x", CLASSES, Asking(headers={"X": Secret(TOKEN)}))


@pytest.mark.parametrize("wrong", [{"send": "xml"}, {"batch": 0}, {"rate": 0.0}, {"budget": 0}, {"retries": -1}, {"timeout": 0.0}])
def test_manners_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="asked with"):
        Asking(**wrong)


def test_grey_and_colour_go_out_whole(service: Any) -> None:
    for channels in (1, 3):
        pixels = torch.randint(0, 256, (3, channels, 5, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8).numpy()
        service.requests.clear()
        ask(service, pixels=pixels)
        assert np.array_equal(np.rint(np.array(service.requests[0]) * 255), pixels)
