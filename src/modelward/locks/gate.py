"""The gate: who stands behind a credential, on a server that holds the network."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from modelward.core.errors import InputError, ModelwardError
from modelward.core.guard import frozen, predict
from modelward.core.key import Key
from modelward.core.locking import issued_to
from modelward.keys.registry import Registry
from modelward.locks.sealing import MAC, mac_of
from modelward.locks.windows import inside, log_odds, require_windows
from modelward.statistics import binomial_p

PURPOSE = "activeguard"
REFUSED = "this credential is refused"


@dataclass(frozen=True, eq=False)
class Pass:
    """What an authenticated user holds: ``answer(x)`` gives the network's logits. Nothing else is switched on by it."""

    user: str
    net: nn.Module

    def __call__(self, x: Tensor) -> Tensor:
        """Return the logits (N, K) for images (N, C, H, W) in [0, 1], bit for bit those of the network."""
        with frozen(self.net), torch.no_grad():
            logits: Tensor = self.net(x)
        return logits


@dataclass(frozen=True, eq=False)
class Gate:
    """Let in who brings a whole credential: the build, the MAC over user and pixels, the standing in the registry, and the network's own word.

    Parameters
    ----------
    net
        the network that answers; it never leaves the server.
    build
        digest of the locked build that credentials were issued for.
    secret_of
        user -> the user's secret, derived from the owner's master secret.
    registry
        who may come in, and who failed how often; without one nobody is revoked, expires or is locked out.
    attempts
        failures in a row after which a user is locked out until the owner pardons.
    slack
        by how much a window may be missed, in log-odds, so that another machine's rounding does not matter.
    """

    net: nn.Module
    build: str
    secret_of: Callable[[str], bytes]
    registry: Registry | None = None
    attempts: int = 5
    slack: float = 1e-3

    def authenticate(self, credential: Key) -> Pass:
        """Return the pass of the user whose credential this is.

        An attempt is counted before it is judged, so that guesses side by side count as guesses one after the other.

        Raises
        ------
        InputError
            for a stranger, a user who was revoked, whose grant is over, or who is locked out; and, in one sentence for all of these, for a
            credential that was altered, forged, of another network or another user.
        """
        user = credential.fact(str, "user")
        if self.registry is not None:
            self.registry.require(user, PURPOSE)
            self.registry.attempt(user, PURPOSE, most=self.attempts)
        if not self._holds(credential, user):
            raise InputError(REFUSED)
        if self.registry is not None:
            self.registry.pardon(user, PURPOSE)
        return Pass(user, self.net)

    def _holds(self, credential: Key, user: str) -> bool:
        """Return whether everything fits; every check is made, whatever the others say."""
        try:
            pixels, mac = credential.tensor("probes"), bytes(credential.tensor("mac").to(torch.uint8).tolist())
            windows = require_windows(credential.fact(list, "windows"))
            secret = self.secret_of(user)
            fits = pixels.dtype == torch.uint8 and pixels.ndim == 4 and len(pixels) == len(windows) and len(mac) == MAC
            own = hmac.compare_digest(mac, mac_of(secret, user, pixels))
            named = _is_tagged(credential, secret)
            build = hmac.compare_digest(credential.model_digest.encode(), self.build.encode())
            seen = fits and answered(self.net, pixels, windows, slack=self.slack)
        except (ModelwardError, RuntimeError, ValueError, IndexError):  # a stranger's file may hold anything
            return False
        return bool(fits & own & named & build & seen)


def _is_tagged(credential: Key, secret: bytes) -> bool:
    """Return whether the credential's own tag fits all that it says."""
    try:
        issued_to(credential, secret)
    except InputError:
        return False
    return True


def answered(net: nn.Module, pixels: Tensor, windows: Tensor, *, slack: float = 1e-3) -> bool:
    """Return whether a network answers every probe (m, C, H, W) from inside its window."""
    logits = predict(net, pixels)
    if bool((windows[:, 0] >= logits.shape[1]).any()):
        return False
    return bool(inside(logits, windows, slack=slack).all())


@dataclass(frozen=True, eq=False)
class Roster:
    """All users' windows, to say whose probes a network answers; what the paper's gate has, which knows no MAC.

    Parameters
    ----------
    users
        names.
    windows
        (U, m, 3).

    Examples
    --------
    >>> roster = Roster(("ann", "bob"), torch.tensor([[[0, 0.5, 1.0]], [[1, 0.5, 1.0]]]))
    >>> roster.identify(torch.tensor([[0.0, 0.7]])), roster.identify(torch.tensor([[0.0, 7.0]]))
    ('bob', None)
    >>> roster.by_labels(torch.tensor([1]), 0.1)[:2]
    ('bob', 1)
    """

    users: tuple[str, ...]
    windows: Tensor

    @classmethod
    def of(cls, credentials: Mapping[str, Key]) -> Roster:
        """Return the roster of issued credentials."""
        made = [require_windows(key.fact(list, "windows")) for key in credentials.values()]
        if not made:
            raise InputError("a roster needs one credential at least")
        return cls(tuple(credentials), torch.stack(made))

    def fits(self, logits: Tensor, *, slack: float = 1e-3) -> Tensor:
        """Return which users each of n tries would come in as, bool (n, U), from the logits (n, m, K) of its probes."""
        tries, probes, classes = logits.shape
        leading = logits.argmax(2)
        odds = log_odds(logits.reshape(-1, classes), leading.reshape(-1)).view(tries, probes)
        made = torch.ones(tries, len(self.users), dtype=torch.bool)
        for place in range(probes):
            label, low, high = self.windows[:, place].unbind(1)
            mine, at = leading[:, place, None] == label.long(), odds[:, place, None]
            made &= mine & (at >= low - slack) & (at <= high + slack)
        return made

    def identify(self, logits: Tensor) -> str | None:
        """Return the one user whose windows the logits (m, K) of some probes fall into; ``None`` for nobody, or for several."""
        found = self.fits(logits[None])[0].nonzero().flatten().tolist()
        return self.users[found[0]] if len(found) == 1 else None

    def by_labels(self, labels: Tensor, p0: float) -> tuple[str | None, int, float]:
        """Return the user whose classes fit best where only labels (m,) are answered: user, matches, and p over all users.

        Parameters
        ----------
        p0
            how often an independent network gives a probe its class: an upper bound, measured on null models with these very probes.
        """
        matches = (self.windows[:, :, 0].long() == labels[None]).sum(1)
        best = int(matches.max())
        who = (matches == best).nonzero().flatten().tolist()
        p = min(1.0, len(self.users) * binomial_p(best, len(labels), p0))
        return (self.users[who[0]] if len(who) == 1 else None), best, p


def forgeries(answers: Tensor, probes: int, tries: int, *, rng: torch.Generator) -> Tensor:
    """Return the logits (tries, m, K) of credentials put together at random from images with the logits ``answers`` (N, K)."""
    return answers[torch.randint(0, len(answers), (tries, probes), generator=rng)]
