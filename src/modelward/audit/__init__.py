"""The main job: audit a model, enrol it, judge a suspect."""

from modelward.audit.enrolment import dry_run_enrol, enrol, judge, write_probes
from modelward.audit.question import Question
from modelward.audit.run import Estimate, audit, dry_run

__all__ = ["Estimate", "Question", "audit", "dry_run", "dry_run_enrol", "enrol", "judge", "write_probes"]
