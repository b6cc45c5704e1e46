"""One recipe per paper: what it claims, what was measured here, and the command that measures it again."""

from modelward.reproduce.run import RECIPES, reproduce

__all__ = ["RECIPES", "reproduce"]
