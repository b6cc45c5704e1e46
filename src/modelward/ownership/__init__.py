"""Ownership: methods that say, with a false-claim bound, whether a suspect was made from a model."""

from modelward.ownership.additional_class import AdditionalClass
from modelward.ownership.adi import Adi
from modelward.ownership.cae import CAE
from modelward.ownership.deepmarks import DeepMarks
from modelward.ownership.ewe import EWE
from modelward.ownership.frontier import Frontier
from modelward.ownership.infip import InFIP
from modelward.ownership.ipguard import IPGuard
from modelward.ownership.passport import Passport
from modelward.ownership.sac import SAC
from modelward.ownership.sac_jc import SACJC
from modelward.ownership.uchida import Uchida
from modelward.ownership.unit_match import UnitMatch
from modelward.ownership.unit_order import UnitOrder
from modelward.ownership.weight_distance import WeightDistance
from modelward.ownership.zhang import Zhang

__all__ = [
    "CAE",
    "EWE",
    "SAC",
    "SACJC",
    "AdditionalClass",
    "Adi",
    "DeepMarks",
    "Frontier",
    "IPGuard",
    "InFIP",
    "Passport",
    "Uchida",
    "UnitMatch",
    "UnitOrder",
    "WeightDistance",
    "Zhang",
]
