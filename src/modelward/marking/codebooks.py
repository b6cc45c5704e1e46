"""Codes against collusion: codewords from block designs with lambda = 1, of which few copies can be mixed and still be told apart."""

from __future__ import annotations

import functools
import math
from itertools import product

import torch
from torch import Tensor

from modelward.core.errors import UsageError

# block 0 of cyclic designs: every difference but 0 stands between exactly one pair of its points
DIFFERENCE_SETS = {7: (1, 2, 4), 13: (0, 1, 3, 9), 21: (3, 6, 7, 12, 14), 31: (1, 5, 11, 24, 25, 27)}
LIKE = 0.8
PRICE = 6.0
MOST = 31  # the largest order of a plane: 993 users


def plane(order: int) -> Tensor:
    """Return the incidence of the projective plane over the integers modulo a prime, bool (v, v), v = order^2 + order + 1: block by point.

    Raises
    ------
    UsageError
        for an order that is no prime up to 31.

    Examples
    --------
    >>> blocks = plane(3).int()
    >>> blocks.sum(1).unique().tolist(), (blocks @ blocks.T).fill_diagonal_(1).unique().tolist()
    ([4], [1])
    """
    if not 2 <= order <= MOST or any(order % factor == 0 for factor in range(2, order)):
        message = f"a plane is made for a prime order up to {MOST}, got {order}"
        raise UsageError(message)
    points = torch.tensor([p for p in product(range(order), repeat=3) if any(p) and next(filter(None, p)) == 1])
    return (points @ points.T) % order == 0


@functools.cache
def _blocks(length: int) -> Tensor:
    """Return the incidence of the design with so many points, bool (v, v)."""
    if length in DIFFERENCE_SETS:
        made = torch.zeros(length, length, dtype=torch.bool)
        for shift in range(length):
            made[shift, [(point + shift) % length for point in DIFFERENCE_SETS[length]]] = True
        return made
    return plane(next(order for order in range(2, MOST + 1) if order * order + order + 1 == length))


LENGTHS = tuple(sorted({*DIFFERENCE_SETS, *(p * p + p + 1 for p in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31))}))


def codebook(users: int) -> Tensor:
    """Return the shortest code for ``users`` users, uint8 (v, v), a codeword a row: the complements of the blocks of a (v, k, 1) design.

    The AND of the codewords of up to k - 1 users is that of no others: a block of k points is never covered by k - 1 others, which have one point
    each in common with it.

    Raises
    ------
    UsageError
        for fewer than 2 users or more than 993.

    Examples
    --------
    >>> code = codebook(31)
    >>> code.shape, code.sum(1).unique().tolist()
    (torch.Size([31, 31]), [25])
    """
    if not 2 <= users <= LENGTHS[-1]:
        message = f"a code serves 2 to {LENGTHS[-1]} users, got {users}"
        raise UsageError(message)
    return (~_blocks(next(length for length in LENGTHS if length >= users))).to(torch.uint8)


def colluders(levels: Tensor, code: Tensor, *, most: int = 5) -> list[int]:
    r"""Return the users whose codewords were mixed into ``levels``, in ascending order; nobody when no codeword shows.

    In the mean of c copies (bits as -1 and 1) the zeros of a colluder's codeword have the mean level :math:`1 - 2 (k + c - 1) / (k c)`, those of an
    innocent :math:`1 - 2 / k`, whatever c is. So the c users of the lowest levels are the best guess for every c; the number c is the one of the
    least :math:`v \log r_c + 6 c \log v`, r_c the squared error of the best mixture of their codewords with shares of at least 0. What is left must
    lie in the direction of the mixture: a cosine of .8 at least.

    Parameters
    ----------
    levels
        float (v,), the correlation of the weights with each bit, 1 and -1 in a copy that nobody touched; their scale does not matter.
    code
        uint8 (users, v), from `codebook`.
    most
        the largest number of colluders that is looked for; a code of blocks of k points tells k - 1 apart.

    Examples
    --------
    >>> code = codebook(31)
    >>> colluders((2.0 * code[[4, 9, 20]] - 1).mean(0), code), colluders(torch.linspace(-1, 1, 31), code)
    ([4, 9, 20], [])
    """
    from scipy.optimize import nnls

    size = int((code[0] == 0).sum())
    order = torch.argsort((1 - code.float()) @ levels).tolist()
    words, seen = (2.0 * code.double() - 1).numpy(), levels.double().numpy()
    length, energy = len(seen), float(levels.double().square().sum())
    best, chosen, left = float("inf"), list[int](), energy
    for count in range(1, min(most, size - 1, len(order)) + 1):
        shares, error = nnls(words[order[:count]].T, seen)
        if (shares <= 0).any():
            break
        cost = length * math.log(max(error**2, 1e-9 * energy, 1e-30)) + PRICE * count * math.log(length)
        if cost < best:
            best, chosen, left = cost, order[:count], float(error**2)
    cosine = math.sqrt(max(0.0, 1 - left / energy)) if energy else 0.0
    return sorted(chosen) if cosine >= LIKE else []
