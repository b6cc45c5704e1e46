"""Locks: a stolen model that is worth nothing."""

from modelward.locks.advparams import AdvParams

__all__ = ["AdvParams"]
