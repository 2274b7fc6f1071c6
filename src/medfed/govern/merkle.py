"""The Merkle tree of RFC 6962, section 2.1: tree hash, inclusion proofs and consistency proofs (SHA-256).

A tree's leaves are hashes of entries; proofs are made from the sequence of all leaf hashes, while appending
and the root need O(log n) memory only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

EMPTY_ROOT = hashlib.sha256(b"").digest()
"""The root of a tree without leaves."""


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


def inclusion_proof(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """PATH(index, leaves): the sibling hashes from the leaf up to the root. Raises IndexError."""
    if not 0 <= index < len(leaves):
        raise IndexError(f"no leaf {index} in a tree of {len(leaves)}")
    if len(leaves) == 1:
        return ()
    split = _split(len(leaves))
    if index < split:
        return (*inclusion_proof(leaves[:split], index), root_of(leaves[split:]))
    return (*inclusion_proof(leaves[split:], index - split), root_of(leaves[:split]))


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


def consistency_proof(leaves: Sequence[bytes], first: int) -> tuple[bytes, ...]:
    """PROOF(first, leaves): that the tree of the first leaves is a prefix of the whole. Raises IndexError."""
    if not 0 < first <= len(leaves):
        raise IndexError(f"no prefix of {first} leaves in a tree of {len(leaves)}")
    return _subproof(leaves, first, complete=True)


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


def _subproof(leaves: Sequence[bytes], first: int, *, complete: bool) -> tuple[bytes, ...]:
    """SUBPROOF of section 2.1.2; ``complete``: the verifier already knows the root of these leaves."""
    if first == len(leaves):
        return () if complete else (root_of(leaves),)
    split = _split(len(leaves))
    if first <= split:
        return (*_subproof(leaves[:split], first, complete=complete), root_of(leaves[split:]))
    return (*_subproof(leaves[split:], first - split, complete=False), root_of(leaves[:split]))


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
