"""The child that runs an ONNX suspect: limits first, then the checks, then plain arrays out. Run by `modelward.io.onnx_suspect` only."""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelward.io.onnx_graph import Feed, Refused, check
from modelward.io.safetensors import dump_arrays, load_arrays

MEMORY = 8 * 2**30
FILE_BYTES = 2 * 2**30
UNFIT, UNSAFE = 3, 5
MANY = 8  # answers that are not all sorted by chance


def limit(seconds: int) -> None:
    """Bound memory, processor time, file size and open files, and forbid new processes, where the system can."""
    try:
        import resource
    except ImportError:  # no such limits on this system: the parent's clock remains
        return
    bounds = {
        resource.RLIMIT_CPU: seconds, resource.RLIMIT_FSIZE: FILE_BYTES, resource.RLIMIT_NOFILE: 256, resource.RLIMIT_AS: MEMORY,
        resource.RLIMIT_CORE: 0, resource.RLIMIT_NPROC: 0,
    }  # fmt: skip
    for kind, value in bounds.items():
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (value, value))


def answer(data: bytes, pixels: NDArray[np.uint8], classes: int, affine: NDArray[np.float32] | None = None) -> tuple[NDArray[Any], Feed]:
    """Return what the graph answers for uint8 images (n, C, H, W): numbers (n, K) or labels (n,)."""
    import onnx

    channels, height, width = pixels.shape[1:]
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:
        raise Refused("it is damaged, or no ONNX model") from error
    feed = check(model, (channels, height, width))
    del model
    if affine is not None and feed.type == "uint8":
        raise Refused("it takes whole pixels (uint8): --range, --mean and --std do not apply to it")
    session = _session(data)
    parts: list[NDArray[Any]] = []
    notes = dict.fromkeys(feed.notes)
    for start in range(0, len(pixels), feed.batch):
        part = pixels[start : start + feed.batch]
        count = len(part)
        if feed.fixed and count < feed.batch:
            part = np.concatenate([part, np.repeat(part[-1:], feed.batch - count, axis=0)])
        outputs = session.run(None, {feed.name: batch(part, feed, affine)})
        chosen, more = pick(outputs, len(part), classes)
        parts.append(chosen[:count])
        notes |= dict.fromkeys(more)
    if len({part.shape[1:] for part in parts}) > 1:
        raise Refused("its answers change shape from batch to batch")
    return np.concatenate(parts), replace(feed, notes=tuple(notes))


def _session(data: bytes) -> Any:
    """Return an inference session on one thread that knows no folder, logs nothing and takes only the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.use_deterministic_compute = True
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def batch(part: NDArray[np.uint8], feed: Feed, affine: NDArray[np.float32] | None = None) -> NDArray[Any]:
    """Return uint8 images (n, C, H, W) in the type and layout of the graph: floats lie in [0, 1], then go through ``affine`` (2, C)."""
    made: NDArray[Any] = part
    if feed.type != "uint8":
        made = part.astype(np.float32) / np.float32(255)
        if affine is not None:
            made = made * affine[0][:, None, None] + affine[1][:, None, None]
        made = made.astype(feed.type)
    return np.ascontiguousarray(made if feed.layout == "NCHW" else made.transpose(0, 2, 3, 1))


def pick(outputs: list[Any], count: int, classes: int) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Return the output that answers for ``count`` images, numbers (count, classes), else class numbers (count,), and what is odd about it."""
    arrays = [output for output in outputs if isinstance(output, np.ndarray) and output.ndim and len(output) == count]
    flat = [array.reshape(count, -1) for array in arrays if count]
    scores = [array for array in flat if array.dtype.kind == "f" and array.shape[1] == classes]
    labels = [array[:, 0] for array in flat if array.dtype.kind in "iu" and array.shape[1] == 1]
    ranks = [array.astype(np.int64) for array in flat if array.dtype.kind in "iu" and array.shape[1] > 1]
    best = [rank for rank in ranks if any(_sorted(array) and array.shape == rank.shape for array in flat if array.dtype.kind == "f")]
    if best and len(np.unique(best[0][0])) == best[0].shape[1]:
        return _unsorted(scores, best[0], classes)
    notes = ("The ONNX file has several outputs of one number a class: the first was read.",) if len(scores) > 1 else ()
    if scores:
        _require_unsorted(scores[0])
        with np.errstate(over="ignore"):
            found: NDArray[Any] = scores[0].astype(np.float32)
        broken = int((~np.isfinite(found)).any(1).sum())
        if broken:
            message = f"it answered with NaN or infinite numbers for {broken} of {count} images of a batch"
            raise Refused(message)
        return found, notes
    if labels:
        return _labels(labels[0], classes), ()
    shapes = ", ".join("x".join(map(str, output.shape)) if isinstance(output, np.ndarray) else "no array" for output in outputs[:4])
    message = f"its outputs for {count} images are {shapes}; the key's model has {classes} classes, so one of {count}x{classes} is needed"
    raise Refused(message)


def _labels(given: NDArray[Any], classes: int) -> NDArray[np.int64]:
    """Return class numbers; raises `Refused` for others than the key's model has."""
    chosen = given.astype(np.int64)
    if chosen.min() < 0 or chosen.max() >= classes:
        message = f"it answered with classes {chosen.min()} to {chosen.max()}, the key's model has classes 0 to {classes - 1}"
        raise Refused(message)
    return chosen


def _sorted(scores: NDArray[Any]) -> bool:
    """Return whether the numbers of every row fall, and not all rows are one."""
    return bool((np.diff(scores, axis=1) <= 0).all()) and bool((scores != scores[:1]).any())


def _unsorted(scores: list[NDArray[Any]], ranks: NDArray[np.int64], classes: int) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Return what a graph that ends in TopK answers: the numbers at their classes where there is one for each, else the best class."""
    _labels(ranks.ravel(), classes)
    values = next((array for array in scores if array.shape == ranks.shape and _sorted(array)), None)
    if values is None or not np.isfinite(values).all() or (np.sort(ranks, axis=1) != np.arange(classes)).any():
        return _labels(ranks[:, 0], classes), ("The ONNX file answers with its best classes: the first of them was read.",)
    found = np.empty(values.shape, np.float32)
    np.put_along_axis(found, ranks, values.astype(np.float32), axis=1)
    return found, ("The ONNX file sorts its answers: they were put back to their classes.",)


def _require_unsorted(scores: NDArray[Any]) -> None:
    """Raise `Refused` for numbers that are sorted in every row, of classes that the file does not tell."""
    if len(scores) >= MANY and scores.shape[1] > 2 and _sorted(scores):
        raise Refused(
            "its numbers fall from the first class to the last for every image: they are sorted, and it does not say by which classes"
        )


def main(source: str, images: str, target: str, classes: str, seconds: str) -> int:
    """Answer for ``images``; write why not in one line and return 3, or 5 when the file could do harm."""
    limit(int(seconds))
    try:
        arrays, _ = load_arrays(images)
        pixels: Any = arrays["pixels"]
        affine: Any = arrays.get("affine")
        found, feed = answer(Path(source).read_bytes(), pixels, int(classes), affine)
        Path(target).write_bytes(dump_arrays({"answers": found}, {"notes": json.dumps(feed.notes)}))
    except Refused as error:
        sys.stdout.write(f"{error}\n")
        return UNSAFE if error.unsafe else UNFIT
    except MemoryError:
        sys.stdout.write("it needs more memory than a suspect is given\n")
        return UNSAFE
    except Exception as error:  # noqa: BLE001  # the runtime raises whatever it likes; the parent gets one sentence
        return _told(str(error) or type(error).__name__)
    return 0


def _told(text: str) -> int:
    """Write what the runtime said in one line, without its own source paths; return the exit code."""
    if "alloc" in text.lower():
        sys.stdout.write("it needs more memory than a suspect is given\n")
        return UNSAFE
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    sys.stdout.write(f"the ONNX runtime cannot run it: {first.rpartition(' : ')[2].partition('/onnxruntime_src/')[0].strip()}\n")
    return UNFIT


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
