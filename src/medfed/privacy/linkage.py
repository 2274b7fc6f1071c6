"""Record linkage at an independent unit, which has neither key nor identifiers: it compares Bloom filters.

It tells each party which of its records are in a pair, under numbers that say nothing, and neither similarities nor
the other party's record numbers. Filters can be re-identified with effort (:mod:`medfed.privacy.bloom`): the unit has
to be independent of both parties, and forget them. How often records are linked is for its caller to limit.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from medfed.core.errors import Refused, UserError
from medfed.privacy.linkage_messages import Filters, Links

_PAIRS_AT_A_TIME = 2**18
_MOST_SIMILAR = 32

Indices: TypeAlias = NDArray[np.int64]
Words: TypeAlias = NDArray[np.uint64]


@dataclass(frozen=True)
class HammingBlocks:
    """Locality-sensitive blocking (Indyk and Motwani 1998): compare records that agree in all of some random bits.

    Two filters in which a share d of the bits differs are compared with probability 1 − (1 − (1 − d)^bits)^tables.
    """

    tables: int
    bits: int

    def __post_init__(self) -> None:
        if not (1 <= self.tables <= 1000 and 1 <= self.bits <= 64):
            raise UserError("locality-sensitive blocking has 1 to 1000 tables of 1 to 64 bits")


@dataclass(frozen=True)
class Rules:
    """What a linkage unit links, and what it refuses.

    threshold: the least Dice similarity 2|a ∧ b| / (|a| + |b|) of a pair.
    least, most: records of a party. least_links: below this, the answer is withheld.
    lightest, heaviest: the share of bits that a filter has set. A folded filter has at most about half: one with more
        was made to be similar to all, one with next to none is of a record with next to nothing in it.
    blocks: beside the parties' buckets; None compares all records of a bucket.
    """

    threshold: float
    least: int
    most: int
    least_links: int
    lightest: float = 0.05
    heaviest: float = 0.6
    blocks: HammingBlocks | None = None

    def __post_init__(self) -> None:
        if not 0.5 <= self.threshold <= 1:
            raise UserError("a threshold of Dice similarity is from 0.5 to 1")
        if not 1 <= self.least <= self.most or self.least_links < 1 or not 0 < self.lightest < self.heaviest < 1:
            raise UserError("the limits of a linkage are 1 or more, and the least is not above the most")


def link(first: Filters, second: Filters, rules: Rules) -> tuple[Links, Links]:
    """One-to-one pairs of records, most similar first (greedily), numbered at random; one message for each party.

    Raises Refused where the parties differ in project, session, key or encoding, where filters repeat, are too light
    or too heavy, too few, too many, or resemble too many others, and where links are too few to tell.
    """
    ours, theirs = (first.project, first.session, first.check), (second.project, second.session, second.check)
    if first.party == second.party or ours != theirs:
        raise Refused("the filters are not of two parties to one session under one key and encoding")
    for sent in (first, second):
        _inspect(sent, rules)
    if first.filters.shape[1] != second.filters.shape[1]:
        raise Refused("the two parties' filters differ in length")
    pairs = _greedy(*_similar(first, second, rules), len(first.filters), len(second.filters))
    if len(pairs) < rules.least_links:
        raise Refused(f"fewer than {rules.least_links} records are linked; how many is withheld")
    secrets.SystemRandom().shuffle(pairs)
    of_first, of_second = np.array(pairs, np.int64).T
    return (
        Links(first.project, first.session, first.party, of_first.copy()),
        Links(second.project, second.session, second.party, of_second.copy()),
    )


def dice(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Dice similarities 2|a ∧ b| / (|a| + |b|) of filters, row by row; 0 where both are empty."""
    common, of_first, of_second = (_weights(filters) for filters in (first & second, first, second))
    return _dice(common, of_first + of_second)


def _dice(common: NDArray[np.int64], weights: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.divide(2 * common, np.maximum(weights, 1), dtype=np.float64)


def _weights(filters: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The bits that are set in each filter."""
    counted: NDArray[np.int64] = np.bitwise_count(filters).sum(axis=1, dtype=np.int64)
    return counted


def _inspect(sent: Filters, rules: Rules) -> None:
    filters, buckets, whose = sent.filters, sent.buckets, f"the filters of {sent.party!r}"
    if filters.dtype != np.uint8 or filters.ndim != 2 or not filters.shape[1] or filters.shape[1] % 8:
        raise Refused(f"{whose} are not rows of whole 64-bit words")
    if buckets.dtype != np.int32 or buckets.shape != (len(filters),):
        raise Refused(f"{whose} do not have one bucket each")
    if not rules.least <= len(filters) <= rules.most:
        raise Refused(f"{whose} are {len(filters)}, where {rules.least} to {rules.most} are allowed")
    if len({row.tobytes() for row in filters}) != len(filters):
        raise Refused(f"{whose} hold one twice: flips were left out, or records invented")
    shares = _weights(filters) / (8 * filters.shape[1])
    if shares.min() < rules.lightest or shares.max() > rules.heaviest:
        raise Refused(f"{whose} hold some with too few or too many bits set to tell records apart")


def _similar(first: Filters, second: Filters, rules: Rules) -> tuple[Indices, Indices, NDArray[np.float64]]:
    """Pairs of records of one block with at least the threshold's similarity, each once, and their similarities."""
    ours, theirs = _words(first), _words(second)
    weights = [_weights(sent.filters) for sent in (first, second)]
    found: list[Indices] = []
    most = _MOST_SIMILAR * (len(first.filters) + len(second.filters))
    for groups in _groupings(first, second, rules.blocks):
        codes = [np.empty(0, np.int64)]
        for i, j in _paired(*groups):
            similar = _similarities(ours, theirs, weights, i, j) >= rules.threshold
            codes.append(i[similar] * len(second.filters) + j[similar])
            if sum(map(len, codes)) > most:
                raise Refused("too many records resemble each other", remedy="raise the threshold, or the hashes")
        found.append(np.concatenate(codes))
    i, j = np.divmod(np.unique(np.concatenate(found)), len(second.filters))
    return i, j, _similarities(ours, theirs, weights, i, j)


def _words(sent: Filters) -> Words:
    """Filters as 64-bit words, uint64 (words, n): one word of all records lies together."""
    return np.ascontiguousarray(np.ascontiguousarray(sent.filters).view(np.uint64).T)


def _similarities(
    ours: Words, theirs: Words, weights: list[NDArray[np.int64]], i: Indices, j: Indices
) -> NDArray[np.float64]:
    """The Dice similarities of the pairs (i, j)."""
    common = np.zeros(len(i), np.int64)
    for one, other in zip(ours, theirs, strict=True):
        common += np.bitwise_count(one[i] & other[j])
    return _dice(common, weights[0][i] + weights[1][j])


def _groupings(first: Filters, second: Filters, blocks: HammingBlocks | None) -> Iterator[tuple[Indices, Indices]]:
    """For each table, a number for each record of either party; records of one number are compared."""
    split, width = len(first.filters), 8 * first.filters.shape[1]
    buckets = np.concatenate([first.buckets, second.buckets]).astype(np.int64)
    if blocks is None:
        yield buckets[:split], buckets[split:]
        return
    filters = np.concatenate([first.filters, second.filters])
    for _ in range(blocks.tables):
        chosen = np.array(secrets.SystemRandom().sample(range(width), blocks.bits))
        bits = filters[:, chosen // 8] >> (7 - chosen % 8).astype(np.uint8) & 1
        keys = np.column_stack([buckets, np.packbits(bits, axis=1)])
        _, groups = np.unique(keys, axis=0, return_inverse=True)
        groups = groups.reshape(-1).astype(np.int64)
        yield groups[:split], groups[split:]


def _paired(ours: Indices, theirs: Indices) -> Iterator[tuple[Indices, Indices]]:
    """All pairs of records of one group, about ``_PAIRS_AT_A_TIME`` at a time."""
    order = np.argsort(theirs, kind="stable")
    starts, ends = (np.searchsorted(theirs[order], ours, side) for side in ("left", "right"))
    counts = ends - starts
    total = np.concatenate([[0], np.cumsum(counts)])
    begin = 0
    while begin < len(ours):
        end = max(begin + 1, int(np.searchsorted(total, total[begin] + _PAIRS_AT_A_TIME, "right")) - 1)
        some = counts[begin:end]
        within = np.arange(total[end] - total[begin]) - np.repeat(total[begin:end] - total[begin], some)
        yield np.repeat(np.arange(begin, end), some), order[np.repeat(starts[begin:end], some) + within]
        begin = end


def _greedy(i: Indices, j: Indices, similarities: NDArray[np.float64], ours: int, theirs: int) -> list[tuple[int, int]]:
    """One-to-one pairs, the most similar first."""
    free, others_free = [True] * ours, [True] * theirs
    pairs = []
    for place in np.argsort(-similarities, kind="stable").tolist():
        one, other = int(i[place]), int(j[place])
        if free[one] and others_free[other]:
            free[one] = others_free[other] = False
            pairs.append((one, other))
    return pairs
