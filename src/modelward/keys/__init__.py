"""Key files: what a protection leaves behind, on disk."""

from modelward.keys.files import read_key, write_key

__all__ = ["read_key", "write_key"]
