"""The main job: audit a model, enrol it, judge a suspect."""

import sys
from types import ModuleType
from typing import Any

from modelward.audit.enrolment import Protected, dry_run_enrol, enrol, write_probes
from modelward.audit.judging import judge, observe
from modelward.audit.question import Question
from modelward.audit.run import Estimate, audit, dry_run
from modelward.evaluation.store import Store

__all__ = ["Estimate", "Protected", "Question", "audit", "dry_run", "dry_run_enrol", "enrol", "judge", "observe", "write_probes"]


class _Verb(ModuleType):
    """A package that can be called like the verb whose name it bears: once imported, it is what ``modelward.audit`` means."""

    def __call__(self, question: Question, store: Store, *, jobs: int | None = None, command: str = "") -> dict[str, Any]:
        """Do as `audit`."""
        return audit(question, store, jobs=jobs, command=command)


sys.modules[__name__].__class__ = _Verb
