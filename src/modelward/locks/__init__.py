"""Locks: a stolen model that is worth nothing."""

from modelward.locks.activeguard import ActiveGuard
from modelward.locks.advparams import AdvParams

__all__ = ["ActiveGuard", "AdvParams"]
