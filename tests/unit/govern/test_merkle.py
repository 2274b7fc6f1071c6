"""The tree against Certificate Transparency's published vectors and the recursive formulas of RFC 6962."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medfed.govern.merkle import (
    EMPTY_ROOT,
    FullTree,
    MerkleTree,
    leaf_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)

LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def naive_root(entries: list[bytes]) -> bytes:
    """MTH of section 2.1, written out."""
    if not entries:
        return hashlib.sha256().digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\0" + entries[0]).digest()
    k = 1
    while 2 * k < len(entries):
        k *= 2
    return hashlib.sha256(b"\1" + naive_root(entries[:k]) + naive_root(entries[k:])).digest()


def hashes(entries: list[bytes]) -> list[bytes]:
    return [leaf_hash(entry) for entry in entries]


def inclusion_proof(leaves: list[bytes], index: int) -> tuple[bytes, ...]:
    return FullTree(leaves).inclusion(index, len(leaves))


def consistency_proof(leaves: list[bytes], first: int) -> tuple[bytes, ...]:
    return FullTree(leaves).consistency(first, len(leaves))


def test_published_roots() -> None:
    tree = MerkleTree()
    assert tree.root().hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert tree.root() == EMPTY_ROOT
    for size, (entry, root) in enumerate(zip(LEAVES, ROOTS, strict=True), start=1):
        tree.append(leaf_hash(entry))
        assert (tree.size, tree.root().hex()) == (size, root)


def test_published_inclusion_proofs() -> None:
    leaves = hashes(LEAVES)
    assert [p.hex() for p in inclusion_proof(leaves, 0)] == [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ]
    assert [p.hex() for p in inclusion_proof(leaves[:3], 2)] == [ROOTS[1]]


def test_published_consistency_proofs() -> None:
    leaves = hashes(LEAVES)
    assert consistency_proof(leaves[:1], 1) == ()
    assert [p.hex() for p in consistency_proof(leaves[:5], 2)] == [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ]
    assert [p.hex() for p in consistency_proof(leaves, 6)] == [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]


@given(st.lists(st.binary(max_size=4), max_size=70))
def test_the_growing_tree_equals_the_recursive_definition(entries: list[bytes]) -> None:
    tree = MerkleTree()
    for size, entry in enumerate(entries, start=1):
        tree.append(leaf_hash(entry))
        assert tree.root() == naive_root(entries[:size])
    assert root_of(hashes(entries)) == naive_root(entries)


def test_memory_grows_with_the_logarithm() -> None:
    tree = MerkleTree()
    for number in range(5000):
        tree.append(leaf_hash(b"%d" % number))
        assert len(tree._peaks) == tree.size.bit_count()


@given(st.data(), st.integers(1, 70))
def test_inclusion_is_proved_for_the_right_leaf_only(data: st.DataObject, size: int) -> None:
    entries = [b"%d" % i for i in range(size)]
    leaves, root = hashes(entries), naive_root(entries)
    index = data.draw(st.integers(0, size - 1))
    proof = inclusion_proof(leaves, index)
    assert verify_inclusion(leaves[index], index, size, proof, root)
    other = data.draw(st.integers(-1, size).filter(lambda i: i != index))
    assert not verify_inclusion(leaves[index], other, size, proof, root)
    assert not verify_inclusion(leaf_hash(b"forged"), index, size, proof, root)
    assert not verify_inclusion(leaves[index], index, size, (*proof, root), root)
    assert not (proof and verify_inclusion(leaves[index], index, size, proof[:-1], root))


@given(st.data(), st.integers(1, 70))
def test_consistency_is_proved_for_a_prefix_only(data: st.DataObject, size: int) -> None:
    entries = [b"%d" % i for i in range(size)]
    first = data.draw(st.integers(1, size))
    old, new = naive_root(entries[:first]), naive_root(entries)
    proof = consistency_proof(hashes(entries), first)
    assert verify_consistency(first, size, old, new, proof)
    changed = data.draw(st.integers(0, first - 1))
    rewritten = [*entries[:changed], b"forged", *entries[changed + 1 :]]
    forged = consistency_proof(hashes(rewritten), first)
    assert not verify_consistency(first, size, old, naive_root(rewritten), forged)
    assert not verify_consistency(first, size, old, new, (*proof, new))
    assert not (proof and verify_consistency(first, size, old, new, proof[:-1]))
    assert not verify_consistency(size + 1, size, old, new, proof)
    assert not verify_consistency(0, size, old, new, proof)


@pytest.mark.parametrize("index", [-1, 8])
def test_no_proof_of_what_is_not_there(index: int) -> None:
    with pytest.raises(IndexError):
        inclusion_proof(hashes(LEAVES), index)


@pytest.mark.parametrize("first", [0, 9])
def test_no_consistency_with_what_is_no_prefix(first: int) -> None:
    with pytest.raises(IndexError):
        consistency_proof(hashes(LEAVES), first)
