"""DeepMarks: a secure fingerprinting framework for digital rights management of deep learning models (ICMR 2019, arXiv 1804.03648)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from modelward.core.card import Capacity, Card, Function, Mechanism, Protection, Scenario, Taxonomy
from modelward.core.claims import withstands
from modelward.core.deciding import Finding
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.ownership import Attack, Observation
from modelward.keys.derive import derive, stream
from modelward.marking.chances import NEVER, SECOND, claimable, told
from modelward.marking.codebooks import LENGTHS, codebook, colluders
from modelward.marking.weights import filter_mean, find_layer, projection
from modelward.ownership.drawing import seed_tensor
from modelward.ownership.mark import Mark
from modelward.ownership.weighing import UNKEPT, WeightMethod, bits_in, bound_secret, require_mean, unordered
from modelward.training.extras import Penalty


@dataclass(frozen=True, eq=False)
class Trace:
    """Whose copy a suspect is.

    Parameters
    ----------
    users
        numbers of the users whose codewords were found, ascending; empty: nobody's, as far as can be seen.
    levels
        float (v,), what was read for each bit: 1 and -1 in a copy that nobody touched.
    code
        the codeword that the levels give, uint8 (v,); of several copies' mean it is close to the AND of their codewords.
    """

    users: tuple[int, ...]
    levels: Tensor
    code: Tensor


@dataclass(frozen=True, kw_only=True)
class DeepMarks(WeightMethod):
    r"""Give every user a copy with a codeword of his own in its weights: :math:`L = L_0 + \gamma ||X w - f_j||^2`.

    :math:`f_j = U b_j` with U a secret orthonormal basis, b the user's codeword as -1 and 1, w the mean of one layer's filters and X a secret matrix.
    The codewords are the complements of the blocks of a (v, k, 1) design: of up to k - 1 users who mix their copies all are found (`trace`). The
    statistic of `verify` is the share of wrong bits of one user's codeword.

    The codeword is public, X and U are not: whatever w is, the levels that they give are independent :math:`N(0, |w|^2)`. So of the codeword's ones a
    suspect that does not know the secret has :math:`Bin(n_1, q)` right and of its zeros :math:`Bin(n_0, 1 - q)`, q the chance of a level of at least
    ``tau``, which is 1/2 where ``tau`` is 0: the p-value is exact.

    The paper's secret, ``X`` and ``U``, is one for all users: protect each copy with the same ``secret`` and the user's ``number``, starting from
    the same model and the same seed, so that copies differ in their codewords alone.

    Parameters
    ----------
    users
        how many the code must serve; 31 have codewords of 31 bits, more have longer ones.
    number
        which of them the copy is for, 0 to users - 1.
    gamma
        weight of the codeword beside the task.
    tau
        a level of at least this is read as 1.
    significance
        of the exact binomial over bits.

    Examples
    --------
    >>> from modelward import embedded_model, generator, load_data
    >>> images = load_data("fashion-mini").test.take(slice(0, 1000))
    >>> method = DeepMarks(number=4)
    >>> model, key = method.protect(embedded_model().model, images, secret=b"0" * 32, rng=generator(0))
    >>> method.trace(model, key).users, method.trace(embedded_model().model, key).users
    ((4,), ())
    """

    card: ClassVar[Card] = Card(
        name="deepmarks",
        title="a codeword for every user's copy, safe against collusion",
        paper="Chen, Rouhani, Fu, Zhao, Koushanfar: DeepMarks: a secure fingerprinting framework for digital rights management of deep "
        "learning models, ICMR 2019, arXiv 1804.03648",
        taxonomy=Taxonomy(
            Scenario.WHITE_BOX, Mechanism.PARAMETER, capacity=Capacity.MULTI_BIT, protection=Protection.PASSIVE,
            functions=(Function.OWNERSHIP, Function.IDENTITY),
        ),
        claims=(
            "names the user whose copy leaked", "names colluders who average their copies",
            *withstands("ftal", "prune"),
        ),
        limits=(
            "a key can be made for any network after the fact: only a dated commitment to it says whose model it is",
            "users who shift the filters, or mark their copy again, can hide",
            "more than k - 1 colluders (5 of 31) are not told apart, and may point at an innocent",
            "does not survive extraction: it lies in the weights, not in the answers",
        ),
        cost="two epochs of fine-tuning a user; tracing: reading one layer, no query",
    )  # fmt: skip

    users: int = 31
    number: int = 0
    gamma: float = 0.1
    tau: float = 0.0
    epochs: int = 2
    significance: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(
            users=(2 <= self.users <= LENGTHS[-1], f"in 2..{LENGTHS[-1]}"), number=(0 <= self.number < self.users, f"in 0..{self.users - 1}"),
            gamma=(self.gamma >= 0, ">= 0"), tau=(-1 < self.tau < 1, "in (-1, 1)"),
            significance=(0 < self.significance < 1, "in (0, 1)"),
        )  # fmt: skip

    @property
    def _length(self) -> int:
        """Number of bits of a codeword."""
        return codebook(self.users).shape[1]

    def _own(self, secret: bytes | None, rng: torch.Generator) -> bytes:
        """Return this method's secret: users are told apart by their numbers, and read with one projection."""
        drawn = bytes(torch.randint(0, 256, (32,), generator=rng).tolist())
        return derive(drawn if secret is None else secret, self.card.name)

    def _draw(self, model: nn.Module, data: ImageSet, *, secret: bytes, rng: torch.Generator) -> Mark:
        del data, rng
        code = codebook(self.users)
        name, layer = find_layer(model, self.layer, bits=-(-code.shape[1] // 2))  # at least as many weights as bits
        facts = {"layer": name, "width": layer.weight[0].numel(), "bits": code.shape[1], "draws": {"of": "projections"}}
        return self._referred(Mark({"seed": seed_tensor(secret), "bits": code[self.number].clone()}, facts), model)

    @property
    def _strength(self) -> tuple[str, float]:
        return "gamma", self.gamma

    def counted(self, key: Key) -> int:
        """Return how many bits a codeword has."""
        del key
        return self._length

    def _bases(self, secret: bytes, length: int, width: int) -> tuple[Tensor, Tensor]:
        """Return X (v, n) and U (v, v)."""
        drawn = torch.randn(length, length, generator=stream(secret, "basis"))
        return projection(secret, length, width, "random", bound="deepmarks"), torch.linalg.qr(drawn)[0]

    def _penalty(self, mark: Mark) -> Penalty:
        bits, name, width = mark.tensors["bits"], mark.facts["layer"], mark.facts["width"]
        matrix, basis = self._bases(bound_secret(mark.tensors), len(bits), width)
        wanted = basis @ (2.0 * bits - 1)

        def penalty(model: nn.Module) -> Tensor:
            mean = filter_mean(model, name, width)
            return self.gamma * (matrix.to(mean.device) @ mean - wanted.to(mean.device)).square().sum()

        return penalty

    def _levels(self, observed: Observation, key: Key) -> Tensor:
        """Return the correlation with each bit, float (v,)."""
        mean = require_mean(observed, int(key.fact(float, "width")))
        matrix, basis = self._bases(bound_secret(key.tensors), self._length, len(mean))
        return basis.T @ (matrix @ mean)

    def trace(self, suspect: nn.Module, key: Key, *, max_colluders: int = 5) -> Trace:
        """Return whose copy ``suspect`` is, or whose copies it was mixed from; any user's key of the same secret will do.

        Parameters
        ----------
        suspect
            a network of the copies' architecture.
        max_colluders
            the largest number that is looked for; never more than the code tells apart.

        Raises
        ------
        InputError
            for a suspect without the marked layer.
        """
        method = self.enrolled(key)
        levels = method._levels(method.observe(suspect, key), key)  # noqa: SLF001
        return Trace(
            tuple(colluders(levels, codebook(method.users)[: method.users], most=max_colluders)),
            levels,
            (levels >= method.tau).to(torch.uint8),
        )

    def _finding(self, observed: Observation, key: Key) -> Finding:
        bits, length = bits_in(key.tensors, self._length).bool(), self._length
        wrong = int(((self._levels(observed, key) >= self.tau) != bits).sum())
        size = float(require_mean(observed, int(key.fact(float, "width"))).norm())
        p = chance_of_bits(length - wrong, int(bits.sum()), length - int(bits.sum()), self.tau, size)
        zeros = int((codebook(self.users)[0] == 0).sum())
        # nearer to this user's codeword than to any other's, which differ from it in 2 (k - 1) bits
        ceiling = (
            min(claimable(length, 0.5, self.significance), (zeros - 2) / length) if p <= min(self.significance, SECOND) else NEVER
        )  # a threshold may make the codeword likely, which 1/2 a bit does not count
        code = torch.equal(bits, codebook(self.users)[self.number].bool())
        name, doubts = f"wrong bits of user {self.number}'s codeword (of {length})", () if code else (UNKEPT,)
        return Finding(wrong / length, name, draws_of="projections", exact=p, ceiling=ceiling, doubts=doubts, notes=unordered(key.tensors))

    def _forge(self, model: nn.Module, data: ImageSet, *, secret: bytes, rng: torch.Generator) -> Mark:
        """Return the best of 1,000 secrets with the best codeword for each."""
        drawn = self._draw(model, data, secret=secret, rng=rng)
        name, width = drawn.facts["layer"], drawn.facts["width"]
        with torch.no_grad():
            mean = filter_mean(model, name, width)
        code, best = codebook(self.users)[: self.users], (2.0, drawn)
        for index in range(TRIES):
            tensors = {**drawn.tensors, "seed": seed_tensor(derive(secret, "try", str(index)))}
            matrix, basis = self._bases(bound_secret(tensors), code.shape[1], width)
            wrong = ((basis.T @ (matrix @ mean) >= self.tau) != code.bool()).double().mean(1)
            if float(wrong.min()) < best[0]:
                found = {**tensors, "bits": code[int(wrong.argmin())].clone()}
                best = float(wrong.min()), Mark(found, {**drawn.facts, "forged": True, "tries": TRIES})
        return best[1]

    def adaptive_attacks(self) -> tuple[Attack, ...]:
        """Return those of all marks in weights; the second mark is another user's under another secret."""
        shared: tuple[Any, ...] = super().adaptive_attacks()
        return (*shared, Attack("combined", {"steps": [["weight-shift", {"shift": 1.0}], "ftal"]}, "stolen"))


def chance_of_bits(right: int, ones: int, zeros: int, tau: float, size: float) -> float:
    """Return the chance that a random projection of a mean filter of length ``size`` gives ``right`` bits of a codeword or more.

    Examples
    --------
    >>> round(chance_of_bits(31, 25, 6, 0.0, 1.0) * 2**31, 6), chance_of_bits(31, 25, 6, 0.0, 0.0)
    (1.0, 1.0)
    """
    if not size:  # nothing is there to project: all levels are 0, under every secret
        return 1.0
    import numpy as np
    from scipy.stats import binom, norm

    high = float(norm.sf(tau / size))
    chances = np.convolve(binom.pmf(np.arange(ones + 1), ones, high), binom.pmf(np.arange(zeros + 1), zeros, 1 - high))
    return told(float(chances[right:].sum()))


TRIES = 1000
