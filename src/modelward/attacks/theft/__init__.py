"""Thefts: how a copy is made of a model that is not yours."""

from modelward.attacks.theft.adversarial_finetune import AdversarialFinetune
from modelward.attacks.theft.bn_recalibrate import RecalibrateNorm
from modelward.attacks.theft.cast import CastWeights, FoldNorm
from modelward.attacks.theft.clip_outliers import ClipOutliers
from modelward.attacks.theft.combined import Combined
from modelward.attacks.theft.detect_duplicates import DetectDuplicates
from modelward.attacks.theft.detect_ood import DetectOOD
from modelward.attacks.theft.detect_reconstruction import DetectDivergence, DetectReconstruction
from modelward.attacks.theft.distil import Distil
from modelward.attacks.theft.dummy_channels import DummyChannels
from modelward.attacks.theft.ensemble import Ensemble
from modelward.attacks.theft.equal_values import EqualValues
from modelward.attacks.theft.extract_adversarial import ExtractAdversarial
from modelward.attacks.theft.extract_cross import ExtractCross
from modelward.attacks.theft.extract_smooth import ExtractSmooth
from modelward.attacks.theft.extraction import ExtractLabels, ExtractProbabilities
from modelward.attacks.theft.fill_outliers import FillOutliers
from modelward.attacks.theft.fine_prune import FinePrune
from modelward.attacks.theft.finetune import FTAL, FTLL, RTAL, RTLL
from modelward.attacks.theft.gan_removal import GanRemoval
from modelward.attacks.theft.gradient_fill import GradientFill
from modelward.attacks.theft.head_surgery import HeadSurgery
from modelward.attacks.theft.knockoff import KnockOff
from modelward.attacks.theft.label_remap import LabelRemap
from modelward.attacks.theft.laundering import Laundering
from modelward.attacks.theft.layer_ridge import LayerRidge
from modelward.attacks.theft.nearest_sibling import NearestSibling
from modelward.attacks.theft.neural_cleanse import NeuralCleanse
from modelward.attacks.theft.overwrite import Overwrite
from modelward.attacks.theft.prune import Prune
from modelward.attacks.theft.prune_finetune import PruneFinetune
from modelward.attacks.theft.push_maps import PushMaps
from modelward.attacks.theft.quantise import Quantise
from modelward.attacks.theft.regularise import Regularise
from modelward.attacks.theft.reparameterise import PermuteNeurons, RescaleNeurons
from modelward.attacks.theft.reverse_lock import ReverseLock
from modelward.attacks.theft.scratch import FromScratch
from modelward.attacks.theft.shift_logits import ShiftLogits
from modelward.attacks.theft.smooth_labels import SmoothLabels
from modelward.attacks.theft.transfer import Transfer
from modelward.attacks.theft.undo_gradient import UndoGradient
from modelward.attacks.theft.value_clusters import ValueClusters
from modelward.attacks.theft.weight_noise import WeightNoise
from modelward.attacks.theft.weight_shift import WeightShift
from modelward.attacks.theft.wrap_blur import WrapBlur
from modelward.attacks.theft.wrap_jpeg import WrapJPEG
from modelward.attacks.theft.wrap_levels import WrapLevels, WrapSqueeze
from modelward.attacks.theft.wrap_noise import WrapFlip, WrapNoise
from modelward.attacks.theft.wrap_outputs import WrapLabel, WrapRound
from modelward.attacks.theft.wrap_reconstruct import WrapReconstruct

__all__ = [
    "FTAL",
    "FTLL",
    "RTAL",
    "RTLL",
    "AdversarialFinetune",
    "CastWeights",
    "ClipOutliers",
    "Combined",
    "DetectDivergence",
    "DetectDuplicates",
    "DetectOOD",
    "DetectReconstruction",
    "Distil",
    "DummyChannels",
    "Ensemble",
    "EqualValues",
    "ExtractAdversarial",
    "ExtractCross",
    "ExtractLabels",
    "ExtractProbabilities",
    "ExtractSmooth",
    "FillOutliers",
    "FinePrune",
    "FoldNorm",
    "FromScratch",
    "GanRemoval",
    "GradientFill",
    "HeadSurgery",
    "KnockOff",
    "LabelRemap",
    "Laundering",
    "LayerRidge",
    "NearestSibling",
    "NeuralCleanse",
    "Overwrite",
    "PermuteNeurons",
    "Prune",
    "PruneFinetune",
    "PushMaps",
    "Quantise",
    "RecalibrateNorm",
    "Regularise",
    "RescaleNeurons",
    "ReverseLock",
    "ShiftLogits",
    "SmoothLabels",
    "Transfer",
    "UndoGradient",
    "ValueClusters",
    "WeightNoise",
    "WeightShift",
    "WrapBlur",
    "WrapFlip",
    "WrapJPEG",
    "WrapLabel",
    "WrapLevels",
    "WrapNoise",
    "WrapReconstruct",
    "WrapRound",
    "WrapSqueeze",
]
