"""Seeded choices that keep the class shares: an order whose every stretch is stratified, and the 80/20 split by groups."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


def stratified_order(labels: NDArray[np.int64], *, rng: np.random.Generator) -> Indices:
    r"""Return a random order of N samples in which every class is spread evenly.

    The i-th sample of class k (in random order) gets the rank :math:`(i + u_k) / n_k` with one :math:`u_k \sim U(0, 1)` a class;
    samples are sorted by rank. Cutting the order at rank t leaves :math:`|c_k - t n_k| < 1` samples of class k before the cut, so the first
    half, or any other stretch, is a stratified sample, and a shorter stretch is the beginning of a longer one.

    Parameters
    ----------
    labels
        int64 (N,).
    rng
        source of randomness.

    Returns
    -------
    NDArray
        a permutation of 0 .. N-1, int64 (N,).

    Examples
    --------
    >>> labels = np.array([0] * 6 + [1] * 2)
    >>> order = stratified_order(labels, rng=np.random.default_rng(0))
    >>> labels[order[:4]].sum(), labels[order[4:]].sum()
    (np.int64(1), np.int64(1))
    """
    ranks = np.empty(len(labels))
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        ranks[members] = (np.arange(len(members)) + rng.random()) / len(members)
    # Ties (equal ranks in two classes) have probability zero; a stable sort keeps the result defined all the same.
    return np.argsort(ranks, kind="stable").astype(np.int64)


def _fill(groups: Sequence[Indices], want: float) -> list[Indices]:
    """Return those groups, taken in order, that fit into ``want`` samples; the smallest one where none fits."""
    taken: list[Indices] = []
    for group in groups:
        if sum(map(len, taken)) + len(group) <= want:
            taken.append(group)
    return taken or [min(groups, key=len)]


def split_off(
    labels: NDArray[np.int64], groups: Sequence[str], *, share: float = 0.2, rng: np.random.Generator
) -> tuple[Indices, Indices, Indices]:
    """Split N samples, class by class, into a training and a test part without tearing groups apart.

    Parameters
    ----------
    labels
        int64 (N,).
    groups
        N names; samples of one class with the same name (frames of one track) stay on one side. A class in which all samples have one name
        is split sample by sample, because it could not be split otherwise.
    share
        wished share of the test part, in (0, 1); at least one sample a class goes there where the class has two.
    rng
        source of randomness.

    Returns
    -------
    tuple
        sorted indices of the training part, of the test part, and the labels of classes that had to be split inside their only group.

    Examples
    --------
    >>> train, test, torn = split_off(np.array([0] * 5 + [1] * 5), list("aabbccddee"), rng=np.random.default_rng(1))
    >>> len(train), len(test), len(torn)
    (8, 2, 0)
    """
    names = np.asarray(groups)
    test: list[Indices] = [np.empty(0, dtype=np.int64)]
    torn: list[int] = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label).astype(np.int64)
        if len(members) < 2:
            continue
        bundles = [members[names[members] == name] for name in np.unique(names[members])]
        if len(bundles) == 1:
            torn.append(int(label))
            bundles = list(members[:, None])
        shuffled = [bundles[i] for i in rng.permutation(len(bundles))]
        test.extend(_fill(shuffled, max(1, round(share * len(members)))))
    chosen = np.sort(np.concatenate(test))
    rest = np.setdiff1d(np.arange(len(labels), dtype=np.int64), chosen)
    return rest, chosen, np.asarray(torn, dtype=np.int64)
