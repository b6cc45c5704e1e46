"""Memory that is freed stays in the process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from modelward.core.allocator import keep_freed_memory

ROUNDS = """
import resource, torch
from modelward.core.allocator import keep_freed_memory
keep_freed_memory()
def work():
    parts = [torch.ones(7_000_000) for _ in range(4)]
    return float(parts[-1][0])
for _ in range(3):
    work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not keep_freed_memory(), reason="this C library has no mallopt")
def test_memory_that_was_freed_is_not_faulted_in_again():
    done = subprocess.run([sys.executable, "-c", ROUNDS], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1000  # of 110,000 pages
