"""What a figure may depend on besides seeds and code: the machine and the libraries."""

from __future__ import annotations

import os
import platform
from typing import Any

import torch


def environment() -> dict[str, Any]:
    """Return what this process runs on, to be written beside its results.

    Examples
    --------
    >>> list(environment())
    ['python', 'torch', 'system', 'cpu capability', 'cores']
    """
    return {
        "python": platform.python_version(), "torch": torch.__version__, "system": f"{platform.system()} {platform.machine()}",
        "cpu capability": torch.backends.cpu.get_cpu_capability(), "cores": os.cpu_count(),
    }  # fmt: skip
