r"""A suspect behind an address: images go out in batches, answers come back, and what was answered is never asked again.

The body of a request is ``{"instances": [...]}``, one entry for each image: nested lists (C, H, W) of numbers in [0, 1] (``json``), or
``{"b64": "..."}`` with a PNG (``png``). The answer is a list with one entry for each image, or an object that has such a list as
``predictions``, ``probabilities`` or ``labels``. An entry is a list of K probabilities or logits, a class number, or a class name of the key.
"""

from __future__ import annotations

import base64
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelward.core.errors import FormatError, InputError, UsageError
from modelward.core.progress import advance
from modelward.io.age import Secret
from modelward.io.answers import Answers, described, of_rows
from modelward.io.endpoint_http import TRANSIENT, Reply, TransientError, address_of, is_local, meaning, post, shown
from modelward.io.endpoint_state import State
from modelward.io.images import png_bytes

LISTS = ("predictions", "probabilities", "labels")
PATIENCE = 300.0
_NUMBERS = [f"{value / 255:.9g}" for value in range(256)]


@dataclass(frozen=True, kw_only=True)
class Asking:
    """How a service is asked.

    Parameters
    ----------
    send
        ``json`` or ``png``.
    batch
        images in one request.
    rate
        requests a second at most; ``None`` asks as fast as answers come.
    budget
        images that may be sent at most, repeats, retries and those of a resumed run among them.
    retries
        further tries of a request that failed in passing (429, 5xx, no connection), after 0.5, 1, 2, ... s or what Retry-After says.
    repeats
        images that are asked twice, to see whether the answers hold.
    timeout
        seconds for one request.
    headers
        further headers, such as a token.
    resume
        file of the answers so far.
    """

    send: str = "json"
    batch: int = 32
    rate: float | None = None
    budget: int | None = None
    retries: int = 4
    repeats: int = 4
    timeout: float = 60.0
    headers: Mapping[str, Secret] = field(default_factory=dict)
    resume: Path | None = None

    def __post_init__(self) -> None:
        fine = self.send in {"json", "png"} and self.batch >= 1 and self.retries >= 0 and self.repeats >= 0 and 0 < self.timeout < 86_400
        if not fine or (self.rate is not None and not 0 < self.rate < math.inf) or (self.budget is not None and self.budget < 1):
            raise UsageError(
                "a service is asked with --send json or png, --batch, --rate, --budget and --timeout above 0, --retries from 0"
            )


class Endpoint:
    """A classifier behind an http or https address.

    Parameters
    ----------
    url
        its address; a secret has no place in it.
    classes
        class names of the key's model.
    sleep, clock
        how to wait, and what time it is in seconds.

    Raises
    ------
    UsageError
        for another scheme, a secret in the address, or one that would travel unencrypted.

    Examples
    --------
    >>> Endpoint("https://models.example/v1/cats", ("cat", "dog")).name
    'models.example/v1/cats'
    """

    def __init__(
        self,
        url: str,
        classes: Sequence[str],
        asking: Asking | None = None,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        parts = address_of(url)
        self.name = shown(parts)
        self.asking = asking or Asking()
        self._url = parts._replace(fragment="").geturl()
        self._classes = tuple(classes)
        self._sleep, self._clock = sleep, clock
        self._last = -math.inf
        if self.asking.headers and parts.scheme == "http" and not is_local(parts.hostname or ""):
            raise UsageError("the headers would travel unencrypted; use https")

    def ask(self, pixels: NDArray[np.uint8]) -> tuple[Answers, tuple[str, ...], int]:
        """Return the answers for uint8 images (n, C, H, W), what is to be known of them, and how many images were sent beyond n.

        Raises
        ------
        UsageError
            when the budget is too small; nothing was asked then.
        InputError, FormatError, UnsafeFileError
            when the service refuses, is too slow, leads elsewhere, or answers with something else. Answers so far are kept in ``resume``.
        """
        state = State.load(self.asking.resume, pixels, f"{self._url} {self.asking.send}")
        missing = state.missing()
        self._require_budget(state, len(missing), len(pixels))
        try:
            for start in range(0, len(missing), self.asking.batch):
                advance("asking the service", len(pixels) - len(missing) + start, len(pixels))
                where = missing[start : start + self.asking.batch]
                state.put(where, self._batch(pixels[where], state))
            self._repeat(pixels, state)
        finally:
            state.save()  # what a failed request has sent counts too
        found = state.answers()
        answers = found if found.probabilities is None else described(found.probabilities)
        return answers, state.notes(self.name), max(0, state.sent - len(pixels))

    def _require_budget(self, state: State, missing: int, count: int) -> None:
        """Refuse before the first question what cannot be finished."""
        if self.asking.budget is not None and state.sent + missing > self.asking.budget:
            before = f" and {state.sent} were sent before" if state.sent else ""
            message = (
                f"the key asks about {count:,} images{before}: that is more than the --budget of {self.asking.budget:,}; nothing was sent"
            )
            raise UsageError(message)

    def _repeat(self, pixels: NDArray[np.uint8], state: State) -> None:
        """Ask a few images, spread over all, a second time, as far as the budget goes."""
        left = math.inf if self.asking.budget is None else self.asking.budget - state.sent
        count = int(min(self.asking.repeats, max(0, left)))
        if state.again is None and count:
            where = state.spread(count)
            state.put_again(where, self._batch(pixels[where], state))

    def _batch(self, pixels: NDArray[np.uint8], state: State) -> Answers:
        """Return the answers for one batch, trying again where that may help."""
        body, why, pause, tries = body_of(pixels, self.asking.send), "", 0.0, 0
        while tries <= self.asking.retries and pause <= PATIENCE:
            if tries:
                self._sleep(pause)
            self._pace(len(pixels), state)
            tries += 1
            pause = min(30.0, 0.25 * 2**tries)
            try:
                reply = post(self._url, body, self.asking.headers, timeout=self.asking.timeout)
            except TransientError as error:
                why = str(error)
                continue
            if 200 <= reply.status < 300:
                return of_rows(self._rows(reply), len(pixels), self._classes, self.name)
            why = f"status {reply.status}, {meaning(reply.status)}"
            if reply.status not in TRANSIENT:
                message = f"{self.name} gave no answer: {why}"
                raise InputError(message)
            pause = pause if reply.wait is None else reply.wait
        later = f", and asks to wait {pause:.0f} s" if pause > PATIENCE else ""
        message = f"{self.name} gave no answer after {tries} tr{'y' if tries == 1 else 'ies'}: {why}{later}; {self._kept(state)}"
        raise InputError(message)

    def _pace(self, images: int, state: State) -> None:
        """Wait for the next request's turn and count what it sends; raise `InputError` when retries have used the budget up."""
        if self.asking.budget is not None and state.sent + images > self.asking.budget:
            message = f"the --budget of {self.asking.budget:,} images was used up by retries at {self.name}; {self._kept(state)}"
            raise InputError(message)
        wait = 0.0 if self.asking.rate is None else self._last + 1 / self.asking.rate - self._clock()
        if wait > 0:
            self._sleep(wait)
        self._last = self._clock()
        state.sent += images

    def _kept(self, state: State) -> str:
        """Return what became of the answers so far."""
        if self.asking.resume is None:
            return "pass --resume FILE to keep what was answered"
        return f"{state.count - len(state.missing())} of {state.count} answers are in {self.asking.resume.name}, and the same command goes on from there"

    def _rows(self, reply: Reply) -> Any:
        """Return the list of answers in a reply."""
        if reply.html or reply.body.lstrip()[:1] == b"<":
            message = f"{self.name} answered with a web page, not with JSON; is this the address of the model?"
            raise FormatError(message)
        try:
            document = json.loads(reply.body, parse_constant=_no_number)
        except (ValueError, RecursionError):  # its words are the service's own, and are not repeated
            message = f"{self.name} answered with no JSON, or with NaN in it"
            raise FormatError(message) from None
        if isinstance(document, dict):
            name = next((name for name in LISTS if name in document), None)
            if name is None:
                message = f"{self.name} answered with an object without {', '.join(LISTS[:-1])} or {LISTS[-1]}"
                raise FormatError(message)
            document = document[name]
        return document


def _no_number(text: str) -> float:
    """Refuse NaN and infinities, which JSON does not have."""
    raise ValueError(text)


def body_of(pixels: NDArray[np.uint8], send: str) -> bytes:
    """Return the request for uint8 images (n, C, H, W).

    >>> body_of(np.array([[[[0, 255]]]], dtype=np.uint8), "json")
    b'{"instances":[[[[0,1]]]]}'
    """
    if send == "png":
        return json.dumps({"instances": [{"b64": base64.b64encode(png_bytes(image)).decode()} for image in pixels]}).encode()

    def nested(array: NDArray[np.uint8]) -> str:
        inner = map(_NUMBERS.__getitem__, array.tolist()) if array.ndim == 1 else map(nested, array)
        return f"[{','.join(inner)}]"

    return f'{{"instances":{nested(pixels)}}}'.encode()
