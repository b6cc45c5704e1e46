"""What work costs on one core, roughly: for plans, dry runs and the time left. Measured once, corrected live."""

from __future__ import annotations

from modelward.models.nets import ARCHITECTURES, describe

# milliseconds to train on one 28x28 image once, at the default width
TRAIN_MS = {"mlp": 0.03, "lenet5": 0.10, "cnn": 0.25, "resnet8": 0.55, "resnet14": 1.1, "resnet20": 1.6}
START_SECONDS = 0.3


def train_seconds(arch: str, images: int, epochs: float, shape: tuple[int, int, int]) -> float:
    """Return the estimated seconds on one core to train ``arch`` on ``images`` images of ``shape`` for ``epochs``."""
    name, arguments = describe(arch)
    wider: float = (arguments.get("width", ARCHITECTURES[name].width) / ARCHITECTURES[name].width) ** 1.5
    return START_SECONDS + images * epochs * TRAIN_MS[name] * wider * (shape[1] * shape[2] / 784) / 1000


def predict_seconds(arch: str, images: int, passes: float, shape: tuple[int, int, int]) -> float:
    """Return the estimated seconds for ``passes`` forward and backward passes over ``images`` images."""
    return train_seconds(arch, images, passes, shape) * 1.5
