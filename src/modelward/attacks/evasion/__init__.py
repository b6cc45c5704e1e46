"""Evasion attacks: small changes of images that make a model err."""

from modelward.attacks.evasion.bim import BIM
from modelward.attacks.evasion.fgsm import FGSM
from modelward.attacks.evasion.noise import RandomNoise
from modelward.attacks.evasion.pgd import PGD

__all__ = ["BIM", "FGSM", "PGD", "RandomNoise"]
