"""Who may use a model: one who shows a key image that names him, that the network knows, and for which his grant is active.

The authorisation control of Sun, Xue et al. (Applied Intelligence 2022, 10.1007/s10489-022-03339-0): a user shows an identity image first; what the
model answers is withheld from everybody else.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from modelward.core.errors import AccessError, InputError
from modelward.core.suspect import Suspect
from modelward.keys.grants import Grant
from modelward.keys.registry import Registry
from modelward.marking.payload import Reading
from modelward.ownership.issuing import answered

UNKNOWN = "the network does not answer this image with the additional class: it is no key image of this model, or was changed"


@dataclass(frozen=True, eq=False, repr=False)
class Admission:
    """The answer to one who showed an image.

    Parameters
    ----------
    user
        to whom the image was issued; ``None`` for nobody that is admitted.
    grant
        under which the user was admitted; ``None`` for nobody.
    reason
        why nobody was; empty for somebody.
    """

    user: str | None
    grant: Grant | None
    reason: str
    suspect: Suspect
    registry: Registry

    def __bool__(self) -> bool:
        return self.grant is not None

    def __repr__(self) -> str:
        return f"Admission(user={self.user!r}, reason={self.reason!r})"

    def labels(self, images: Tensor) -> Tensor:
        """Return the model's labels (N,) for float images (N, C, H, W) in [0, 1]; the grant is read from the registry again each time.

        Raises
        ------
        AccessError
            for nobody, and when the grant was revoked or has expired meanwhile.
        """
        if self.grant is None:
            message = f"answers are withheld: {self.reason}"
            raise AccessError(message)
        try:
            self.registry.require(self.grant.user, self.grant.purpose)
        except InputError as error:
            message = f"answers are withheld: {error}"
            raise AccessError(message) from error
        return self.suspect.labels(images)


def admitted(suspect: Suspect | nn.Module, reading: Reading, image: Tensor, label: int, registry: Registry, purpose: str) -> Admission:
    """Return the admission of whoever shows ``image`` (C, H, W), uint8.

    Parameters
    ----------
    reading
        whom the image was issued to, as far as payload and registry tell.
    label
        the class that the network must answer it with.
    purpose
        of the grant.
    """
    asked = suspect if isinstance(suspect, Suspect) else Suspect.of_model(suspect)
    if reading.user is None:
        return Admission(None, None, reading.reason, asked, registry)
    if not answered(asked, image, label):
        return Admission(None, None, UNKNOWN, asked, registry)
    try:
        grant = registry.require(reading.user, purpose)
    except InputError as error:  # revoked since it was read
        return Admission(None, None, str(error), asked, registry)
    return Admission(reading.user, grant, "", asked, registry)
