"""Issue 50 users from a process of its own, one transaction each."""

import sys

from modelward.keys.grants import Request
from modelward.keys.registry import Registry

if __name__ == "__main__":
    registry = Registry(sys.argv[1], create=True)
    for index in range(50):
        registry.issue([Request(f"{sys.argv[2]}{index}", "00" * 32)], purpose="zhang", generation=1)
