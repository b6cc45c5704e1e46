"""Work: what a model does on clean images, and whether it was handed over in working order."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from modelward.attacks.evasion.descent import gradient
from modelward.core.guard import frozen, predict
from modelward.core.images import ImageSet
from modelward.evaluation.cell import Job, Outcome
from modelward.evaluation.parcels import get_images, get_model
from modelward.evaluation.rows import Row, from_interval, rate
from modelward.io.images import png_bytes
from modelward.models.intake import Convention
from modelward.statistics import Interval, bootstrap, expected_calibration_error

BINS = 10


def clean(job: Job) -> Outcome:
    """Measure accuracy, calibration error and per-class accuracy. Inputs: ``model``, ``test``. Arrays: ``correct``, ``confidence``."""
    torch.set_num_threads(job.threads)
    images, model = get_images(job.store, job.inputs["test"]), get_model(job.store, job.inputs["model"])
    confidence, predicted = predict(model, images.pixels).softmax(1).max(1)
    correct = predicted == images.labels
    trust, right = confidence.double().numpy(), correct.double().numpy()

    def ece(where: np.ndarray) -> float:
        index = where.astype(int)
        return expected_calibration_error(trust[index], right[index].astype(bool), bins=BINS)

    interval = bootstrap(np.arange(len(right)), ece, rng=np.random.default_rng(job.seed % 2**32), resamples=200)
    common: dict[str, Any] = {"data": images.name, "seed": job.seed, "threads": job.threads}
    rows = [
        rate("accuracy", int(correct.sum()), len(correct), attack="none", **common),
        from_interval("calibration_error", Interval(ece(np.arange(len(right))), interval.low, interval.high, len(right), "bootstrap"), **common,
                      extra={"bins": _bins(trust, right)}),
    ]  # fmt: skip
    for label, name in enumerate(images.classes):
        of_class = images.labels == label
        if bool(of_class.any()):
            rows.append(rate("class_accuracy", int(correct[of_class].sum()), int(of_class.sum()), budget=name, **common))
    worst = _worst(images, predicted, confidence, correct)
    rows.append(Row(metric="worst_samples", value=float(len(worst)), n=len(correct), unit="images", **common, extra={"items": worst}))
    return Outcome([row.as_json() for row in rows], {"correct": correct.numpy(), "confidence": confidence.numpy()})


def _bins(confidence: np.ndarray, right: np.ndarray) -> list[dict[str, float]]:
    """Return the reliability diagram: mean confidence, accuracy and count per bin."""
    index = np.minimum((confidence * BINS).astype(int), BINS - 1)
    chosen = [(index == i) for i in range(BINS)]
    return [
        {"confidence": float(confidence[m].mean()), "accuracy": float(right[m].mean()), "n": int(m.sum())} for m in chosen if m.any()
    ]  # fmt: skip


def _worst(images: ImageSet, predicted: Tensor, confidence: Tensor, correct: Tensor, count: int = 8) -> list[dict[str, object]]:
    """Return the most confident errors as small PNGs with what was said and what is true."""
    order = torch.where(correct, torch.zeros_like(confidence), confidence).argsort(descending=True)[:count]
    return [
        {
            "caption": f"{_answer(images, int(predicted[i]))} ({float(confidence[i]):.0%}), is {images.classes[int(images.labels[i])]}",
            "png": base64.b64encode(png_bytes(images.pixels[i].numpy())).decode(),
        }
        for i in order.tolist() if not bool(correct[i])
    ]  # fmt: skip


def _answer(images: ImageSet, number: int) -> str:
    """Return the class of an answer; a marked model may answer beyond the classes.

    >>> images = ImageSet(torch.zeros(1, 1, 2, 2, dtype=torch.uint8), torch.zeros(1, dtype=torch.long), ("cat",), "toy")
    >>> _answer(images, 0), _answer(images, 1)
    ('cat', 'output 1')
    """
    return images.classes[number] if number < len(images.classes) else f"output {number}"


def intake(job: Job) -> Outcome:
    """Check that the model was handed over in working order: range, channel order, eval mode, randomness, gradients.

    Inputs: ``model``, ``test``. The row's extra holds a list of checks with name, status, text and fix.
    """
    torch.set_num_threads(job.threads)
    images, model = get_images(job.store, job.inputs["test"]), get_model(job.store, job.inputs["model"])
    checks = intake_checks(model, images.few(int(job.settings["count"])))
    failed = sum(check["status"] == "failed" for check in checks)
    return Outcome(
        [Row(metric="intake_failures", value=failed, n=len(checks), unit="checks", data=images.name, extra={"checks": checks}).as_json()]
    )


def intake_checks(model: nn.Module, images: ImageSet) -> list[dict[str, str]]:
    """Return the intake checks of ``model`` on ``images``, each with name, status, text and fix."""
    x, y = images.batch(slice(None)), images.labels
    return [
        _range(model, x, y), *_channel_order(model, x, y), _statistics(model), _randomness(model, x), _attention(model, x), _gradients(model, x, y)
    ]  # fmt: skip


def _check(name: str, status: str, text: str, fix: str = "") -> dict[str, str]:
    return {"name": name, "status": status, "text": text, "fix": fix}


def _hits(model: nn.Module, x: Tensor, y: Tensor) -> float:
    return float((predict(model, x).argmax(1) == y).float().mean())


_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# what nets are commonly fed with: images that are given to the net as they would be by these options
GUESSES: dict[str, tuple[str, Convention]] = {
    "[0, 1]": ("", Convention()),
    "[0, 255]": ("--range 0,255", Convention(range=(0, 255))),
    "[-1, 1]": ("--range -1,1", Convention(range=(-1, 1))),
    "inverted [0, 1]": ("--range 1,0", Convention(range=(1, 0))),
    "the mean and spread of ImageNet": (
        "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225", Convention(mean=_IMAGENET[0], std=_IMAGENET[1])
    ),
    "bytes in BGR less their mean": (
        "--range 0,255 --channels bgr --mean 103.939,116.779,123.68",
        Convention(range=(0, 255), channels="bgr", mean=(103.939, 116.779, 123.68)),
    ),
}  # fmt: skip


def _range(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, str]:
    """Guess the range and normalisation that the net expects from which one gives the best accuracy."""
    fitting = {name: guess for name, guess in GUESSES.items() if len(guess[1].mean) in {1, x.shape[1]}}
    scores = {name: _hits(model, convention.applied(x), y) for name, (_, convention) in fitting.items()}
    best = max(scores, key=lambda name: scores[name])
    text = ", ".join(f"{name}: {score:.1%}" for name, score in scores.items())
    if scores[best] > scores["[0, 1]"] + 0.05:
        fix = f"the net seems to expect {best}; pass {fitting[best][0]}, or put that inside the module, so that it takes images in [0, 1]"
        return _check("input range", "failed", f"accuracy by input range {text}", fix)
    return _check("input range", "passed", f"accuracy by input range {text}")


def _channel_order(model: nn.Module, x: Tensor, y: Tensor) -> list[dict[str, str]]:
    """Compare RGB with BGR."""
    if x.shape[1] != 3:
        return [_check("channel order", "not tested", f"images have {x.shape[1]} channel, there is no order")]
    rgb, bgr = _hits(model, x, y), _hits(model, x.flip(1), y)
    text = f"accuracy with RGB {rgb:.1%}, with BGR {bgr:.1%}"
    if bgr > rgb + 0.05:
        fix = "the net was trained on BGR; pass --channels bgr, or flip the channels inside the module"
        return [_check("channel order", "failed", text, fix)]
    return [_check("channel order", "passed", text)]


def _statistics(model: nn.Module) -> dict[str, str]:
    """Look for batch normalisation that never saw data, and for layers that act differently in training."""
    layers = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]  # noqa: SLF001  # the common base has no public name
    blank = [m for m in layers if _blank(m)]
    if blank:
        fix = "save the model after training, with its running statistics, and not in train mode"
        return _check("eval mode", "failed", f"{len(blank)} of {len(layers)} batch-norm layers have no running statistics", fix)
    return _check("eval mode", "passed", f"measured in eval mode; {len(layers)} batch-norm layers carry running statistics")


def _blank(layer: nn.Module) -> bool:
    """Return whether a batch-norm layer has the statistics it was born with."""
    mean, spread = getattr(layer, "running_mean", None), getattr(layer, "running_var", None)
    return mean is None or spread is None or (bool((mean == 0).all()) and bool((spread == 1).all()))


def _randomness(model: nn.Module, x: Tensor) -> dict[str, str]:
    """Ask the same question twice."""
    difference = float((predict(model, x) - predict(model, x)).abs().max())
    if difference:
        fix = "switch dropout or random layers off in eval mode, or average over many answers"
        return _check("randomness", "failed", f"two answers to the same images differ by up to {difference:.3g}", fix)
    return _check("randomness", "passed", "two answers to the same images are identical")


def _attention(model: nn.Module, x: Tensor) -> dict[str, str]:
    """Find a model that ignores its input."""
    logits = predict(model, x)
    spread = float((logits - logits.mean(0)).abs().max())
    labels = int(logits.argmax(1).unique().numel())
    if spread < 1e-6:
        return _check(
            "input is used", "failed", "every image gets the same answer", "check that the weights were loaded and the input is connected"
        )
    if labels == 1:
        return _check("input is used", "flagged", "every image gets the same label", "check the normalisation and the training")
    return _check("input is used", "passed", f"{labels} different labels on {len(x)} images")


def _gradients(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, str]:
    """Ask for an input gradient."""
    try:
        with frozen(model):
            grad, _ = gradient(model, x, y)
    except RuntimeError as error:
        return _check(
            "gradients",
            "failed",
            f"no input gradient: {str(error).splitlines()[0]}",
            "make every operation differentiable, or attack by transfer",
        )
    blind = int((grad.flatten(1).abs().amax(1) == 0).sum())
    if not bool(torch.isfinite(grad).all()):
        return _check(
            "gradients", "failed", "the input gradient holds NaN or infinite values", "look for a square root or logarithm at zero"
        )
    status = "flagged" if blind > 0.1 * len(x) else "passed"
    fix = "a saturated or quantised net blinds gradient attacks: use loss='margin'" if status == "flagged" else ""
    return _check("gradients", status, f"{len(x) - blind} of {len(x)} images have an input gradient", fix)
