"""The doors a suspect can come through: weights, an ONNX file, a table of answers, a Python function, a service."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from modelward.audit.functions import ask_function
from modelward.core.errors import InputError
from modelward.core.key import Key
from modelward.core.suspect import Suspect
from modelward.io.answers import Answers
from modelward.io.endpoint import Asking, Endpoint
from modelward.io.onnx_suspect import ask_onnx
from modelward.io.sniff import kind_of
from modelward.io.tables import read_answers_csv


def answered(path: Path, probes: Tensor, key: Key) -> Suspect | None:
    """Return the suspect that an ONNX file or ``answers.csv`` stands for, or ``None`` for a file of weights.

    Parameters
    ----------
    probes
        the key's query images, uint8 (n, C, H, W).

    Raises
    ------
    InputError, FormatError, UnsafeFileError, UnavailableError
        from the readers.
    """
    kind = kind_of(path)
    if kind in {"csv", "text"} or path.suffix.lower() == ".csv":
        return _collected(read_answers_csv(path, probe_names(len(probes)), len(_classes(key)) or None), path.name)
    if kind == "onnx" or path.suffix.lower() == ".onnx":
        answers, notes = ask_onnx(path, probes.numpy(), len(known_classes(key, path.name)))
        return _collected(answers, path.name, notes)
    return None


def named(name: str, probes: Tensor, key: Key, asking: Asking | None = None) -> Suspect:
    """Return the suspect behind an http or https address, or behind ``package.module:function``, once it has answered for the probes.

    Parameters
    ----------
    asking
        how a service is asked; a function knows no such manners.

    Raises
    ------
    UsageError
        for an address or a name that is none, or a budget that is too small.
    InputError, FormatError, UnsafeFileError
        when it does not answer as a classifier of the key's classes does.
    """
    if "://" in name:
        service = Endpoint(name, known_classes(key, "the service"), asking)
        answers, notes, extra = service.ask(probes.numpy())
        return _collected(answers, service.name, notes, extra)
    answers, notes, extra = ask_function(name, probes.numpy(), known_classes(key, name))
    return _collected(answers, name, notes, extra)


def _collected(answers: Answers, name: str, notes: Sequence[str] = (), extra: int = 0) -> Suspect:
    """Return a suspect of answers that were collected for the probes, with what is to be known of them."""
    return Suspect.of_answers(torch.from_numpy(answers.table), name=name, notes=(*notes, *answers.notes), extra=extra)


def _classes(key: Key) -> tuple[str, ...]:
    """Return the class names that the key knows, or none."""
    return tuple(map(str, key.facts.get("classes", ())))


def known_classes(key: Key, name: str) -> tuple[str, ...]:
    """Return the class names of the key's model; raises `InputError` when the key does not know them."""
    classes = _classes(key)
    if len(classes) < 2:
        message = f"the key does not say which classes its model has, so the answers of {name} cannot be checked; enrol the model again"
        raise InputError(message)
    return classes


def probe_names(count: int) -> Sequence[str]:
    """Return the file names of the probe folder, in probe order."""
    return [f"{index:05d}.png" for index in range(count)]
