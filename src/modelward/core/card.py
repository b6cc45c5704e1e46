"""What a method says of itself, as data: the six attributes of the survey, its paper, its threat model, its cost."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from modelward.core.claims import Claim


class Scenario(enum.StrEnum):
    """What the one who verifies or attacks may touch."""

    WHITE_BOX = "white_box"
    GREY_BOX = "grey_box"
    BLACK_BOX_PROBS = "black_box_probs"
    BLACK_BOX_LABEL = "black_box_label"
    OTHER = "other"


class Mechanism(enum.StrEnum):
    """Where the secret, or the effect, lives."""

    PARAMETER = "parameter"
    BACKDOOR_TRIGGER = "backdoor_trigger"
    FINGERPRINT_INTRINSIC = "fingerprint_intrinsic"
    FINGERPRINT_ADVERSARIAL = "fingerprint_adversarial"
    PASSPORT_STRUCTURE = "passport_structure"
    PARAM_ENCRYPTION = "param_encryption"
    INPUT_PREPROCESS = "input_preprocess"
    OUTPUT_CONTROL = "output_control"
    DATASET_TRANSFORM = "dataset_transform"
    MODEL_MODIFICATION = "model_modification"
    QUERY = "query"
    INPUT_PERTURBATION = "input_perturbation"
    OTHER = "other"


class Capacity(enum.StrEnum):
    """How much a mark carries."""

    ZERO_BIT = "zero_bit"
    MULTI_BIT = "multi_bit"
    NONE = "none"


class Protection(enum.StrEnum):
    """Passive methods prove after a theft; active ones prevent use."""

    PASSIVE = "passive_verification"
    ACTIVE = "active_authorization"
    BOTH = "both"
    NONE = "none"


class Function(enum.StrEnum):
    """What a method is for; several may hold."""

    OWNERSHIP = "ownership_verification"
    AUTHORIZATION = "authorization_control"
    IDENTITY = "user_identity_management"
    INTEGRITY = "integrity"
    DATASET = "dataset_protection"
    MEASUREMENT = "measurement"
    ATTACK = "attack"


class Target(enum.StrEnum):
    """The task a claim was tested on."""

    CLASSIFICATION = "classification"
    DETECTION = "detection"
    SEGMENTATION = "segmentation"
    GENERATION = "generation"
    NLP = "nlp"
    DATASET = "dataset"
    ANY_MODULE = "any_module"


@dataclass(frozen=True)
class Taxonomy:
    """The six attributes of the survey "IP protection for deep learning models" (arXiv 2011.13564)."""

    scenario: Scenario
    mechanism: Mechanism
    capacity: Capacity = Capacity.NONE
    protection: Protection = Protection.NONE
    functions: tuple[Function, ...] = (Function.ATTACK,)
    target: Target = Target.CLASSIFICATION


@dataclass(frozen=True)
class Active:
    """What a method that prevents use says of itself (Xue et al., "Turn passive to active", arXiv 2310.09822), in short phrases.

    Parameters
    ----------
    carrier
        what an authorised user holds.
    granularity
        what a grant opens.
    identity
        what is known of the user.
    revocable
        what revoking a user takes.
    overhead
        what an authorised answer costs beside a plain one.
    black_box
        whether it works where the model is only asked through an interface.
    """

    carrier: str
    granularity: str
    identity: str
    revocable: str
    overhead: str
    black_box: str


@dataclass(frozen=True)
class Card:
    """A method's self-description.

    Parameters
    ----------
    name
        what the command line and the catalogue call it.
    title
        one line for tables.
    paper
        authors, title, year and identifier of the publication.
    taxonomy
        the six attributes.
    claims
        what the method says it withstands; each is printed "not tested" until rows exist. A `Claim` also says which figure decides it.
    limits
        what a result of this method does not show.
    cost
        time of the shipped default on two cores, in words.
    active
        of methods that prevent use, what they do it by.
    """

    name: str
    title: str
    paper: str
    taxonomy: Taxonomy
    claims: tuple[str | Claim, ...] = ()
    limits: tuple[str, ...] = ()
    cost: str = "seconds"
    tags: tuple[str, ...] = field(default=())
    active: Active | None = None
