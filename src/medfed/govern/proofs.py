"""Proofs about one ledger that are checked without it: that an entry stands in it, that it extends an earlier head."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medfed.core.errors import LedgerError, UserError
from medfed.govern.chain import follow_ledger, ledger_path
from medfed.govern.entries import Recorded, decode_entry, expect, parse_object
from medfed.govern.heads import Head, Seen
from medfed.govern.keys import VerifyKey
from medfed.govern.merkle import FullTree, leaf_hash, verify_consistency, verify_inclusion

FORMAT = "medfed ledger proof 1"


class FileTree:
    """The tree over the lines of a ledger's file, read as far as it was asked for."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self._tree = FullTree()

    def grown_to(self, size: int, party: str) -> FullTree:
        """The tree with at least ``size`` leaves. Raises LedgerError where the file has fewer lines."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._read)
                while self._tree.size < size and (line := file.readline()).endswith(b"\n"):
                    self._tree.append(leaf_hash(line[:-1]))
                    self._read += len(line)
        except OSError as error:
            raise LedgerError(f"{self._path.name} cannot be read ({error.strerror})", where=party) from error
        if self._tree.size < size:
            raise LedgerError(f"truncated: {self._tree.size} of {size} entries are left", where=party)
        return self._tree


@dataclass(frozen=True)
class Proof:
    """That a line is entry ``index`` of the ledger whose signed head is ``head``.

    entry: the line. inclusion, consistency: node hashes in hex. earlier: a head that ``head`` extends, of which
    ``consistency`` is the proof. key: fingerprint of the public key that verifies the head.
    """

    party: str
    index: int
    entry: str
    head: Head
    inclusion: tuple[str, ...]
    key: str
    earlier: Seen | None = None
    consistency: tuple[str, ...] = ()

    def to_json(self) -> str:
        """The proof as a JSON object."""
        return json.dumps({"format": FORMAT, **asdict(self)}, ensure_ascii=False, indent=1) + "\n"

    @classmethod
    def from_json(cls, content: bytes, where: str) -> Proof:
        """The proof that a file holds. Raises UserError where it holds none."""
        try:
            return _read(parse_object(content))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError("this is not a proof that medfed ledger prove wrote", where=where) from error

    def check(self, key: VerifyKey) -> Recorded:
        """The proven entry. Raises LedgerError, which says what of the proof is wrong."""
        if self.key != fingerprint(key):
            raise LedgerError(
                f"the proof is for the key with fingerprint {self.key}, this one's is {fingerprint(key)}",
                where=self.party,
            )
        if not self.head.verifies(self.party, key):
            raise LedgerError("the signature of the proof's head is wrong", where=self.party)
        line = self.entry.encode()
        where = f"{self.party}: entry {self.index} (line {self.index + 1})"
        root, inclusion = _nodes((self.head.root,), where)[0], _nodes(self.inclusion, where)
        if not verify_inclusion(leaf_hash(line), self.index, self.head.size, inclusion, root):
            raise LedgerError(f"it is not in the ledger with this head at size {self.head.size}", where=where)
        if self.earlier is not None:
            before = _nodes((self.earlier.root,), where)[0]
            steps = _nodes(self.consistency, where)
            if not verify_consistency(self.earlier.size, self.head.size, before, root, steps):
                raise LedgerError(
                    f"the head at size {self.head.size} does not extend the one at size {self.earlier.size}",
                    where=self.party,
                )
        try:
            recorded = decode_entry(line)
        except ValueError as error:
            raise LedgerError(f"it is no entry: {error}", where=where) from None
        if recorded.index != self.index:
            raise LedgerError(f"it says that it is entry {recorded.index}", where=where)
        return recorded


def fingerprint(key: VerifyKey) -> str:
    """SHA-256 of the 32 bytes of a public key, in hex."""
    return hashlib.sha256(key.raw).hexdigest()


def prove(folder: Path, party: str, index: int, key: VerifyKey, against: Seen | int | None = None) -> Proof:
    """The proof of an entry of a ledger, which is verified first, against its last signed head.

    against: a head that somebody saw, or the size of one. If it covers the entry, the proof is against that one; if
    not, the proof shows too that the last head extends it. Raises LedgerError where the ledger does not verify or never
    had that head, UserError where no signed head covers the entry or there is none of that size.
    """
    chain = follow_ledger(folder, party, key)
    if not 0 <= index < chain.vouched:
        raise UserError(
            f"no signed head covers entry {index}: the last is at size {chain.vouched}",
            where=party,
            remedy="entries are counted from 0",
        )
    path = ledger_path(folder, party)
    tree = FileTree(path).grown_to(chain.tree.size, party)
    last = chain.heads[-1]
    seen = _signed(against, chain.heads, party) if against is not None else last
    head = seen if seen.size > index else last
    earlier = Seen(seen.size, seen.root) if head is not seen else None
    return Proof(
        party,
        index,
        _line(path, index).decode(),
        head,
        _hex(tree.inclusion(index, head.size)),
        fingerprint(key),
        earlier,
        _hex(tree.consistency(earlier.size, head.size)) if earlier else (),
    )


def read_seen(text: str) -> Seen | int:
    """A size; or the head in a file: a proof, or lines whose last is a head or a witness entry. Raises UserError."""
    if text.isdecimal():
        return int(text)
    try:
        content = Path(text).read_bytes().strip()
    except OSError as error:
        raise UserError(f"this file cannot be read ({error.strerror})", where=text) from error
    for candidate in (content, content.rpartition(b"\n")[2]):
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
            fields = parse_object(candidate)
            fields = fields.get("head", fields)
            return Seen(expect(int, fields["size"]), expect(str, fields["root"]))
    raise UserError("there is no head in this file", where=text, remedy="a head is a JSON object with size and root")


def _signed(seen: Seen | int, heads: Sequence[Head], party: str) -> Head:
    """The signed head that was seen."""
    size = seen if isinstance(seen, int) else seen.size
    head = next((head for head in heads if head.size == size), None)
    if head is not None and (isinstance(seen, int) or seen.root == head.root):
        return head
    if isinstance(seen, int):
        sizes = ", ".join(str(size) for size in sorted({head.size for head in heads}))
        raise UserError(f"it signed no head at size {size}", where=party, remedy=f"name one of {sizes}")
    raise LedgerError(
        f"rewritten history or a split view: it has no head at size {size} with the root that was seen", where=party
    )


def _line(path: Path, index: int) -> bytes:
    with path.open("rb") as file:
        return next(line for number, line in enumerate(file) if number == index).removesuffix(b"\n")


def _hex(nodes: tuple[bytes, ...]) -> tuple[str, ...]:
    return tuple(node.hex() for node in nodes)


def _nodes(texts: tuple[str, ...], where: str) -> list[bytes]:
    try:
        nodes = [bytes.fromhex(text) for text in texts]
    except ValueError:
        nodes = [b""]
    if any(len(node) != len(leaf_hash(b"")) for node in nodes):
        raise LedgerError("a hash of the proof is not one of SHA-256", where=where)
    return nodes


def _read(fields: dict[str, Any]) -> Proof:
    json.dumps(fields, ensure_ascii=False).encode()  # no lone surrogate
    if fields.pop("format") != FORMAT:
        raise ValueError("another format")
    head, earlier = fields.pop("head"), fields.pop("earlier")
    texts = tuple[str, ...]
    kinds: dict[str, Any] = {"party": str, "index": int, "entry": str, "key": str}
    kinds |= {"inclusion": texts, "consistency": texts}
    head_kinds = {"size": int, "root": str, "round": int, "time": str, "signature": str}
    return Proof(
        **_exactly(fields, kinds),
        head=Head(**_exactly(head, head_kinds)),
        earlier=None if earlier is None else Seen(**_exactly(earlier, {"size": int, "root": str})),
    )


def _exactly(fields: dict[str, Any], kinds: dict[str, Any]) -> dict[str, Any]:
    if fields.keys() != kinds.keys():
        raise ValueError("other fields")
    return {name: expect(kind, fields[name]) for name, kind in kinds.items()}
