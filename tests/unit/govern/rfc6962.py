"""A second implementation of the trees and consistency proofs of RFC 6962, written from its text."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def tree_hash(leaves: Sequence[bytes]) -> bytes:
    """MTH(D[n]) of RFC 6962, section 2.1."""
    if len(leaves) <= 1:
        return hashlib.sha256(b"\0" + leaves[0] if leaves else b"").digest()
    k = max(2**power for power in range(64) if 2**power < len(leaves))
    return hashlib.sha256(b"\1" + tree_hash(leaves[:k]) + tree_hash(leaves[k:])).digest()


def roots_of_proof(m: int, n: int, proof: list[bytes], known: bytes | None) -> tuple[bytes, bytes]:
    """The old and the new root that a proof yields, by undoing SUBPROOF(m, D[n], b) of section 2.1.2 from its end.

    known: the root of the first m leaves where b is true, which the proof then leaves out; None where b is false.
    """
    if m == n:
        if known is not None:
            return known, known
        return (last := proof.pop()), last
    k = max(2**power for power in range(64) if 2**power < n)
    last = proof.pop()
    if m <= k:
        old, new = roots_of_proof(m, k, proof, known)
        return old, hashlib.sha256(b"\1" + new + last).digest()
    old, new = roots_of_proof(m - k, n - k, proof, None)
    return hashlib.sha256(b"\1" + last + old).digest(), hashlib.sha256(b"\1" + last + new).digest()


def extends(first: int, size: int, old: bytes, new: bytes, proof: Sequence[bytes]) -> bool:
    """Whether a proof shows that the tree (size, new) begins with the tree (first, old)."""
    if not 0 < first <= size:
        return False
    rest = list(proof)
    try:
        return roots_of_proof(first, size, rest, old) == (old, new) and not rest
    except IndexError:
        return False


def proof_of(leaves: Sequence[bytes], first: int, *, known: bool = True) -> list[bytes]:
    """SUBPROOF of section 2.1.2, written out."""
    if first == len(leaves):
        return [] if known else [tree_hash(leaves)]
    k = max(2**power for power in range(64) if 2**power < len(leaves))
    if first <= k:
        return [*proof_of(leaves[:k], first, known=known), tree_hash(leaves[k:])]
    return [*proof_of(leaves[k:], first - k, known=False), tree_hash(leaves[:k])]
