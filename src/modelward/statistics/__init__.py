"""Rates with their intervals, rankings, comparisons and resampling, on plain numbers and arrays."""

from modelward.statistics.comparing import expected_calibration_error, holm, mann_whitney, mcnemar, mean_interval, welch
from modelward.statistics.differences import newcombe
from modelward.statistics.ranking import auc, auc_bootstrap, auc_delong, f1_at, roc
from modelward.statistics.rates import Interval, best_of_q, binomial_p, clopper_pearson, required_matches, upper_bound, wilson
from modelward.statistics.resampling import bootstrap, bootstrap_two_sample, permutation_p, rank_p, rank_threshold

__all__ = [
    "Interval",
    "auc",
    "auc_bootstrap",
    "auc_delong",
    "best_of_q",
    "binomial_p",
    "bootstrap",
    "bootstrap_two_sample",
    "clopper_pearson",
    "expected_calibration_error",
    "f1_at",
    "holm",
    "mann_whitney",
    "mcnemar",
    "mean_interval",
    "newcombe",
    "permutation_p",
    "rank_p",
    "rank_threshold",
    "required_matches",
    "roc",
    "upper_bound",
    "welch",
    "wilson",
]
