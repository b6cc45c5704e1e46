"""Evasion attacks: small changes of images that make a model err."""

from modelward.attacks.evasion.bim import BIM
from modelward.attacks.evasion.cw import CarliniWagner
from modelward.attacks.evasion.deepfool import DeepFool
from modelward.attacks.evasion.dim import DIM
from modelward.attacks.evasion.fgsm import FGSM
from modelward.attacks.evasion.mim import MIM
from modelward.attacks.evasion.noise import RandomNoise
from modelward.attacks.evasion.pgd import PGD
from modelward.attacks.evasion.si_ti_dim import SITIDIM
from modelward.attacks.evasion.sim import SIM
from modelward.attacks.evasion.tim import TIM
from modelward.attacks.evasion.universal import Universal, UniversalPerturbation

__all__ = [
    "BIM",
    "DIM",
    "FGSM",
    "MIM",
    "PGD",
    "SIM",
    "SITIDIM",
    "TIM",
    "CarliniWagner",
    "DeepFool",
    "RandomNoise",
    "Universal",
    "UniversalPerturbation",
]
