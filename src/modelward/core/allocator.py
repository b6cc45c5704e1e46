"""What the C library does with memory that is freed."""

from __future__ import annotations

import ctypes
import sys

TRIM, MMAP = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of mallopt(3)
KEPT = 2**29
LARGEST = 2**25  # what glibc takes at most as the second


def keep_freed_memory() -> bool:
    """Let this process keep up to 512 MiB that it has freed, and return whether the C library can do that (glibc can).

    A step of training frees the activations that the next one asks for. Handed back to the system in between, every page of them is a fault
    when it is touched anew: a fifth of the time of ResNet-8 on images of 3x32x32, more on virtual machines.

    Examples
    --------
    >>> keep_freed_memory() in {True, False}
    True
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # musl has none
        return False
    return bool(mallopt(MMAP, LARGEST)) and bool(mallopt(TRIM, KEPT))
