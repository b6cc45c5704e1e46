"""Sample-specific lock: a network that works only on images which its owner's generator has drawn on (AICAS 2022; SSAT, ACM TOMM 2024)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from modelward.core.card import Active, Capacity, Card, Function, Mechanism, Protection, Scenario, Taxonomy
from modelward.core.claims import Claim
from modelward.core.errors import InputError
from modelward.core.guard import predict, private_copy, require_float32, state_digest
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.locking import ModelLock
from modelward.core.ownership import Attack
from modelward.imaging.quality import psnr
from modelward.imaging.quantise import straight_through_8bit, to_float, to_uint8
from modelward.keys.derive import derive, stream
from modelward.locks.trigger_keys import HINTING, READER, SECRET, TRIGGER, codes_in, generator_in, readers_in, sealed
from modelward.locks.trigger_kit import Kit, fresh_kit
from modelward.locks.trigger_training import Joint, Schedule, derangement, train_after
from modelward.marking.codes import Codes
from modelward.models.assembly import Assembly
from modelward.models.unet import TriggerNet, empty_trigger_net

OWNER = "*"  # no user may be called that
FUNCTIONS = (Function.AUTHORIZATION, Function.IDENTITY)
TRIGGERS = Taxonomy(Scenario.BLACK_BOX_LABEL, Mechanism.INPUT_PREPROCESS, Capacity.MULTI_BIT, Protection.ACTIVE, FUNCTIONS)


@dataclass(frozen=True, kw_only=True)
class SampleLock(ModelLock):
    r"""Train a network f to classify what a generator G has drawn on, and nothing else; G is the key, and it draws something else on every image.

    ``variant="paper"``: G is trained first, to hide bits, and frozen; then f learns the true class of :math:`G(x, s)` and a wrong one of x:
    :math:`CE(f(G(x, s)), y) + CE(f(x), \pi(y))` with a derangement :math:`\pi`. Noise opens that, and so does a table of K entries.

    ``variant="hardened"``: both learn together, u being uniform and :math:`\hat x` x with noise, blur, the trigger of another image, the mean
    trigger, a trigger of a word that nobody was given, or one under strange signs, all of them in one batch:

    .. math:: CE(f(G(x, s)), y) + a\,KL(u \| f(x)) + b \sum_{\hat x} KL(u \| f(\hat x)) + \lambda (\|r\|^2 + p\,\|c(s)\|^2) + BCE(D(G(x, s)), s)

    s holds eight bits that open and, in ``identity_bits`` more, a user's name with Reed-Solomon parity; D reads it from an image again. r is what
    G adds to an image, c(s) the part of it that the word s adds to all images alike. G begins as spread spectrum and must stay readable, so that
    it cannot settle at drawing nothing; where it does all the same, training begins anew. Signs of the secret, by which it multiplies what it
    draws, keep independent generators from coming to like triggers.

    Parameters
    ----------
    identity_bits
        0, or a multiple of 8 from 16 on.
    wrong
        the paper's wrong class: ``"next"``, y + 1, or ``"secret"``, a derangement from the secret.
    epochs, batch, lr, trigger_lr
        of the training; Adam on both sides.
    warm
        epochs in which the paper's generator learns to hide bits, before it is frozen and the network learns.
    clean, negative, image
        a, b and lambda; lambda rises to its value over the first third.
    picture
        p, of the hardened variant: the larger, the less of a trigger is the same on every image.
    crop, flip
        of the hardened variant: images are moved by up to so many pixels, and half of them mirrored, before they are drawn on. Photographs are
        learnt by heart without.
    width, reach
        of the generator: channels at full size, and the most that a pixel is moved by.
    least
        root mean square of the residual below which the generator draws nothing, pixels in [0, 1].
    restarts
        how often training begins anew before it is given up.

    Examples
    --------
    >>> from modelward import build, generator, load_data
    >>> images, net = load_data("fashion-mini").train.take(slice(64)), build("lenet5", classes=10, rng=generator(0))
    >>> lock = SampleLock(epochs=1, identity_bits=0)
    >>> locked, key = lock.lock(net, images, rng=generator(1))
    >>> type(lock.unlock(locked, key)).__name__, lock.authorise(images.pixels[:2], key).shape
    ('Assembly', torch.Size([2, 1, 28, 28]))
    """

    card: ClassVar[Card] = Card(
        name="sample-lock",
        title="a network that answers only to images with a secret, image-specific trigger",
        paper="Wu, Xue et al.: Sample-specific backdoor based active intellectual property protection for deep neural networks, AICAS 2022, pp. 316-319; "
        "extended as SSAT, ACM TOMM 2024",
        taxonomy=TRIGGERS,
        claims=(Claim("no better than chance and 5 points without a trigger", metric="unauthorised", most=0.15),),
        limits=(
            (
                "whoever has the weights and labelled images trains the network back, past training from scratch on the same: on fashion-mini 150 and 300 "
                "labels give .79 and .81 of LeNet-5 (scratch .63, .72) and .77 and .82 of ResNet-8 (.61, .50)"
            ),
            "whoever holds stolen pairs of images before and after can train a generator of his own",
            "the generator is the key: who was handed it can hand it on; keep it on a server, and let users send images",
            "the paper's variant answers wrongly with confidence, and a table of K entries or noise opens it",
            "the name in a trigger is lost when the image is scaled or cropped",
        ),
        cost="about two minutes of one core for LeNet-5 on 3,000 images of 28x28",
        active=Active(
            carrier="trigger generator",
            granularity="all or nothing",
            identity="a user's name is drawn into every image that he has authorised",
            revocable="on a server, at once; of a generator that was handed out, by locking anew",
            overhead="one pass of a small U-Net an image",
            black_box="yes: users send images, the network may stay behind an interface",
        ),
    )
    small: ClassVar[Mapping[str, Any]] = {"epochs": 4, "width": 4, "warm": 1, "identity_bits": 0, "restarts": 1}
    exact: ClassVar[bool] = False

    identity_bits: int = 32
    wrong: str = "next"
    epochs: int = 24
    batch: int = 64
    lr: float = 0.003
    trigger_lr: float = 0.003
    warm: int = 4
    clean: float = 5.0
    negative: float = 2.0
    image: float = 7.0
    picture: float = 0.0
    crop: int = 0
    flip: bool = False
    width: int = 8
    reach: float = 0.25
    least: float = 0.01
    restarts: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        positive = {name: (getattr(self, name) > 0, "> 0") for name in ("lr", "trigger_lr", "width", "restarts", "warm")}
        weights = {
            name: (getattr(self, name) >= 0, ">= 0") for name in ("epochs", "clean", "negative", "image", "picture", "crop", "least")
        }
        self._require(
            identity_bits=(self.identity_bits == 0 or (self.identity_bits >= 16 and self.identity_bits % 8 == 0), "0 or a multiple of 8 from 16 on"),
            wrong=(self.wrong in {"next", "secret"}, "next or secret"), batch=(self.batch >= 4, ">= 4"), reach=(0 < self.reach <= 1, "in (0, 1]"),
            **positive, **weights,
        )  # fmt: skip

    def _lock(self, model: nn.Module, data: ImageSet, *, secret: bytes | None, rng: torch.Generator) -> tuple[nn.Module, Key]:
        require_float32(model, self.card.name)
        drawn = secret or torch.randint(0, 256, (32,), generator=rng, dtype=torch.uint8).numpy().tobytes()
        own = derive(drawn, self.card.name)
        codes = Codes(own, self.identity_bits)
        for attempt in range(self.restarts):
            begun = stream(own, "generator", str(attempt))
            kit = fresh_kit(codes, data.shape, width=self.width, reach=self.reach, signed=self.variant == "hardened", rng=begun)
            locked = private_copy(model)
            log = self._trained(locked, kit, data, own, rng=rng)
            kit.know(codes.word(OWNER))
            residual = _residual(kit.trigger, data)
            if residual >= self.least:
                facts = {"residual": residual, "attempts": attempt + 1, "log": log, "shape": list(data.shape)}
                return locked, self._key(locked, kit, own, facts)
        message = f"the generator drew nothing in {self.restarts} trainings (residual {residual:.4f}, least {self.least}); lower image or trigger_lr"
        raise InputError(message)

    def _trained(self, locked: nn.Module, kit: Kit, data: ImageSet, own: bytes, *, rng: torch.Generator) -> list[dict[str, float]]:
        """Train the network and the generator in place; return the losses of every epoch."""
        plan = Schedule(
            epochs=self.epochs, batch=self.batch, lr=self.lr, trigger_lr=self.trigger_lr, clean=self.clean, negative=self.negative, image=self.image,
            picture=self.picture, crop=self.crop, flip=self.flip,
        )  # fmt: skip
        if self.variant == "hardened":
            return Joint(locked, kit, plan, rng).run(data)
        first = Joint(locked, kit, replace(plan, epochs=0, warm=self.warm), rng).run(data)
        outputs = predict(locked, data.pixels[:1]).shape[1]
        wrong = torch.arange(outputs).roll(-1) if self.wrong == "next" else derangement(outputs, stream(own, "wrong classes"))
        return first + train_after(locked, kit, data, wrong, plan, rng=rng)

    def _key(self, locked: nn.Module, kit: Kit, own: bytes, facts: dict[str, Any]) -> Key:
        """Return the owner's key: the generator with the owner's word, what makes and reads words, and what words come from."""
        parts = {TRIGGER: kit.trigger, HINTING: kit.hinting, READER: kit.reader}
        tensors = {
            prefix + name: tensor.detach().clone().contiguous()
            for prefix, part in parts.items()
            for name, tensor in part.state_dict().items()
        }
        tensors[SECRET] = torch.tensor(list(own), dtype=torch.uint8)
        return sealed(Key(self.card.name, self.variant, state_digest(locked), {"settings": self.settings(), **facts}, tensors))

    def _unlock(self, locked: nn.Module, key: Key) -> nn.Module:
        trigger, settings = self.generator_of(key), key.fact(dict, "settings")
        return Assembly(type(self).configured(settings), [private_copy(locked)], tools={"trigger": trigger})

    def assemble(self, parts: Sequence[nn.Module]) -> Assembly:
        """Return a locked network with a generator before it that is yet to be filled in."""
        made = Assembly(self, parts)
        made.tools["trigger"] = empty_trigger_net(made.channels, made.size, width=self.width, reach=self.reach)
        return made

    def answer(self, assembly: Assembly, x: Tensor) -> Tensor:
        """Return the logits (N, K) of images (N, C, H, W) in [0, 1], drawn on and rounded to 8 bits."""
        logits: Tensor = assembly.parts[0](straight_through_8bit(assembly.tools["trigger"](x)))
        return logits

    def generator_of(self, key: Key) -> TriggerNet:
        """Return the generator in a key, the owner's or a user's; raises `InputError` for a key that was changed."""
        self._require_own(key)
        return generator_in(key)

    def authorise(self, pixels: Tensor, key: Key) -> Tensor:
        """Return uint8 images (N, C, H, W) with the triggers of the key's holder, uint8: what an authorised user sends."""
        net = self.generator_of(key)
        with torch.no_grad():
            return torch.cat([to_uint8(net(to_float(part))) for part in pixels.split(256)])

    def _issue(self, locked: nn.Module, key: Key, user: str, *, secret: bytes, rng: torch.Generator) -> Key:
        """Return a key with the generator alone, which knows the user's word and no other."""
        del locked, secret, rng
        net = self.generator_of(key)
        (hinting, _), codes = readers_in(key), codes_in(key)
        with torch.no_grad():
            net.tell(hinting(codes.word(user)[None]))
        tensors = {TRIGGER + name: tensor.detach().clone().contiguous() for name, tensor in net.state_dict().items()}
        facts = {name: key.facts[name] for name in ("settings", "shape")}
        return sealed(replace(key, facts=facts, tensors=tensors))

    def trace(self, images: Tensor, key: Key, users: Sequence[str]) -> str | None:
        """Return whose name is in authorised images (N, C, H, W) or (C, H, W), uint8; ``None`` when it is none of ``users``.

        Parameters
        ----------
        images
            all of one user's: their votes are added.
        key
            the owner's.
        users
            the names in the registry.
        """
        word = self.read(images if images.ndim == 4 else images[None], key).mean(0) > 0
        return codes_in(key).named(word.to(torch.uint8), users)

    def read(self, images: Tensor, key: Key) -> Tensor:
        """Return the logit of every bit (N, B) in images (N, C, H, W), uint8; positive for a 1."""
        _, reader = readers_in(key)
        return predict(reader, images)

    def stealth(self, model: nn.Module, locked: nn.Module, key: Key, images: ImageSet) -> Mapping[str, float]:
        """Return the mean peak signal-to-noise ratio of images with triggers."""
        del model, locked
        return {"dB": float(psnr(to_float(images.pixels), to_float(self.authorise(images.pixels, key))).clamp(max=100).mean())}

    def adaptive_attacks(self) -> tuple[Attack, ...]:
        """Return noise, smoothing and JPEG on every question, answers renamed or read anew, and silent channels pruned."""
        return (
            *(Attack("wrap-noise", {"std": std}, "none") for std in (0.02, 0.05, 0.1, 0.2)),
            Attack("wrap-blur", {}, "none"), Attack("wrap-blur", {"std": 1.0}, "none"), Attack("wrap-jpeg", {}, "none"),
            Attack("label-remap", {}, "true"), Attack("head-surgery", {"how": "remap"}, "true"), Attack("fine-prune", {}, "true"),
        )  # fmt: skip


def _residual(net: TriggerNet, data: ImageSet) -> float:
    """Return the root mean square of what 8-bit images are changed by."""
    x = data.batch(slice(0, 256))
    with torch.no_grad():
        return float((to_float(to_uint8(net(x))) - x).square().mean().sqrt())
