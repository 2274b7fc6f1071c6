"""The Merkle tree of RFC 6962, section 2.1: tree hash, inclusion proofs and consistency proofs (SHA-256).

A tree's leaves are hashes of entries. Appending and the root need O(log n) memory only (:class:`MerkleTree`); proofs
are made from a tree that keeps all hashes (:class:`FullTree`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence

EMPTY_ROOT = hashlib.sha256(b"").digest()
"""The root of a tree without leaves."""

_HASH = 32


def leaf_hash(entry: bytes) -> bytes:
    """SHA-256(0x00 · entry)."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 · left · right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class MerkleTree:
    """A tree that grows leaf by leaf and remembers one root for each set bit of its size."""

    def __init__(self) -> None:
        self.size = 0
        self._peaks: list[bytes] = []

    def append(self, leaf: bytes) -> None:
        """Add a leaf hash to the right."""
        complete = self.size
        while complete & 1:
            leaf = node_hash(self._peaks.pop(), leaf)
            complete >>= 1
        self._peaks.append(leaf)
        self.size += 1

    def root(self) -> bytes:
        """The tree hash MTH of all leaves so far."""
        if not self._peaks:
            return EMPTY_ROOT
        *smaller, root = self._peaks
        for peak in reversed(smaller):
            root = node_hash(peak, root)
        return root


def root_of(leaves: Sequence[bytes]) -> bytes:
    """The tree hash MTH of a sequence of leaf hashes."""
    tree = MerkleTree()
    for leaf in leaves:
        tree.append(leaf)
    return tree.root()


class FullTree:
    """A tree that keeps the hash of every complete subtree (64 bytes a leaf), and so proves in O(log² n)."""

    def __init__(self, leaves: Iterable[bytes] = ()) -> None:
        self._levels = [bytearray()]
        for leaf in leaves:
            self.append(leaf)

    @property
    def size(self) -> int:
        """The number of leaves."""
        return len(self._levels[0]) // _HASH

    def append(self, leaf: bytes) -> None:
        """Add a leaf hash to the right."""
        level, position = 0, self.size
        self._levels[0] += leaf
        while position & 1:
            leaf = node_hash(self._complete(level, position - 1), leaf)
            level, position = level + 1, position >> 1
            if level == len(self._levels):
                self._levels.append(bytearray())
            self._levels[level] += leaf

    def leaf(self, index: int) -> bytes:
        """The leaf hash at an index of the tree."""
        return self._complete(0, index)

    def root(self, size: int) -> bytes:
        """The tree hash MTH of the first ``size`` leaves."""
        return self._hash(0, size) if size else EMPTY_ROOT

    def inclusion(self, index: int, size: int) -> tuple[bytes, ...]:
        """PATH(index, the first ``size`` leaves): the sibling hashes from leaf to root. Raises IndexError."""
        if not 0 <= index < size <= self.size:
            raise IndexError(f"no leaf {index} in a tree of {size}")
        return tuple(self._path(index, 0, size))

    def consistency(self, first: int, size: int) -> tuple[bytes, ...]:
        """PROOF(first, the first ``size`` leaves): that the one tree is a prefix of the other. Raises IndexError."""
        if not 0 < first <= size <= self.size:
            raise IndexError(f"no prefix of {first} leaves in a tree of {size}")
        return tuple(self._subproof(first, 0, size, complete=True))

    def _path(self, index: int, start: int, end: int) -> Iterator[bytes]:
        """PATH of section 2.1.1 in the leaves from ``start`` to ``end``."""
        if end - start == 1:
            return
        split = start + _split(end - start)
        if index < split:
            yield from self._path(index, start, split)
            yield self._hash(split, end)
        else:
            yield from self._path(index, split, end)
            yield self._hash(start, split)

    def _subproof(self, first: int, start: int, end: int, *, complete: bool) -> Iterator[bytes]:
        """SUBPROOF of section 2.1.2; ``first`` counts from leaf 0; ``complete``: these leaves' root is known."""
        if first == end:
            if not complete:
                yield self._hash(start, end)
            return
        split = start + _split(end - start)
        if first <= split:
            yield from self._subproof(first, start, split, complete=complete)
            yield self._hash(split, end)
        else:
            yield from self._subproof(first, split, end, complete=False)
            yield self._hash(start, split)

    def _hash(self, start: int, end: int) -> bytes:
        """MTH of the leaves from ``start`` to ``end``; start is 0 or where a tree was split."""
        count = end - start
        if count & (count - 1) == 0:
            level = count.bit_length() - 1
            return self._complete(level, start >> level)
        split = start + _split(count)
        return node_hash(self._hash(start, split), self._hash(split, end))

    def _complete(self, level: int, position: int) -> bytes:
        """The hash of a complete subtree of 2 to the power of ``level`` leaves."""
        return bytes(self._levels[level][position * _HASH : (position + 1) * _HASH])


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether ``proof`` shows that ``leaf`` stands at ``index`` of the tree of that size and root."""
    if not 0 <= index < size:
        return False
    hashed, node, last = leaf, index, size - 1
    for sibling in proof:
        if last == 0:
            return False
        if node & 1 or node == last:
            hashed = node_hash(sibling, hashed)
            node, last = _climb_to_right_child(node, last)
        else:
            hashed = node_hash(hashed, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and hashed == root


def verify_consistency(first: int, second: int, first_root: bytes, second_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether ``proof`` shows that the tree (first, first_root) is a prefix of (second, second_root)."""
    if not 0 < first <= second:
        return False
    if first == second:
        return not proof and first_root == second_root
    path = [first_root, *proof] if first & (first - 1) == 0 else list(proof)
    if not path:
        return False
    node, last = _climb_to_left_child(first - 1, second - 1)
    older = newer = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            older, newer = node_hash(sibling, older), node_hash(sibling, newer)
            node, last = _climb_to_right_child(node, last)
        else:
            newer = node_hash(newer, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and older == first_root and newer == second_root


def _split(size: int) -> int:
    """The largest power of two below ``size``."""
    return 1 << (size - 1).bit_length() - 1


def _climb_to_right_child(node: int, last: int) -> tuple[int, int]:
    """Skip the levels at which an incomplete right edge has no sibling."""
    while node and not node & 1:
        node, last = node >> 1, last >> 1
    return node, last


def _climb_to_left_child(node: int, last: int) -> tuple[int, int]:
    """Skip the levels that are wholly inside the older tree."""
    while node & 1:
        node, last = node >> 1, last >> 1
    return node, last
