"""ONNX suspects: a size cap, then a throw-away child with limits checks the graph and runs it; what comes back is checked again."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modelward.core.errors import InputError, UnavailableError, UnsafeFileError
from modelward.io.answers import Answers, described
from modelward.io.atomic import write_bytes
from modelward.io.files import read_bytes
from modelward.io.safetensors import dump_arrays, load_arrays

FILE_CAP = 2**30
ANSWER_CAP = 2**30
SECONDS = 600.0
UNFIT, UNSAFE = 3, 5


def ask_onnx(
    source: Path | str,
    pixels: NDArray[np.uint8],
    classes: int,
    *,
    affine: NDArray[np.float32] | None = None,
    seconds: float = SECONDS,
) -> tuple[Answers, tuple[str, ...]]:
    """Return what an ONNX classifier answers for images, and what is to be known of it.

    The file is never opened by a parser in this process. The child refuses external data, custom operators and graphs out of
    bounds before it runs anything, works on one thread, and is stopped by memory and time limits.

    Parameters
    ----------
    pixels
        uint8 images (n, C, H, W). The graph gets float32 in [0, 1], or what its input asks for: uint8 0 to 255, channels last.
    classes
        K; one output must be (N, K) probabilities or logits, or (N,) class numbers.
    affine
        float32 (2, C): scale and shift of the channels, where the graph wants other numbers than [0, 1].
    seconds
        wall-clock limit.

    Raises
    ------
    UnavailableError
        when onnx or onnxruntime is not installed.
    UnsafeFileError
        a file over 1 GiB, weights in other files, a graph out of bounds, a child stopped by its limits.
    InputError
        a file that is no ONNX model, operators that standard ONNX lacks, another input or number of classes, NaN.
    """
    source = Path(source)
    if any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxruntime")):
        raise UnavailableError("ONNX suspects need two more packages; install them with: pip install 'modelward[onnx]'")
    data = read_bytes(source, cap=FILE_CAP)
    with tempfile.TemporaryDirectory(prefix="modelward-onnx-") as folder:
        copy, images, out = (Path(folder) / name for name in ("suspect.onnx", "probes.safetensors", "answers.safetensors"))
        write_bytes(copy, data)  # alone in its folder, so that no path in it leads anywhere
        write_bytes(images, dump_arrays({"pixels": pixels} | ({} if affine is None else {"affine": affine})))
        _run_child(source.name, [str(copy), str(images), str(out), str(classes), str(int(seconds))], seconds)
        arrays, facts = load_arrays(out, cap=ANSWER_CAP)
    return _answers(arrays.get("answers"), len(pixels), classes, source.name), tuple(map(str, json.loads(facts["notes"])))


def _answers(found: NDArray[np.generic] | None, count: int, classes: int, name: str) -> Answers:
    """Return answers from arrays that a stranger's graph had a hand in."""
    if found is not None and found.dtype == np.int64 and found.shape == (count,):
        return Answers(labels=found.astype(np.int64))
    if found is not None and found.dtype == np.float32 and found.shape == (count, classes) and bool(np.isfinite(found).all()):
        return described(found.astype(np.float32))
    message = f"{name}: the child that ran it handed back no answers"
    raise InputError(message)


def _run_child(name: str, arguments: list[str], seconds: float) -> None:
    """Run the child and turn its one-line answer into an error."""
    command = [sys.executable, "-I", "-m", "modelward.io.onnx_child", *arguments]
    environment = {key: os.environ[key] for key in ("PATH", "SYSTEMROOT", "TEMP", "TMPDIR") if key in os.environ}
    environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # the child may not start threads once it is locked
    folder = Path(arguments[0]).parent
    try:
        done = subprocess.run(command, capture_output=True, timeout=seconds, check=False, env=environment, cwd=folder)  # noqa: S603
    except subprocess.TimeoutExpired as error:
        message = f"{name} was stopped: answering took longer than {seconds:.0f} s"
        raise UnsafeFileError(message) from error
    if done.returncode == 0:
        return
    lines = done.stdout[-4096:].decode(errors="replace").splitlines()
    if done.returncode in {UNFIT, UNSAFE} and lines:
        why = "".join(char if char.isprintable() else "?" for char in lines[-1][:300])  # the file chose some of these words
        message = f"{name} cannot be asked: {why}"
        raise (UnsafeFileError if done.returncode == UNSAFE else InputError)(message)
    message = f"{name} was refused: the child that ran it was stopped by its limits, or crashed (exit {done.returncode})"
    raise UnsafeFileError(message)
