"""A suspect that is a Python function of the user's own: ``package.module:function``, imported from the current folder."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelward.core.errors import InputError, UsageError
from modelward.core.nearest import nearest
from modelward.core.progress import advance
from modelward.io.answers import Answers, described, of_rows
from modelward.io.endpoint_state import State
from modelward.models.custom import here, is_custom

BATCH = 256
REPEATS = 4


def ask_function(name: str, pixels: NDArray[np.uint8], classes: Sequence[str]) -> tuple[Answers, tuple[str, ...], int]:
    """Return what a function answers for images, what is to be known of that, and how many images it was asked beyond n.

    Parameters
    ----------
    name
        ``package.module:function``. The function takes float32 images (N, C, H, W) in [0, 1] as a numpy array, at most 256 at once, and
        returns probabilities or logits (N, K), or class numbers (N,). It is code, and it runs in this process: name only what you trust.
    pixels
        uint8 images (n, C, H, W).
    classes
        class names of the key's model.

    Raises
    ------
    UsageError
        when the name is no name of a function.
    InputError, FormatError
        when it cannot be imported, fails, or answers with something else.
    """
    function = _imported(name)
    state = State.empty(len(pixels))

    def answer(where: NDArray[np.int64]) -> Answers:
        x = pixels[where].astype(np.float32) / np.float32(255)
        try:
            with here():
                found = function(x)
        except (Exception, SystemExit) as error:
            message = f"{name} raised {_words(error)}"
            raise InputError(message) from error
        return of_rows(_plain(found), len(where), classes, name)

    for start in range(0, len(pixels), BATCH):
        advance("asking the function", start, len(pixels))
        where = np.arange(start, min(start + BATCH, len(pixels)))
        state.put(where, answer(where))
    again = state.spread(REPEATS)
    state.put_again(again, answer(again))
    found = state.answers()
    return found if found.probabilities is None else described(found.probabilities), state.notes(name), len(again)


def _imported(name: str) -> Callable[[NDArray[np.float32]], Any]:
    """Import a function; the current folder is the last place that is searched."""
    if not is_custom(name):
        message = f"--suspect takes a function as package.module:function, not {name!r}"
        raise UsageError(message)
    module_name, _, attribute = name.partition(":")
    importlib.invalidate_caches()
    try:
        with here():
            module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        message = f"--suspect {name}: importing it raised {_words(error)}"
        raise InputError(message) from error
    function = getattr(module, attribute, None)
    if not callable(function):
        known = [known for known, value in vars(module).items() if callable(value) and not known.startswith("_")]
        message = f"--suspect {name}: the module has no function {attribute!r}{nearest(attribute, known)}"
        raise InputError(message)
    found: Callable[[NDArray[np.float32]], Any] = function
    return found


def _words(error: BaseException) -> str:
    """Return an error of the user's code in one line."""
    lines = str(error).splitlines()
    return f"{type(error).__name__}{': ' + lines[0][:200] if lines else ''}"


def _plain(found: Any) -> Any:
    """Return an array or a tensor as nested lists."""
    if hasattr(found, "detach"):
        found = found.detach().cpu()
    try:
        return np.asarray(found).tolist()
    except (ValueError, TypeError, RuntimeError):
        return None
