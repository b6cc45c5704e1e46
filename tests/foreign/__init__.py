"""Models by people who do not use our training loop: owners, siblings, strangers and thieves for every test of a verdict.

The loop, the nets and the augmentations share no code with ``modelward.training`` and ``modelward.models``. `strangers` and `thieves` are lists of
recipes; a model is trained when it is asked for, and read from a folder when it was trained before.
"""

from tests.foreign.loop import Script
from tests.foreign.nets import NETS
from tests.foreign.suspects import Suspected, World, strangers, thieves

__all__ = ["NETS", "Script", "Suspected", "World", "strangers", "thieves"]
