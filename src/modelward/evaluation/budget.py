"""What work costs on one core, roughly: for plans, dry runs and the time left. Measured once, corrected live."""

from __future__ import annotations

from modelward.models.nets import ARCHITECTURES, describe

# milliseconds to train on one 28x28 image once, at the default arguments
TRAIN_MS = {
    "mlp": 0.03, "lenet5": 0.10, "cnn": 0.25, "resnet8": 0.55, "resnet14": 1.1, "resnet20": 1.6, "wrn16": 1.8, "mobilenet": 1.9,
    "vit-tiny": 0.95, "efficientnet-lite0": 3.0, "efficientnet-lite1": 4.0, "efficientnet-lite2": 5.0,
}  # fmt: skip
UNKNOWN_MS = 2.0  # a net of the user's own: corrected by the first that is trained
START_SECONDS = 0.3


def train_seconds(arch: str, images: int, epochs: float, shape: tuple[int, int, int]) -> float:
    """Return the estimated seconds on one core to train ``arch`` on ``images`` images of ``shape`` for ``epochs``."""
    name, arguments = describe(arch)
    usual = ARCHITECTURES[name].defaults if name in ARCHITECTURES else {}
    larger = {option: arguments.get(option, value) / value for option, value in usual.items()}
    work: float = larger.get("width", 1.0) ** 1.5 * larger.get("depth", 1.0) / larger.get("patch", 1.0) ** 2
    return START_SECONDS + images * epochs * TRAIN_MS.get(name, UNKNOWN_MS) * work * (shape[1] * shape[2] / 784) / 1000


def predict_seconds(arch: str, images: int, passes: float, shape: tuple[int, int, int]) -> float:
    """Return the estimated seconds for ``passes`` forward and backward passes over ``images`` images."""
    return train_seconds(arch, images, passes, shape) * 1.5
