"""Every error that modelward raises on purpose, in one tree.

::

    ModelwardError            exit 2   something went wrong, said in one sentence
    ├── UsageError            exit 4   a wrong argument, an unknown name
    ├── InputError            exit 2   a model or data that cannot be worked on
    ├── AccessError           exit 2   more was asked of a suspect than it grants
    ├── FormatError           exit 2   a file that is damaged or of another format
    │   └── UnsafeFileError   exit 5   a file refused for safety: pickle, bomb, digest mismatch
    ├── StoreError            exit 2   the result store, the disk
    ├── UnavailableError      exit 2   an optional package or a data set that is absent
    └── Undecided             exit 3   there is nothing to do, or nothing can be concluded

A message says what was wrong, where, and the call that mends it.
"""

from __future__ import annotations

from typing import ClassVar


class ModelwardError(Exception):
    """Root of all errors raised on purpose; ``exit_code`` is what the shell sees."""

    exit_code: ClassVar[int] = 2


class UsageError(ModelwardError):
    """A wrong argument or an unknown name."""

    exit_code = 4


class InputError(ModelwardError):
    """A model, an image batch or a data set that cannot be worked on."""


class AccessError(ModelwardError):
    """A suspect was asked for more than its access level grants."""


class FormatError(ModelwardError):
    """A file that is damaged, truncated or of another format."""


class UnsafeFileError(FormatError):
    """A file that was refused before it was parsed: it could run code or exhaust memory, or its digest differs."""

    exit_code = 5


class StoreError(ModelwardError):
    """The result store cannot be read or written."""


class UnavailableError(ModelwardError):
    """An optional package or a data set is absent; the message says how to get it."""


class Undecided(ModelwardError):  # noqa: N818  # the word of the exit-code table
    """There is nothing to do, or nothing can be concluded."""

    exit_code = 3
