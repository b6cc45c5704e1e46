"""ActiveGuard: adversarial examples as users' fingerprints (Xue et al., IET CDT 2023, arXiv 2103.01527)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from modelward.core.card import Active, Capacity, Card, Function, Mechanism, Protection, Scenario, Taxonomy
from modelward.core.claims import Claim
from modelward.core.commitment import Commitment
from modelward.core.errors import InputError, UsageError
from modelward.core.guard import private_copy, require_float32, state_digest
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.locking import ModelLock, tagged
from modelward.core.ownership import Attack
from modelward.core.verdict import Verdict
from modelward.keys.registry import Registry
from modelward.locks.advparams import AdvParams
from modelward.locks.control_layer import ANSWERS, ControlLayer, keyed, stripped
from modelward.locks.credentials import Build, delivered, opened_by, opened_by_owner, opened_by_window, secret_of, slot_key
from modelward.locks.enrolment import Desk, with_slot
from modelward.locks.gate import Gate
from modelward.locks.probing import Crafting
from modelward.locks.watermark import Watermark
from modelward.locks.windows import null_answers, place, require_windows

MODES = ("server", "layer", "bound")
FUNCTIONS = (Function.AUTHORIZATION, Function.IDENTITY, Function.OWNERSHIP)
GUARD = Taxonomy(Scenario.BLACK_BOX_PROBS, Mechanism.FINGERPRINT_ADVERSARIAL, Capacity.MULTI_BIT, Protection.BOTH, FUNCTIONS)


@dataclass(frozen=True, kw_only=True)
class ActiveGuard(ModelLock):
    r"""Answer those alone who bring images that the network gives one class and one narrow confidence, crafted for each user.

    The windows lie where the confidences of strangers' images are rarest; the images are crafted as 8-bit files (`Crafting`); the owner's bits
    are taught to one layer first (`Watermark`). A window alone is a tag: whoever sends noise falls into one before long. So a credential also
    holds HMAC(secret of the user, name and SHA-256 of the pixels).

    ``mode="server"``: the network stays where `gate` asks for credentials. ``mode="layer"``: it is handed out behind a `ControlLayer`, which
    whoever has the file takes off. ``mode="bound"``: the network inside is also locked by `AdvParams`, the parameter key is sealed, and MAC and
    pixels of a credential give the key of a slot that opens it, as with encrypted disks; then the network has to know the probes.

    ``variant="paper"`` is one probe a user, the window alone, a layer that answers with one class, and nothing sealed.

    Parameters
    ----------
    mode
        how it is delivered, as above.
    answers
        what strangers are told: ``constant``, ``permutation``, ``random`` or ``refuse``.
    probes
        m, images a user.
    users
        that are to be told apart, which decides how many windows are kept.
    width, guard
        of a window in probability, and the gap to the next as a share of it.
    nulls, eps
        images of each kind by which windows are placed, and the budget (Linf) of the attacked ones.
    steps, rate, kappa
        of `Crafting`.
    seeds
        that many of the owner's images are kept in the key, to begin at.
    bits, lam, epochs
        of the `Watermark`; 0 bits leave the weights as they are.
    share, images
        of `AdvParams`, in bound mode.

    Examples
    --------
    >>> from modelward import embedded_model, generator, load_data
    >>> images, net = load_data("fashion-mini").test.take(slice(0, 200)), embedded_model().model
    >>> lock = ActiveGuard(mode="layer", nulls=50, steps=60, bits=16, epochs=1)
    >>> locked, key = lock.lock(net, images, secret=b"0" * 32, rng=generator(0))
    >>> anns = lock.issue(locked, key, "ann", secret=b"a" * 32, rng=generator(0))
    >>> x = images.batch(slice(0, 100))
    >>> right = [int((m(x).argmax(1) == images.labels[:100]).sum()) for m in (locked, lock.unlock(locked, anns))]
    >>> right[0] < 25, right[1] > 80
    (True, True)
    """

    exact: ClassVar[bool] = False
    card: ClassVar[Card] = Card(
        name="activeguard",
        title="adversarial examples of a secret confidence as users' credentials",
        paper="Xue et al.: ActiveGuard: an active intellectual property protection technique for deep neural networks by leveraging adversarial "
        "examples as users' fingerprints, IET CDT 2023, arXiv 2103.01527",
        taxonomy=GUARD,
        claims=(Claim("strangers are answered no better than by chance, and 3 points", metric="unauthorised", most=0.13),),
        limits=(
            "a layer in front of the network is taken off by whoever has the file: mode 'layer' protects nothing then, and says so",
            "bound mode is as strong as AdvParams: labelled images train the network back",
            "a file that was handed out cannot be taken back: a revoked user keeps what an old file and an old credential open",
            "a credential can be shared and replayed: the registry's log and a short expiry trace that",
            "whoever sends false credentials in a user's name locks that user out until the owner pardons",
            "any change of the weights moves the confidences: issue anew (`reissue`); the bits in the weights carry ownership after a theft",
            "a user's probes are near copies of images that were given to lock; give public ones where that matters",
            "labels alone show no windows: identification by classes is weaker, and says its p",
        ),
        cost="locking: a short fine-tuning and one AdvParams lock; issuing: 400 forward and backward passes for all users at once",
        active=Active(
            carrier="images with a MAC, in one file",
            granularity="all or nothing",
            identity="each user's own windows and MAC name him",
            revocable="a server at once; a handed-out file by a new one without the slot",
            overhead="none after authentication",
            black_box="yes with probabilities; by labels with a weaker p",
        ),
    )
    small: ClassVar[Mapping[str, Any]] = {
        "users": 8, "nulls": 64, "steps": 400, "seeds": 32, "bits": 16, "epochs": 6, "share": 0.01, "images": 64,
    }  # fmt: skip

    mode: str = "bound"
    answers: str = "random"
    probes: int = 4
    users: int = 100
    width: float = 0.02
    guard: float = 0.25
    nulls: int = 512
    eps: float = 0.1
    steps: int = 400
    rate: float = 0.02
    kappa: float = 20.0
    seeds: int = 128
    bits: int = 64
    lam: float = 0.2
    epochs: int = 3
    share: float = 0.005
    images: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = {name: (getattr(self, name) >= 1, ">= 1") for name in ("probes", "users", "nulls", "steps", "epochs", "images")}
        self._require(
            mode=(self.mode in MODES, ", ".join(MODES)), answers=(self.answers in ANSWERS, ", ".join(ANSWERS)), **counts,
            width=(0 < self.width <= 0.45, "in (0, 0.45]"), guard=(0 <= self.guard <= 4, "in [0, 4]"), eps=(0 < self.eps <= 1, "in (0, 1]"),
            rate=(self.rate > 0, "> 0"), kappa=(self.kappa > 0, "> 0"), seeds=(self.seeds >= 2, ">= 2"), bits=(self.bits >= 0, ">= 0"),
            lam=(self.lam > 0, "> 0"), share=(0 < self.share <= 1, "in (0, 1]"),
        )  # fmt: skip

    @property
    def count(self) -> int:
        """Probes a user."""
        return 1 if self.variant == "paper" else self.probes

    @property
    def delivery(self) -> str:
        """How the network is handed out: the paper knows a layer alone."""
        return "layer" if self.variant == "paper" and self.mode == "bound" else self.mode

    @property
    def keeps_slots(self) -> bool:
        """Whether the build holds something for each user that can be taken away: not on a server, and not in the paper's variant."""
        return self.variant != "paper" and self.delivery != "server"

    @property
    def watermark(self) -> Watermark:
        """The owner's bits."""
        return Watermark(bits=self.bits, lam=self.lam, epochs=self.epochs)

    def _lock(self, model: nn.Module, data: ImageSet, *, secret: bytes | None, rng: torch.Generator) -> tuple[nn.Module, Key]:
        require_float32(model, self.card.name)
        self.watermark.require_layer(model, self.card.name)
        own = secret or bytes(torch.randint(0, 256, (32,), generator=rng).tolist())
        marked, facts = self.watermark.embed(model, data, own, rng=rng)
        nulls = null_answers(marked, data, count=self.nulls, eps=self.eps, rng=rng)
        windows = place(nulls, width=self.width, guard=self.guard * self.width, keep=self.users * (1 if self.count == 1 else 2))
        locked = marked
        if self.delivery != "server":
            inside = AdvParams(share=self.share, images=self.images) if self.delivery == "bound" else None
            layer = keyed(self.answers, own) if self.variant != "paper" else ControlLayer(answers="constant", windows=windows.tolist())
            locked = delivered(marked, layer, inside, data, own, rng=rng)
        drawn = torch.randperm(len(data), generator=rng)[: self.seeds]
        tensors = {"secret": torch.tensor(list(own), dtype=torch.uint8), "windows": windows, "seeds": data.pixels[drawn].contiguous()}
        said = {"settings": self.settings(), "original": state_digest(marked), "watermark": facts, "content": state_digest(tensors)}
        return locked, Key(self.card.name, self.variant, state_digest(locked), said, tensors)

    def _unlock(self, locked: nn.Module, key: Key) -> nn.Module:
        own = type(self).configured(key.fact(dict, "settings"))
        if "user" not in key.facts:
            return opened_by_owner(locked, key, bare=own.delivery == "server")
        if own.delivery == "server":
            raise InputError("this network stays on its owner's server: a credential is shown to the gate there, it opens no file")
        return opened_by_window(locked, key) if own.variant == "paper" else opened_by(locked, key)

    def _desk(self, locked: nn.Module, key: Key) -> Desk:
        """Return where the credentials of a build are made."""
        own = type(self).configured(key.fact(dict, "settings"))
        build = Build.of(locked) if own.keeps_slots else None
        net = opened_by_owner(locked, key, bare=own.delivery == "server")
        crafting = Crafting(steps=own.steps, rate=own.rate, kappa=own.kappa)
        return Desk(key, net, build, crafting, own.count, {"settings": own.settings()})

    def _issue(self, locked: nn.Module, key: Key, user: str, *, secret: bytes, rng: torch.Generator) -> Key:
        made, slots = self._desk(locked, key).made({user: secret}, rng=rng)
        return with_slot(made[user], slots)

    def enrol(
        self, locked: nn.Module, key: Key, users: Mapping[str, bytes], *, taken: Sequence[Key] = (), rng: torch.Generator
    ) -> tuple[nn.Module, dict[str, Key]]:
        """Return the locked model with a slot for each user, and their credentials, all crafted at once.

        A credential of `issue` brings its slot along, and nobody can take that away; one of `enrol` opens a file with its slot alone, which
        `revoke` deletes. ``users`` are names with the users' secrets; nobody gets the windows of the credentials ``taken`` again.
        """
        windows = [require_windows(old.fact(list, "windows")) for old in taken]
        made, slots = self._desk(locked, key).made(users, windows, rng=rng)
        whole = {user: tagged(made[user], user, users[user]) for user in users}
        if not slots:
            return private_copy(locked).eval(), whole
        build = Build.of(locked)
        return build.with_slots({**build.layer.slots, **slots}), whole

    def revoke(self, locked: nn.Module, made: Key) -> nn.Module:
        """Return the locked model without a user's slot, or raise `UsageError` when it has none; who has an older file keeps what that opens."""
        build = Build.of(locked)
        tag = slot_key(made, build).tag
        if tag not in build.layer.slots:
            raise UsageError("this model has no slot of that credential; revoke its grant, and `reissue` for the others")
        return build.with_slots({name: text for name, text in build.layer.slots.items() if name != tag})

    def reissue(
        self, key: Key, model: nn.Module, data: ImageSet, users: Mapping[str, bytes], *, rng: torch.Generator
    ) -> tuple[nn.Module, Key, dict[str, Key]]:
        """Return a new build of updated weights under the same secret: locked model, owner's key and everybody's credentials."""
        own = type(self).configured(key.fact(dict, "settings"))
        locked, fresh = own.lock(model, data, secret=secret_of(key), rng=rng)
        ready, made = own.enrol(locked, fresh, users, rng=rng)
        return ready, fresh, made

    def gate(
        self, locked: nn.Module, key: Key, user_secret: Callable[[str], bytes], *, registry: Registry | None = None, attempts: int = 5
    ) -> Gate:
        """Return the gate of a server that answers with the opened network; see `Gate`."""
        return Gate(self.unlock(locked, key), key.model_digest, user_secret, registry, attempts)

    def verify_owner(
        self, suspect: nn.Module, key: Key, *, nulls: Sequence[nn.Module] = (), commitment: Commitment | None = None
    ) -> Verdict:
        """Return what the owner's bits say of a suspect: their error rate with the exact p-value over the secret.

        Parameters
        ----------
        nulls
            independent networks: the verdict tells how many of them the bits accuse, and decides nothing by that.
        commitment
            what dates the key; without one that is older than the day on which the suspect was seen nothing is decided.
        """
        return self.watermark.verdict(stripped(suspect), key, secret_of(key), nulls, commitment)

    def stripped(self, locked: nn.Module) -> nn.Module | None:
        """Return the network without its control layer: what a thief has who edits the file. A server's file is the whole network."""
        return stripped(locked)

    def adaptive_attacks(self) -> tuple[Attack, ...]:
        """Return training back what lies inside the layer."""
        return (Attack("bn-recalibrate", {}, "none"), Attack("ftal", {"epochs": 10}, "true"))
