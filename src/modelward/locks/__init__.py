"""Locks: a stolen model that is worth nothing."""

from modelward.locks.activeguard import ActiveGuard
from modelward.locks.advparams import AdvParams
from modelward.locks.dataset_lock import DatasetLock
from modelward.locks.sample_lock import SampleLock

__all__ = ["ActiveGuard", "AdvParams", "DatasetLock", "SampleLock"]
