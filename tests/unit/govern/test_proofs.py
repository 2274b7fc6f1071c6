"""Proofs about a ledger are checked without it, by RFC 6962 as written out a second time."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_forms import KEYS, TRUST, read, release
from rfc6962 import extends, tree_hash

from medfed.core.errors import LedgerError, UserError
from medfed.govern.heads import Seen, decode_head
from medfed.govern.keys import SigningKey
from medfed.govern.ledger import LedgerFolder
from medfed.govern.proofs import Proof, prove, read_seen

SIZES = (3, 4, 9, 14)
NORTH = TRUST["north"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """North's ledger of 14 signed entries and one unsigned, with heads at several sizes."""
    folder = tmp_path_factory.mktemp("north")
    with LedgerFolder.open(folder, KEYS["north"], durable=False) as ledgers:
        ledger = ledgers.ledger("north")
        for size in SIZES:
            while ledger.size < size:
                ledger.append(release("run", ledger.size))
            ledger.sign_head(size)
        ledger.append(release("run", 99))
    return folder


@pytest.mark.parametrize("index", range(14))
@pytest.mark.parametrize("against", [None, *SIZES])
def test_every_entry_is_proven_against_every_head(folder: Path, index: int, against: int | None) -> None:
    proof = prove(folder, "north", index, NORTH, against)
    again = Proof.from_json(proof.to_json().encode(), "proof.json")
    assert again == proof
    assert again.check(NORTH).entry == release("run", index)
    lines = [line[:-1] for line in read(folder / "north.jsonl")]
    covers = against is not None and against > index
    assert proof.head.size == (against if covers else 14)
    assert bytes.fromhex(proof.head.root) == tree_hash(lines[: proof.head.size])
    assert (proof.earlier is None) is (covers or against is None)
    if proof.earlier is not None:
        old, new = tree_hash(lines[: proof.earlier.size]), tree_hash(lines[:14])
        assert proof.earlier == Seen(against or 0, old.hex())
        assert extends(proof.earlier.size, 14, old, new, [bytes.fromhex(node) for node in proof.consistency])


def test_a_witnessed_head_that_was_never_signed_is_a_split_view(folder: Path) -> None:
    with pytest.raises(LedgerError, match="split view: it has no head at size 9 with the root that was seen"):
        prove(folder, "north", 2, NORTH, Seen(9, "00" * 32))
    with pytest.raises(UserError, match="it signed no head at size 5") as caught:
        prove(folder, "north", 2, NORTH, 5)
    assert "3, 4, 9, 14" in caught.value.remedy


@pytest.mark.parametrize("index", [-1, 14, 15])
def test_what_no_head_covers_cannot_be_proven(folder: Path, index: int) -> None:
    with pytest.raises(UserError, match=f"no signed head covers entry {index}: the last is at size 14"):
        prove(folder, "north", index, NORTH)


def test_a_ledger_that_does_not_verify_proves_nothing(folder: Path) -> None:
    with pytest.raises(LedgerError, match="signature is wrong"):
        prove(folder, "north", 2, SigningKey.generate().verify_key)


@settings(max_examples=300)
@given(data=st.data())
def test_no_character_of_a_proof_may_change(folder: Path, data: st.DataObject) -> None:
    text = prove(folder, "north", 5, NORTH, 4).to_json()
    position = data.draw(st.integers(0, len(text) - 1))
    changed = text[:position] + data.draw(st.characters(exclude_characters=text[position])) + text[position + 1 :]
    try:
        proof = Proof.from_json(changed.encode(errors="surrogatepass"), "p")
    except UserError:
        return
    if proof == Proof.from_json(text.encode(), "p"):
        return  # white space, or another spelling of the same value
    if [replace(node_case(proof))] == [node_case(Proof.from_json(text.encode(), "p"))]:
        return  # a hash in capitals
    with pytest.raises(LedgerError):
        proof.check(NORTH)


def node_case(proof: Proof) -> Proof:
    """The proof with its node hashes in small letters, as bytes do not tell."""
    earlier = proof.earlier and Seen(proof.earlier.size, proof.earlier.root.lower())
    lower = {name: tuple(node.lower() for node in getattr(proof, name)) for name in ("inclusion", "consistency")}
    return replace(proof, earlier=earlier, **lower)


def test_a_proof_for_another_entry_head_or_key_is_refused(folder: Path) -> None:
    proof, other = prove(folder, "north", 5, NORTH), prove(folder, "north", 6, NORTH)
    forged = SigningKey.generate().verify_key
    for wrong, sentence in (
        (replace(proof, entry=other.entry), "it is not in the ledger"),
        (replace(proof, index=6), "it is not in the ledger"),
        (replace(proof, head=prove(folder, "north", 5, NORTH, 9).head), "it is not in the ledger"),
        (replace(proof, party="south"), "signature"),
        (replace(proof, earlier=Seen(3, "00" * 32)), "does not extend"),
        (replace(proof, earlier=Seen(3, "00")), "not one of SHA-256"),
    ):
        with pytest.raises(LedgerError, match=sentence):
            wrong.check(NORTH)
    with pytest.raises(LedgerError, match="the proof is for the key with fingerprint"):
        proof.check(forged)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b'{"format":"medfed ledger proof 1"}', b"[" * 10**5])
def test_no_other_file_is_a_proof(content: bytes) -> None:
    with pytest.raises(UserError, match="this is not a proof"):
        Proof.from_json(content, "p")


def test_a_proof_with_a_lone_surrogate_is_none(folder: Path) -> None:
    fields = json.loads(prove(folder, "north", 5, NORTH).to_json())
    for changed in ({"party": "\ud800"}, {"entry": "\ud800"}, {"head": {**fields["head"], "time": "\ud800"}}):
        with pytest.raises(UserError, match="this is not a proof"):
            Proof.from_json(json.dumps(fields | changed).encode(), "p")


def test_heads_are_read_from_what_a_person_has(folder: Path, tmp_path: Path) -> None:
    assert read_seen("9") == 9
    heads = folder / "north.heads.jsonl"
    last = decode_head(read(heads)[-1][:-1])
    assert read_seen(str(heads)) == Seen(14, last.root)
    (tmp_path / "proof.json").write_text(prove(folder, "north", 1, NORTH, 4).to_json())
    assert read_seen(str(tmp_path / "proof.json")) == Seen(4, decode_head(read(heads)[1][:-1]).root)
    with LedgerFolder.open(tmp_path, KEYS["south"], durable=False) as ledgers:
        ledgers.ledger("south").witness(last, "north", "run")
    assert read_seen(str(tmp_path / "south.jsonl")) == Seen(14, last.root)
    (tmp_path / "text").write_text("no head")
    for path, sentence in (("text", "there is no head"), ("absent", "cannot be read")):
        with pytest.raises(UserError, match=sentence):
            read_seen(str(tmp_path / path))
