"""Thefts: how a copy is made of a model that is not yours."""

from modelward.attacks.theft.extraction import ExtractLabels, ExtractProbabilities
from modelward.attacks.theft.finetune import FTAL, FTLL, RTAL
from modelward.attacks.theft.prune import Prune
from modelward.attacks.theft.quantise import Quantise

__all__ = ["FTAL", "FTLL", "RTAL", "ExtractLabels", "ExtractProbabilities", "Prune", "Quantise"]
