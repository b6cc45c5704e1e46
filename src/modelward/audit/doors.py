"""The doors a suspect can come through: weights, an ONNX file, a table of answers, a Python function, a service."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modelward.audit.functions import ask_function
from modelward.core.errors import InputError, UsageError
from modelward.core.key import Key
from modelward.core.suspect import Suspect
from modelward.io.answers import Answers
from modelward.io.endpoint import Asking, Endpoint
from modelward.io.onnx_suspect import ask_onnx
from modelward.io.sniff import kind_of
from modelward.io.tables import read_answers_csv
from modelward.models import Convention

ADDED = 16  # classes that a mark may have added


def answered(path: Path, probes: Tensor, key: Key, convention: Convention | None = None) -> Suspect | None:
    """Return the suspect that an ONNX file or ``answers.csv`` stands for, or ``None`` for a file of weights.

    Parameters
    ----------
    probes
        the key's query images, uint8 (n, C, H, W).
    convention
        what an ONNX net expects of its images, where that is not RGB in [0, 1].

    Raises
    ------
    UsageError
        for a convention of a table, or one that does not fit the probes.
    InputError, FormatError, UnsafeFileError, UnavailableError
        from the readers.
    """
    kind = kind_of(path)
    if kind in {"csv", "text"} or path.suffix.lower() == ".csv":
        refuse_convention(convention, path.name)
        return _collected(read_answers_csv(path, probe_names(len(probes)), _outputs(key)), path.name)
    if kind == "onnx" or path.suffix.lower() == ".onnx":
        pixels, affine = _prepared(probes, convention)
        answers, notes = ask_onnx(path, pixels, len(known_classes(key, path.name)), affine=affine)
        return _collected(answers, path.name, notes)
    return None


def refuse_convention(convention: Convention | None, name: str) -> None:
    """Raise `UsageError` when a convention is given for a suspect that modelward does not hand images to as numbers of its own."""
    if convention is not None:
        message = f"--range, --channels, --mean and --std go with weights and ONNX files; {name} gets the images in [0, 1]"
        raise UsageError(message)


def _prepared(probes: Tensor, convention: Convention | None) -> tuple[NDArray[np.uint8], NDArray[np.float32] | None]:
    """Return probes with their channels in the net's order, and the scale and shift (2, C) that its convention asks for."""
    if convention is None:
        return probes.numpy(), None
    channels = probes.shape[1]
    if {len(convention.mean), len(convention.std)} - {1, channels} or (convention.channels == "bgr" and channels != 3):
        message = f"the probes have {channels} channels: give one or {channels} of --mean and --std, and bgr only for three"
        raise UsageError(message)
    low, high = (convention.applied(torch.full((1, channels, 1, 1), value)).flatten().numpy() for value in (0.0, 1.0))
    pixels = probes.flip(1) if convention.channels == "bgr" else probes
    return pixels.contiguous().numpy(), np.stack([high - low, low]).astype(np.float32)


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
    return tuple(map(str, key.fact(list, "classes"))) if "classes" in key.facts else ()


def _outputs(key: Key) -> int | None:
    """Return how many classes an answer may name, where the key knows them: those of the task, and one that a mark added."""
    classes, labels = len(_classes(key)), key.tensors.get("labels")
    added = int(labels.max()) + 1 if labels is not None and labels.numel() and not labels.is_floating_point() else 0
    return min(max(classes, added), classes + ADDED) if classes else None


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
