"""The one training loop and its recipes."""

from modelward.training.extras import Extras
from modelward.training.loop import Epoch, accuracy, fit
from modelward.training.ranks import together
from modelward.training.recipe import Recipe

__all__ = ["Epoch", "Extras", "Recipe", "accuracy", "fit", "together"]
